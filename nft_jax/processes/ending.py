"""Another process is gone: how this one notices, what it says, and how it ends, so that the run can be started again.

Collectives fail at once on CPUs, where they are TCP connections; on accelerators they may wait for ever, and the
coordination service notices: at once where process 0 is gone, which hosts it, else when heartbeats stay away.
"""

import contextlib
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable

import jax

from nft_jax.compat import coordination

# EX_TEMPFAIL of sysexits.h: launchers read it as "run the same command again".
AGAIN = 75
# A status of XLA's in the words of gloo, NCCL or the coordination service: something failed for want of a process.
_LOSS = re.compile(
    r"(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|DATA_LOSS|FAILED_PRECONDITION)\b.*"
    r"(gloo|nccl|connection (closed|reset|refused)|remote process|coordination|heartbeat|barrier)",
    re.IGNORECASE | re.DOTALL,
)
# The coordination service answers within milliseconds, or from the other side of the world within one of these.
_ANSWER_SECONDS = 2.0
_LINGER_SECONDS = 2.0

_ending = threading.Lock()
_resumes: Callable[[], str] = lambda: "run the same command again on all hosts"  # noqa: E731
_previous: int | None = None


def is_multiprocess() -> bool:
    """Whether there is another process; asks no device."""
    return coordination.num_processes > 1


def set_resume_message(resumes: Callable[[], str]) -> None:
    """What to say after a loss: from where the run goes on."""
    global _resumes
    _resumes = resumes


def is_process_loss(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is that another process is gone.

    Its type says nothing: reading a result raises what NumPy makes of it.
    """
    while is_multiprocess() and error is not None:
        if _LOSS.match(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def exit_after_loss(words: str) -> None:
    """Ends this process with code 75 because another one is gone; says from where the run goes on."""
    if _ending.acquire(blocking=False):
        print(f"{words}; {_resumes()}", file=sys.stderr, flush=True)
        exit_process(AGAIN)
    # Somebody else is saying so, and ends this process.
    threading.Event().wait()


def exit_process(code: int) -> None:
    """Ends the process; of several without a word to the others, which may be waiting for it in a collective."""
    if not is_multiprocess():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    if coordination.process_id == 0:
        # The others go with the coordination service, and may be about to say what is wrong with them.
        time.sleep(_LINGER_SECONDS)
    os._exit(code)


def handle_aborts() -> None:
    """From here on an abort of this process by JAX's coordination client, which found another one gone, is a `lost`.

    The client aborts in a thread of its own; Python can't be called in its place (jaxlib can't convert the status that
    it would pass), and a Python handler of SIGABRT would run too late. So this one is a C function, which never
    returns. Any other abort goes on as it would have.
    """
    global _previous, _handler

    def handle(_):
        if _client_is_stuck():
            exit_after_loss("another process is gone, or can't be reached any more")
        ctypes.CDLL(None).signal(signal.SIGABRT, ctypes.c_void_p(_previous))
        os.abort()

    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(handle)  # kept, for C doesn't
    install = ctypes.CDLL(None).signal
    install.restype = ctypes.c_void_p
    _previous = install(signal.SIGABRT, _handler)


def _client_is_stuck() -> bool:
    """Whether the coordination client does not answer: the thread that aborts holds its lock."""

    def ask():
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # an answer too
            coordination.client.key_value_try_get("nft_jax/nothing")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ANSWER_SECONDS)
    return asking.is_alive()
