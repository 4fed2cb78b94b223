"""The thread that owns one grading process: starts it, feeds it chunks, and replaces it when an item breaks it."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ..grade import STATUSES, Verdict
from .batch import Chunk, ChunkQueue, error_verdict
from .process import Died, GradingProcess, Late, StartError

_LOG = logging.getLogger(__name__)

_TRANSFER_SECONDS = 30.0  # for a chunk to cross the pipe; an idle worker takes milliseconds
# A process that dies may have been killed by somebody else (the kernel, short of memory), so its item gets others; an
# item that kills its process does so each time.
_ATTEMPTS = 3
_DEATH = "the grading process died of this item (a crash, an exit, or too much memory)"


class Supervisor(threading.Thread):
    """A daemon thread with one child, which it alone starts, talks to and reaps.

    `first_start`  set once the first process is ready or has failed; `failure` is then the StartError, or None
    `respawns`     processes that were killed, crashed or had used up their memory, and so had to be replaced
    `grades_since` the instant of `time.monotonic()` since which it waits for the child's verdict on one item, or None
    """

    def __init__(
        self, queue: ChunkQueue, make_child: Callable[[], GradingProcess], item_seconds: float, start_seconds: float
    ):
        super().__init__(name="nft_jax-verify", daemon=True)
        self.first_start = threading.Event()
        self.failure: StartError | None = None
        self.respawns = 0
        self.grades_since: float | None = None
        self._queue = queue
        self._make_child = make_child
        self._item_seconds = item_seconds
        self._start_seconds = start_seconds
        self._child: GradingProcess | None = None
        self._stopping = False
        self._lock = threading.Lock()  # between this thread, which replaces the child, and whoever stops it

    @property
    def pid(self) -> int | None:
        """Process id of the child, if one runs."""
        with self._lock:
            return None if self._child is None else self._child.pid

    @property
    def isolated(self) -> bool:
        """Whether the child runs isolated."""
        with self._lock:
            return self._child is not None and self._child.isolated

    def stop(self) -> None:
        """Kill the child and let no other start; the thread ends by itself when its queue is closed."""
        with self._lock:
            self._stopping = True
            if self._child is not None:
                self._child.kill()

    def run(self) -> None:
        """Start the first child, then serve chunks until the queue is closed; after a failed first start, end."""
        try:
            self._spawn()
        except StartError as error:
            self.failure = error
        except Exception as error:
            self.failure = StartError(f"{type(error).__name__}: {error}")
        self.first_start.set()
        while self.failure is None and (chunk := self._queue.take()) is not None:
            try:
                self._serve(chunk)
            except Exception as error:  # the thread must outlive whatever went wrong with one chunk
                if not isinstance(error, StartError):
                    _LOG.exception("grading a chunk failed")
                chunk.settle(error_verdict(f"{type(error).__name__}: {error}"))
                self._discard()
        self._bury()

    def _serve(self, chunk: Chunk) -> None:
        """Settle the items of a chunk one by one; the first that breaks the child ends it and the rest goes back."""
        if not self._deliver(chunk):
            return
        batch = chunk.batch
        for position, index in enumerate(chunk.indices):
            verdict, leaving = self._await_verdict(batch.deadline)
            if leaving:
                self._discard()
            if verdict is None:
                batch.deaths[index] += 1
                verdict = error_verdict(_DEATH) if batch.deaths[index] == _ATTEMPTS else None
            if verdict is not None:
                batch.settle([index], verdict)
            if leaving:
                again, rest = [index] if verdict is None else [], chunk.indices[position + 1 :]
                # In two halves, so that another hard item delays fewer.
                self._queue.put_back(batch, [again, rest[: len(rest) // 2], rest[len(rest) // 2 :]])
                # Start the next one while nobody waits; if that fails, the next chunk tries again and says so.
                with contextlib.suppress(StartError):
                    self._spawn()
                return

    def _deliver(self, chunk: Chunk) -> bool:
        """Hand a chunk over; no item is to blame if that fails, so it is tried again with another child."""
        items = [chunk.batch.items[index] for index in chunk.indices]
        for _ in range(_ATTEMPTS):
            if self._child is None:
                self._spawn()
            deadline = min(time.monotonic() + _TRANSFER_SECONDS, chunk.batch.deadline)
            try:
                self._child.deliver(items, deadline)
                return True
            except (Died, Late):
                self._discard()
            if chunk.batch.abandoned:
                return False
        chunk.settle(error_verdict("no grading process took the items"))
        return False

    def _await_verdict(self, batch_deadline: float) -> tuple[Verdict | None, bool]:
        """The verdict of the item that the child works on (None: it died), and whether the child must be replaced."""
        start = self.grades_since = time.monotonic()
        try:
            reply = self._child.receive(min(start + self._item_seconds, batch_deadline))
            return _read_reply(reply)
        except Late:
            seconds = time.monotonic() - start
            return Verdict("timeout", None, seconds, f"no verdict after {seconds:.3g} s"), True
        except Died:
            return None, True
        finally:
            self.grades_since = None

    def _spawn(self) -> None:
        """Start a child and wait until it is ready; no item's deadline runs meanwhile. Raises StartError."""
        for _ in range(_ATTEMPTS):
            with self._lock:
                if self._stopping:
                    raise StartError("the pool is closed")
                self._child = self._make_child()
            try:
                self._child.shake_hands(time.monotonic() + self._start_seconds)
                return
            except StartError:
                self._bury()
                raise
            except Died:
                self._bury()
        raise StartError("the grading process ended while it loaded its grader")

    def _discard(self) -> None:
        """End a child that is of no more use; another one takes its place."""
        self.respawns += self._child is not None
        self._bury()

    def _bury(self) -> None:
        with self._lock:
            child, self._child = self._child, None
            if child is not None:
                child.bury()


def _read_reply(reply: Any) -> tuple[Verdict, bool]:
    """(verdict, leaving) of a worker's reply. Raises Died if it is none."""
    try:
        status, extracted, seconds, reason, leaving = reply
    except (TypeError, ValueError) as error:
        raise Died("not a reply") from error
    if status not in STATUSES:
        raise Died("not a status")
    return Verdict(status, extracted, float(seconds), reason), bool(leaving)
