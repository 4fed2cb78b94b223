"""Grade many answers in isolated, killable processes: an answer that hangs or crashes a grader costs only itself."""

import atexit
import logging
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from functools import partial

from ..grade import Verdict, resolve_grader
from .batch import Batch, ChunkQueue, Item, error_verdict
from .isolation import MODES
from .process import GradingProcess, StartError
from .supervisor import Supervisor

_LOG = logging.getLogger(__name__)

_CLOSED = error_verdict("the pool is closed")


class Pool:
    """Long-lived grading processes; `grade` may be called from any number of threads at once.

    Arguments
        grader         a name of `grade.GRADERS`, or "module:function" of your own, imported by the workers only
        workers        number of processes
        item_seconds   time a grader gets for one item; then its process is killed and the item is a "timeout"
        memory_mib     address space of a process (RLIMIT_AS); one that has used up half of it is replaced
        isolation      "auto", "required" or "off": whether the kernel keeps processes from writing files, opening
                       sockets and starting processes (`isolation.py`); "auto" means where it can, but for a grader of
                       your own, which may need to
        paths          folders put on the workers' `sys.path`; default: this process's, for a grader of your own
        start_seconds  time a process gets to start and to import its grader

    Raises ValueError for an unknown grader or a size below its minimum, StartError (a RuntimeError) if the workers
    cannot start or cannot load the grader. Later failures become verdicts. Use it as a context manager, or `close` it.
    """

    def __init__(
        self,
        grader: str = "boxed_exact",
        workers: int = 2,
        item_seconds: float = 5.0,
        memory_mib: int = 2048,
        *,
        isolation: str = "auto",
        paths: Sequence[str] | None = None,
        start_seconds: float = 120.0,
    ):
        if workers < 1 or not item_seconds > 0 or memory_mib < 64:
            raise ValueError(f"{workers=}, {item_seconds=}, {memory_mib=}: need at least 1, more than 0, at least 64")
        if isolation not in MODES:
            raise ValueError(f"{isolation=}: use one of {', '.join(MODES)}")
        own = ":" in grader
        if not own:
            resolve_grader(grader)
        if paths is None:
            paths = [os.path.abspath(path) for path in sys.path] if own else []
        if own and isolation == "auto":
            isolation = "off"
        self.grader = grader
        self._queue = ChunkQueue()
        self._batches: weakref.WeakSet[Batch] = weakref.WeakSet()
        self._lock = threading.Lock()  # guards the batches in flight and the two flags
        self._closed = False
        self._error_logged = False
        make_child = partial(GradingProcess, grader, tuple(paths), memory_mib, isolation)
        self._owners = [Supervisor(self._queue, make_child, item_seconds, start_seconds) for _ in range(workers)]
        atexit.register(self.close)
        self._start()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [pid for owner in self._owners if (pid := owner.pid) is not None]

    @property
    def isolated(self) -> bool:
        """Whether the kernel keeps the workers from writing files, opening sockets and starting processes."""
        return all(owner.isolated for owner in self._owners)

    @property
    def respawns(self) -> int:
        """How many processes were killed, crashed or had used up their memory, and so had to be replaced."""
        return sum(owner.respawns for owner in self._owners)

    @property
    def activity(self) -> str:
        """What the pool is doing now, in words, for somebody who wonders why a step doesn't end."""
        now = time.monotonic()
        with self._lock:
            missing = [batch.missing for batch in self._batches]
        since = [(owner.pid, owner.grades_since) for owner in self._owners]
        workers = ", ".join(f"{pid} {'idle' if at is None else f'on one for {now - at:.1f} s'}" for pid, at in since)
        return (
            f"{self.grader}: {sum(missing)} answers of {sum(map(bool, missing))} batches wait for a verdict, "
            f"{self.respawns} processes were replaced so far; processes {workers}"
        )

    def begin(self, total_seconds: float | None = None) -> Batch:
        """A batch that takes answers as they are ready, and grades them meanwhile: `add` them, then `collect`.

        After `total_seconds` (None: no limit) nothing of it is graded any more, collected or not.
        """
        batch = Batch(self._queue, len(self._owners), _instant(total_seconds))
        with self._lock:
            self._batches.add(batch)
            closed = self._closed
        if closed:
            batch.close(_CLOSED)
        return batch

    def grade(self, items: Sequence[Item], total_seconds: float | None = None) -> list[Verdict]:
        """Verdicts of (response, answer) pairs, in their order; never raises; statuses do not depend on `workers`.

        After `total_seconds` (None: no limit) the missing ones are "timeout". On a closed pool all are "error".
        """
        batch = self.begin(total_seconds)
        batch.add(items)
        verdicts = batch.collect()
        self.log_first_error(verdicts)
        return verdicts

    def log_first_error(self, verdicts: Sequence[Verdict]) -> None:
        """Say once why a grader fails: a run in which everything is an "error" otherwise only shows a reward of 0."""
        first = next((verdict for verdict in verdicts if verdict.status == "error"), None)
        with self._lock:
            if first is None or self._error_logged or self._closed:
                return
            self._error_logged = True
        _LOG.warning("grader %r failed on an answer (said once): %s", self.grader, first.reason)

    def close(self) -> None:
        """Kill the workers and end the threads; callers that still wait get "error". May be called again."""
        self._queue.close()
        # After the queue: a batch that came in before it closed is in this list, and one that comes later is refused.
        with self._lock:
            self._closed = True
            batches = list(self._batches)
        for batch in batches:
            batch.close(_CLOSED)
        for owner in self._owners:
            owner.stop()
        for owner in self._owners:
            if owner.ident is not None and owner is not threading.current_thread():
                owner.join(timeout=10.0)
        atexit.unregister(self.close)

    def _start(self) -> None:
        """Start all processes at once and wait for them; on failure nothing is left running. Raises StartError."""
        for owner in self._owners:
            owner.start()
        for owner in self._owners:
            owner.first_start.wait()
        failure = next((owner.failure for owner in self._owners if owner.failure is not None), None)
        if failure is not None:
            self.close()
            raise StartError(
                f"grader {self.grader!r} cannot run: {failure}. Its module must be importable by {sys.executable} "
                "from sys.path or from `paths`, within the memory limit"
            ) from failure


def _instant(seconds: float | None) -> float:
    return math.inf if seconds is None else time.monotonic() + seconds
