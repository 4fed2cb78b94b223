"""A grader that tries what an isolated process may not do: the response names it, and the answer is a folder for it."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path


def _write(path: str) -> None:
    with open(path, "w") as file:
        file.write("x")


def _raw(number: int, *arguments) -> None:
    """Makes a system call by number, past Python's checks."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "raw call")


# In a folder that holds a file called "there".
FORBIDDEN = {
    "write": lambda folder: _write(f"{folder}/new"),
    "append": lambda folder: open(f"{folder}/there", "a").close(),
    "truncate": lambda folder: os.truncate(f"{folder}/there", 0),
    "remove": lambda folder: os.remove(f"{folder}/there"),
    "rename": lambda folder: os.rename(f"{folder}/there", f"{folder}/new"),
    "link": lambda folder: os.symlink(f"{folder}/there", f"{folder}/new"),
    "mkdir": lambda folder: os.mkdir(f"{folder}/new"),
    "chmod": lambda folder: os.chmod(f"{folder}/there", 0o777),
    "creat": lambda folder: _raw(85, f"{folder}/new".encode(), 0o666),
    "openat2": lambda folder: _raw(437, -100, f"{folder}/there".encode(), bytes(24), 24),
    "io_uring": lambda folder: _raw(425, 8, bytes(120)),
    "x32 open": lambda folder: _raw(0x40000000 + 2, f"{folder}/new".encode(), 0o101, 0o666),
    "tcp": lambda folder: socket.create_connection(("127.0.0.1", 9), 1),
    "udp": lambda folder: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "unix": lambda folder: socket.socket(socket.AF_UNIX),
    "resolve": lambda folder: socket.socketpair(),
    "fork": lambda folder: os.fork() or os._exit(0),
    "run": lambda folder: subprocess.run([sys.executable, "-c", ""], check=True),
    "system": lambda folder: _shell("true"),
    "exec": lambda folder: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "kill": lambda folder: os.kill(os.getppid(), signal.SIGSTOP),
    "terminal": lambda folder: _raw(16, 2, 0x5412, b"x"),
    "limits": lambda folder: _set_limits(),
}  # fmt: skip


def _shell(command: str) -> None:
    if os.system(command) != 0:
        raise PermissionError("no shell")


def _set_limits() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))


def _compute() -> None:
    """Does what graders need: memory, threads, reading files and folders, imports."""
    import decimal  # noqa: F401
    import fractions  # noqa: F401

    kept = bytearray(1 << 24)
    thread = threading.Thread(target=kept.extend, args=(b"x",))
    thread.start()
    thread.join()
    assert os.listdir(os.path.dirname(__file__))
    assert Path(__file__).read_text()
    assert len(kept) == (1 << 24) + 1
    print("nobody reads this")


def attempt(response: str, answer: str) -> bool:
    """Returns True where the kernel allows it."""
    _compute() if response == "compute" else FORBIDDEN[response](answer)
    return True
