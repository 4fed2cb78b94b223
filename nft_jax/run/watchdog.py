"""Where a run hangs: said in time, by a thread of its own, and never acted upon."""

import contextlib
import faulthandler
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import jax


class Watchdog:
    """Says on stderr where this process is when work takes more than max(`seconds`, `factor` · median of its kind).

    It says so again after each further such span, and ends nothing: work may just be long, and only who reads can tell.
    Said are step, process, host, the stacks of all Python threads, and `doing()`: what the verifier is at. With several
    processes each has its own, for they hang in different places. Of the first of a kind, `seconds` stands for the
    median.
    """

    def __init__(self, factor: float, seconds: float, doing: Callable[[], str]):
        self.factor, self.seconds, self._doing = factor, seconds, doing
        self._taken: dict[str, list[float]] = defaultdict(list)
        self._work: tuple[str, int] | None = None
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

    @contextlib.contextmanager
    def over(self, kind: str, step: int) -> Iterator[None]:
        """Watches over one piece of work, of the kind "step" or any other, at this step."""
        with self._changed:
            self._work, self._began, self._said = (kind, step), time.monotonic(), 0
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._taken[kind].append(time.monotonic() - self._began)
                self._work = None

    def limit(self, kind: str) -> float:
        """Seconds after which work of this kind is said to hang."""
        return max(self.seconds, self.factor * (self._median(kind) or self.seconds))

    def _median(self, kind: str) -> float | None:
        return statistics.median(self._taken[kind]) if self._taken[kind] else None

    def _watch(self) -> None:
        while (overdue := self._overdue()) is not None:
            _say(self._report(*overdue))

    def _overdue(self) -> tuple[str, int, float] | None:
        """Waits for work that is overdue: its kind, step, and seconds taken; None: the run has ended."""
        with self._changed:
            while self._open:
                if self._work is None:
                    self._changed.wait()
                    continue
                taken, limit = time.monotonic() - self._began, self.limit(self._work[0])
                if taken >= (self._said + 1) * limit:
                    self._said = int(taken / limit)
                    return *self._work, taken
                self._changed.wait((self._said + 1) * limit - taken)
        return None

    def _report(self, kind: str, step: int, taken: float) -> str:
        median, limit = self._median(kind), self.limit(kind)
        usual = "it is the first" if median is None else f"others {median:.1f} s"
        return "\n".join(
            [
                f"{kind} {step} has taken {taken:.1f} s so far ({usual}); it goes on; to be said each {limit:.1f} s",
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
