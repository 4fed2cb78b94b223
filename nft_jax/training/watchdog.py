"""Where a run hangs: said in time, by a thread of its own, and never acted upon."""

import faulthandler
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable

import jax


class Watchdog:
    """Says on stderr where this process is when a step takes more than max(`seconds`, `factor` · median of the others).

    It says so again after each further such span, and kills nothing: a step may just be long, and only who reads it can
    tell. Said are step, process, host, the stacks of all Python threads, and `doing()`: what the verifier is at. With
    several processes each has its own, for they hang in different places. While there is no step to compare with,
    `seconds` stands for the median.
    """

    def __init__(self, factor: float, seconds: float, doing: Callable[[], str]):
        self.factor, self.seconds, self._doing = factor, seconds, doing
        self._taken: list[float] = []
        self._step: int | None = None
        self._began = 0.0
        self._said = 0
        self._open = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    @property
    def limit(self) -> float:
        """Seconds after which a step is said to hang."""
        return max(self.seconds, self.factor * (statistics.median(self._taken) if self._taken else self.seconds))

    def began(self, step: int) -> None:
        """A step has begun."""
        with self._changed:
            self._step, self._began, self._said = step, time.monotonic(), 0
            self._changed.notify()

    def ended(self) -> None:
        """It has ended."""
        with self._changed:
            self._taken.append(time.monotonic() - self._began)
            self._step = None

    def _watch(self) -> None:
        while (step := self._overdue()) is not None:
            _say(self._report(*step))

    def _overdue(self) -> tuple[int, float, float] | None:
        """Waits for a step that is overdue: its number, seconds taken, its limit; None: the run has ended."""
        with self._changed:
            while self._open:
                if self._step is None:
                    self._changed.wait()
                    continue
                taken, limit = time.monotonic() - self._began, self.limit
                if taken >= (self._said + 1) * limit:
                    self._said = int(taken / limit)
                    return self._step, taken, limit
                self._changed.wait((self._said + 1) * limit - taken)
        return None

    def _report(self, step: int, taken: float, limit: float) -> str:
        usual = f"others {statistics.median(self._taken):.1f} s" if self._taken else "it is the first"
        return "\n".join(
            [
                f"step {step} has taken {taken:.1f} s so far ({usual}); it goes on; to be said each {limit:.1f} s",
                f"process {jax.process_index()} of {jax.process_count()}, pid {os.getpid()} on {socket.gethostname()}",
                f"verifier: {self._doing()}",
                _stacks(),
            ]
        )


def _stacks() -> str:
    """The stacks of all Python threads."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


def _say(words: str) -> None:
    # In one piece, for other processes may say the same at the same time.
    print(words, file=sys.stderr, flush=True)
