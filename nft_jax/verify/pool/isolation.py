"""Isolation: the kernel lets a grading process compute and read files, and refuses everything else.

It is Linux's seccomp, through the package `seccompy` (the extra `[isolation]`), on x86-64 and AArch64. The filter lists
what is allowed: a list of what is refused would miss the system calls of later kernels and foreign ABIs. A refused
call fails with EPERM, which Python raises as PermissionError.
"""

import contextlib
import errno
import os

MODES = ("auto", "required", "off")

# Memory, time, threads and waiting; reading and writing descriptors that are open: the pipes to the parent, and stderr.
_COMPUTE = """
    brk mmap munmap mprotect mremap madvise mincore membarrier rseq set_robust_list get_robust_list set_tid_address
    futex futex_waitv futex_wait futex_wake sched_yield sched_getaffinity sched_getparam sched_getscheduler getcpu
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrandom sysinfo uname getrusage
    read readv pread64 preadv write writev lseek close close_range dup dup2 dup3 pipe pipe2 eventfd2
    poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait sigaltstack restart_syscall
    getpid getppid gettid getuid geteuid getgid getegid getgroups getpgid getpgrp getsid getrlimit
    exit exit_group
"""
_READ = """
    stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getcwd
    getdents getdents64 fadvise64 getxattr lgetxattr fgetxattr
"""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY
_CLONE_THREAD = 0x10000
_HARMLESS_FCNTL = (1, 2, 3, 1030)  # F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC
_HARMLESS_IOCTL = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX


def isolate(mode: str) -> bool:
    """Keeps this process from writing files, opening sockets and starting processes from now on.

    Args:
      mode: "auto" (where seccompy is installed and the kernel takes the filter), "required" or "off".

    Returns:
      Whether the kernel enforces it.

    Raises:
      RuntimeError: if it is required and not available.
    """
    if mode == "off":
        return False
    try:
        import seccompy

        _filter(seccompy).load()
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        if mode == "auto":
            return False
        raise RuntimeError(
            f"the process can't be isolated: {error}; pip install nft_jax[isolation], on Linux"
        ) from error
    return True


def _filter(seccompy):
    """Returns the filter, for all threads of the process."""
    refuse = int(seccompy.Action.ERRNO) | errno.EPERM
    rules = seccompy.Filter(refuse, flags=seccompy.FilterFlag.TSYNC)
    masked = seccompy.CmpOp.MASKED_EQ

    def allow(name, conditions=None):
        with contextlib.suppress(ValueError):  # this architecture does not have the call
            rules.allow(name, args=conditions)

    for name in (_COMPUTE + _READ).split():
        allow(name)
    allow("open", [(1, masked, 0, _WRITING)])
    allow("openat", [(2, masked, 0, _WRITING)])
    allow("clone", [(0, masked, _CLONE_THREAD, _CLONE_THREAD)])  # a thread, not a process
    rules.errno("clone3", errno.ENOSYS)  # a filter cannot see its flags; libc then uses clone
    allow("prlimit64", [(0, seccompy.CmpOp.EQ, 0), (2, seccompy.CmpOp.EQ, 0)])  # its limits may be read, not set
    for number in _HARMLESS_FCNTL:
        allow("fcntl", {1: number})
    for number in _HARMLESS_IOCTL:
        allow("ioctl", {1: number})
    return rules
