"""How a run stops on request: SIGTERM, SIGHUP or Ctrl-C, a grace period for the running step, exit code 75."""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from nft_jax.processes import distributed
from nft_jax.processes.ending import RUN_AGAIN

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignal:
    """Receives SIGTERM, SIGHUP and Ctrl-C in its own thread: the main thread may wait inside XLA for minutes.

    SIGHUP says that the terminal is gone; it stays ignored where it was, as `nohup` wants it.

    Outside `wait_for_steps` nothing needs saving, so a signal ends the process at once with code 75. Inside, it sets
    `is_requested`; the main thread then has `grace_seconds` to finish its step and call `lift_deadline`, after which it
    can save without a deadline. If it does not, the process ends with code 75. A second Ctrl-C kills the process. The
    context must be opened in the main thread.

    Args:
      grace_seconds: How long to wait for the running step.
      describe_resume: Says from which step the run goes on; printed when the process ends.
    """

    def __init__(self, grace_seconds: float, describe_resume: Callable[[], str]):
        self.grace_seconds, self.describe_resume = grace_seconds, describe_resume
        self.is_requested = False
        self._waits = self._deadline_lifted = False

    def __enter__(self) -> "StopSignal":
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        # Python runs a handler only when the main thread is in Python again; the byte in the pipe arrives at once.
        heard = [number for number in SIGNALS if number != signal.SIGHUP or not _is_ignored(number)]
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in heard}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, name="stop signal", daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.write(self._write, b"\0")
        self._watcher.join()
        os.close(self._read)
        os.close(self._write)

    @contextlib.contextmanager
    def wait_for_steps(self) -> Iterator[None]:
        """While this context is open, a signal waits for the running step."""
        self._waits = True
        yield
        self._waits = False

    def is_requested_anywhere(self) -> bool:
        """Returns whether any process was asked to stop; all processes call it at the end of the same step.

        `multihost_utils.reached_preemption_sync_point` can't do this: it needs JAX's C++ handler of SIGTERM, and a
        process can have only one handler. It ignores Ctrl-C, has no grace period and never ends the process at once,
        and lets steps go on until its notice has gone round. This costs a collective of one byte a step.
        """
        anywhere = distributed.any_process(self.is_requested)
        # Never sets it to False: a signal may have arrived meanwhile.
        if anywhere:
            self.is_requested = True
        return anywhere

    def lift_deadline(self) -> None:
        """Ends the grace period once the requested step has ended: saving it may take any time."""
        # Without a request there is no deadline yet, and that of a later request must stay.
        self._deadline_lifted = self.is_requested

    def _watch(self):
        first = self._next_signal(None)
        if not first:
            return
        if not self._waits:
            self._leave(RUN_AGAIN, f"{first.name}: no step is running; {self.describe_resume()}")
        self.is_requested = True
        _print(f"{first.name}: waiting at most {self.grace_seconds:g} s for the running step (Ctrl-C ends it now)")
        deadline = time.monotonic() + self.grace_seconds
        while (number := self._next_signal(0.05)) != 0:
            if number == signal.SIGINT:
                self._leave(128 + signal.SIGINT, f"killed; {self.describe_resume()}")
            if time.monotonic() > deadline and not self._deadline_lifted:
                self._leave(RUN_AGAIN, f"the step did not end in {self.grace_seconds:g} s; {self.describe_resume()}")

    def _next_signal(self, seconds):
        """Returns the next of `SIGNALS`; 0 when the context is closed; None if none arrives within `seconds`."""
        while select.select([self._read], [], [], seconds)[0]:
            number = os.read(self._read, 1)[0]
            # The pipe also gets other signals that have a handler in Python.
            if number in (0, *SIGNALS):
                return signal.Signals(number) if number else 0
        return None

    def _leave(self, code, message):
        _print(message)
        # Not sys.exit: the main thread may be deep inside XLA. Grading processes end when their pipe closes.
        os._exit(code)


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) == signal.SIG_IGN


def _print(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
