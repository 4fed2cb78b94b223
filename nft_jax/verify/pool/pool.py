"""The pool of grading processes: an answer that hangs or crashes a grader loses only its own verdict."""

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
from .process import GraderError, GradingProcess, StartError
from .supervisor import Supervisor

_LOG = logging.getLogger(__name__)

_CLOSED = error_verdict("the pool is closed")


class Pool:
    """Long-lived grading processes, as a context manager; any number of threads may call `grade` at once."""

    def __init__(
        self,
        grader: str = "boxed_exact",
        workers: int = 2,
        item_seconds: float = 5.0,
        memory_mib: int = 2048,
        *,
        isolation: str = "auto",
        correct_from: float = 0.0,
        paths: Sequence[str] | None = None,
        start_seconds: float = 120.0,
    ):
        """Starts the processes and waits until they have loaded the grader. Later failures become verdicts.

        Args:
          grader: a name of `grade.GRADERS`, or a custom grader "module:function", which only the workers import.
          item_seconds: time for one item, s; then its process is killed and the item gets "timeout".
          memory_mib: address space of a process (RLIMIT_AS); one that has used up half of it is replaced.
          isolation: "auto", "required" or "off": whether the kernel keeps processes from writing files, opening
            sockets and starting processes (`isolation.py`). "auto" isolates the graders of `GRADERS` where it can, but
            no custom grader, which may need what isolation forbids.
          correct_from: above 0, the smallest reward of a correct answer, of a grader that returns rewards (`grade`).
          paths: folders for the workers' `sys.path`; by default those of this process for a custom grader, else none.
          start_seconds: time for a process to start and to import its grader, s.

        Raises:
          ValueError: for an unknown grader or isolation, or a size below its minimum.
          StartError: if the workers cannot start or cannot load the grader; it is a RuntimeError.
        """
        if workers < 1 or not item_seconds > 0 or memory_mib < 64:
            raise ValueError(
                f"{workers=}, {item_seconds=}, {memory_mib=}: use at least 1 worker, more than 0 s and at least 64 MiB"
            )
        if isolation not in MODES:
            raise ValueError(f"{isolation=}: use one of {', '.join(MODES)}")
        is_custom = ":" in grader
        if not is_custom:
            resolve_grader(grader)
        if paths is None:
            paths = [os.path.abspath(path) for path in sys.path] if is_custom else []
        if is_custom and isolation == "auto":
            isolation = "off"
        self.grader = grader
        self._queue = ChunkQueue()
        self._batches: weakref.WeakSet[Batch] = weakref.WeakSet()
        self._lock = threading.Lock()  # guards the batches in flight and the two flags
        self._closed = False
        self._error_logged = False
        create_process = partial(GradingProcess, grader, tuple(paths), memory_mib, isolation, correct_from)
        self._supervisors = [
            Supervisor(self._queue, create_process, item_seconds, start_seconds) for _ in range(workers)
        ]
        atexit.register(self.close)
        self._start()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [pid for supervisor in self._supervisors if (pid := supervisor.pid) is not None]

    @property
    def isolated(self) -> bool:
        """Whether the kernel keeps all workers from writing files, opening sockets and starting processes."""
        return all(supervisor.isolated for supervisor in self._supervisors)

    @property
    def replacements(self) -> int:
        """How many processes were killed, crashed or used up their memory, and so had to be replaced."""
        return sum(supervisor.replacements for supervisor in self._supervisors)

    @property
    def activity(self) -> str:
        """A sentence about what the pool does now, to find out why a step does not end."""
        now = time.monotonic()
        with self._lock:
            missing = [batch.missing for batch in self._batches]
        since = [(supervisor.pid, supervisor.waiting_since) for supervisor in self._supervisors]
        workers = ", ".join(f"{pid} {'idle' if at is None else f'on one for {now - at:.1f} s'}" for pid, at in since)
        return (
            f"{self.grader}: {sum(missing)} answers of {sum(map(bool, missing))} batches wait for a verdict, "
            f"{self.replacements} processes were replaced so far; processes {workers}"
        )

    def begin(self, total_seconds: float | None = None) -> Batch:
        """Returns a batch that takes items as they become ready and grades them meanwhile: `add` them, then `collect`.

        After `total_seconds` (None: no limit) nothing of it is graded anymore, collected or not.
        """
        batch = Batch(self._queue, len(self._supervisors), _deadline(total_seconds))
        with self._lock:
            self._batches.add(batch)
            closed = self._closed
        if closed:
            batch.close(_CLOSED)
        return batch

    def grade(self, items: Sequence[Item], total_seconds: float | None = None) -> list[Verdict]:
        """Returns the verdicts of items in their order; the statuses do not depend on `workers`. Never raises.

        An item is a pair (response, reference answer). After `total_seconds` (None: no limit) the missing verdicts are
        "timeout". On a closed pool all are "error".
        """
        batch = self.begin(total_seconds)
        batch.add(items)
        verdicts = batch.collect()
        self.log_first_error(verdicts)
        return verdicts

    def log_first_error(self, verdicts: Sequence[Verdict]) -> None:
        """Logs once why a grader fails; a run in which every verdict is "error" otherwise only shows a reward of 0."""
        first = next((verdict for verdict in verdicts if verdict.status == "error"), None)
        with self._lock:
            if first is None or self._error_logged or self._closed:
                return
            self._error_logged = True
        _LOG.warning("grader %r failed on an answer (logged once): %s", self.grader, first.reason)

    def close(self) -> None:
        """Kills the workers and ends the threads; callers that still wait get "error". It may be called again."""
        self._queue.close()
        # After the queue: this list has each batch that arrived before it closed, and later ones are refused.
        with self._lock:
            self._closed = True
            batches = list(self._batches)
        for batch in batches:
            batch.close(_CLOSED)
        for supervisor in self._supervisors:
            supervisor.stop()
        for supervisor in self._supervisors:
            if supervisor.ident is not None and supervisor is not threading.current_thread():
                supervisor.join(timeout=10.0)
        atexit.unregister(self.close)

    def _start(self) -> None:
        """Starts all processes at once and waits for them; after a failure none runs. Raises StartError."""
        for supervisor in self._supervisors:
            supervisor.start()
        for supervisor in self._supervisors:
            supervisor.first_start.wait()
        failure = next((supervisor.failure for supervisor in self._supervisors if supervisor.failure is not None), None)
        if failure is not None:
            self.close()
            if isinstance(failure, GraderError):
                raise failure
            raise StartError(
                f"grader {self.grader!r} cannot run: {failure}. Its module must load in {sys.executable} within the "
                "memory limit, and neither exit nor crash"
            ) from failure


def _deadline(seconds: float | None) -> float:
    """Returns the instant of `time.monotonic()` after `seconds`; None gives infinity."""
    return math.inf if seconds is None else time.monotonic() + seconds
