"""How a run ends when it is asked to: SIGTERM or Ctrl-C, a grace period for the running step, exit code 75."""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from nft_jax.processes import distributed
from nft_jax.processes.ending import AGAIN

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopper:
    """Watches for SIGTERM and Ctrl-C in a thread of its own, for the main thread may wait inside XLA for minutes.

    Outside `patient` a signal ends the process at once with code 75: there is nothing to save. Inside, `requested`
    turns true, and the main thread has `grace_seconds` to finish its step and call `reached`, after which it may take
    its time to save; else the process ends with 75. What is said tells by `resumes()` from where the run goes on. A
    second Ctrl-C kills. To be used in the main thread.
    """

    def __init__(self, grace_seconds: float, resumes: Callable[[], str]):
        self.grace_seconds, self.resumes = grace_seconds, resumes
        self.requested = False
        self._patient = self._reached = False

    def __enter__(self) -> "Stopper":
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        # Python runs a handler when the main thread is next in Python; the byte in the pipe is there at once.
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, name="stopper", daemon=True)
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
    def patient(self) -> Iterator[None]:
        """While this is open, a signal waits for the running step."""
        self._patient = True
        yield
        self._patient = False

    def agreed(self) -> bool:
        """Whether any process of the run was asked to stop; to be called by all of them at the end of the same step.

        Not by `multihost_utils.reached_preemption_sync_point`: the handler of SIGTERM that it relies on is JAX's own,
        in C++, and only one handler can be there. It knows nothing of Ctrl-C, of a grace period or of when to leave at
        once, and lets steps go on until its notice has gone round. This costs a collective of a byte a step.
        """
        asked = distributed.any_process(self.requested)
        # Not `requested = asked`: the watcher may have heard a signal meanwhile.
        if asked:
            self.requested = True
        return asked

    def reached(self) -> None:
        """The step has ended: if it was waited for, from here on there is no deadline."""
        # A save that nobody asked for to leave must not excuse the steps after it.
        self._reached = self.requested

    def _watch(self):
        first = self._signal(None)
        if not first:
            return
        if not self._patient:
            self._leave(AGAIN, f"{first.name}: no step is running; {self.resumes()}")
        self.requested = True
        _say(f"{first.name}: waiting at most {self.grace_seconds:g} s for the running step (Ctrl-C: not even that)")
        deadline = time.monotonic() + self.grace_seconds
        while (number := self._signal(0.05)) != 0:
            if number == signal.SIGINT:
                self._leave(128 + signal.SIGINT, f"killed; {self.resumes()}")
            if time.monotonic() > deadline and not self._reached:
                self._leave(AGAIN, f"the step did not end in {self.grace_seconds:g} s; {self.resumes()}")

    def _signal(self, seconds):
        """The next of `SIGNALS`; 0 when the run has ended; None when nothing came for so many seconds."""
        while select.select([self._read], [], [], seconds)[0]:
            number = os.read(self._read, 1)[0]
            # Others that have a handler in Python come too.
            if number in (0, *SIGNALS):
                return signal.Signals(number) if number else 0
        return None

    def _leave(self, code, words):
        _say(words)
        # Not sys.exit: the main thread may be deep inside XLA. Worker processes end when their pipe closes.
        os._exit(code)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
