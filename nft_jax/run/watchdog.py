"""A thread that reports where a run hangs, and changes nothing."""

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
from typing import NamedTuple

import jax


class Watchdog:
    """Prints on stderr where this process is when work takes longer than max(`seconds`, `factor` · its median).

    The median is over earlier work of the same kind; the first of a kind has none, and `seconds` takes its place. The
    report repeats after each further such time: step, process, host, the verifier's activity and the stacks of all
    Python threads. The watchdog ends nothing, since the work may only be slow. Each of several processes has its own
    watchdog, because they hang in different places.
    """

    def __init__(self, factor: float, seconds: float, describe_verifier: Callable[[], str]):
        self.factor, self.seconds, self._describe_verifier = factor, seconds, describe_verifier
        self._durations: dict[str, list[float]] = defaultdict(list)
        self._work: tuple[str, int] | None = None
        self._began = 0.0
        self._reports = 0
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
    def watch(self, kind: str, step: int) -> Iterator[None]:
        """Watches one piece of work of this kind ("step", "saving step", …) while the context is open."""
        with self._changed:
            self._work, self._began, self._reports = (kind, step), time.monotonic(), 0
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._durations[kind].append(time.monotonic() - self._began)
                self._work = None

    def limit(self, kind: str) -> float:
        """Returns the seconds after which work of this kind is reported."""
        return max(self.seconds, self.factor * (self._median(kind) or self.seconds))

    def _median(self, kind: str) -> float | None:
        return statistics.median(self._durations[kind]) if self._durations[kind] else None

    def _watch(self) -> None:
        while (overdue := self._overdue()) is not None:
            # In one write, since other processes may report at the same time.
            print(self._report(overdue), file=sys.stderr, flush=True)

    def _overdue(self) -> "_Overdue | None":
        """Waits for work that is overdue and returns it; None when the context is closed."""
        with self._changed:
            while self._open:
                if self._work is None:
                    self._changed.wait()
                    continue
                seconds, limit = time.monotonic() - self._began, self.limit(self._work[0])
                if seconds >= (self._reports + 1) * limit:
                    self._reports = int(seconds / limit)
                    return _Overdue(*self._work, seconds)
                self._changed.wait((self._reports + 1) * limit - seconds)
        return None

    def _report(self, overdue: "_Overdue") -> str:
        kind, median, limit = overdue.kind, self._median(overdue.kind), self.limit(overdue.kind)
        usual = "it is the first" if median is None else f"median {median:.1f} s"
        return "\n".join(
            [
                f"{kind} {overdue.step} has taken {overdue.seconds:.1f} s so far ({usual}) and goes on; the next "
                f"report follows in {limit:.1f} s",
                f"process {jax.process_index()} of {jax.process_count()}, pid {os.getpid()} on {socket.gethostname()}",
                f"verifier: {self._describe_verifier()}",
                _stacks(),
            ]
        )


class _Overdue(NamedTuple):
    kind: str
    step: int
    seconds: float


def _stacks() -> str:
    """Returns the stacks of all Python threads."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()
