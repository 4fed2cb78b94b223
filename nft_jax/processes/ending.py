"""How a process ends when another one of the run is lost: with exit code 75, so that a launcher starts all again.

On CPUs collectives are TCP connections and fail at once. On accelerators they may wait forever; there JAX's
coordination service notices the loss: at once if process 0 is lost, which hosts the service, else by missing
heartbeats. Its client then aborts this process.
"""

import contextlib
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import jax

from nft_jax.compat import coordination

# EX_TEMPFAIL of sysexits.h. The launchers run the same command again after it.
RUN_AGAIN = 75
# An XLA status with the words of gloo, NCCL or the coordination service: an operation failed because a process is lost.
_LOSS = re.compile(
    r"(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED|DATA_LOSS|FAILED_PRECONDITION)\b.*"
    r"(gloo|nccl|connection (closed|reset|refused)|remote process|coordination|heartbeat|barrier)",
    re.IGNORECASE | re.DOTALL,
)
# The coordination service answers within milliseconds, and over any network within this time.
_ANSWER_SECONDS = 2.0
_LINGER_SECONDS = 2.0
_exit_lock = threading.Lock()


def is_multiprocess() -> bool:
    """Returns whether the run has several processes, without starting a device."""
    return coordination.num_processes > 1


@contextlib.contextmanager
def exit_on_process_loss(
    describe_resume: Callable[[], str] = lambda: "run the same command again on all hosts",
) -> Iterator[None]:
    """Ends this process of several with code 75 if another one is lost while the block runs.

    A loss shows as an error for which `is_process_loss` holds, or as an abort by JAX's coordination client in its own
    thread. A Python handler of SIGABRT would run too late for that, so the handler is a C function, which never
    returns. Other aborts are not affected.

    Args:
      describe_resume: Says from which step the run goes on; printed last. Of nested blocks the inner one's counts.
    """
    set_handler = ctypes.CDLL(None).signal
    set_handler.restype, set_handler.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)

    def on_abort(_):
        if is_multiprocess() and _client_is_stuck():
            _exit_after_loss("another process is gone, or can't be reached any more", describe_resume)
        set_handler(signal.SIGABRT, previous)
        os.abort()

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)  # this reference keeps it alive
    previous = set_handler(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    except Exception as error:
        if is_process_loss(error):
            _exit_after_loss(f"another process is gone: {str(error).splitlines()[0][:200]}", describe_resume)
        raise
    finally:
        set_handler(signal.SIGABRT, previous)


def is_process_loss(error: BaseException | None) -> bool:
    """Returns whether an error or one of its causes means that another process is lost.

    Reads the message, because JAX raises several types, and NumPy wraps the errors of reading an array.
    """
    while is_multiprocess() and error is not None:
        if _LOSS.match(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def exit_process(code: int) -> None:
    """Ends the process; one of several ends at once, since the others may be waiting for it in a collective."""
    if not is_multiprocess():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    if coordination.process_id == 0:
        # The coordination service ends with process 0, and then the others end: leaves them time for their own message.
        time.sleep(_LINGER_SECONDS)
    os._exit(code)


def _exit_after_loss(message: str, describe_resume: Callable[[], str]) -> None:
    if _exit_lock.acquire(blocking=False):
        print(f"{message}; {describe_resume()}", file=sys.stderr, flush=True)
        exit_process(RUN_AGAIN)
    threading.Event().wait()  # another thread prints the message and ends the process


def _client_is_stuck() -> bool:
    """Returns whether the coordination client does not answer, because its aborting thread holds its lock."""

    def query():
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # an answer too
            coordination.client.key_value_try_get("nft_jax/nothing")

    thread = threading.Thread(target=query, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    return thread.is_alive()
