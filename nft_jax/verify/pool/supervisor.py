"""The thread that owns one grading process: starts it, sends it chunks, and replaces it when an item crashes it."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ..grade import STATUSES, Verdict
from .batch import Chunk, ChunkQueue, error_verdict
from .process import DeadlinePassed, GradingProcess, ProcessDied, StartError

_LOG = logging.getLogger(__name__)

_TRANSFER_SECONDS = 30.0  # for a chunk to cross the pipe; an idle worker takes milliseconds
# Another program (the kernel, short of memory) may have killed a process that died, so its item is tried again; an item
# that kills its process does so each time.
_ATTEMPTS = 3
_DEATH = "the grading process died of this item (a crash, an exit, or too much memory)"


class Supervisor(threading.Thread):
    """A daemon thread with one grading process, which it alone starts, uses and reaps.

    Attributes:
      first_start: set once the first process is ready or has failed.
      failure: why the first process could not start; None if it did.
      replacements: how many processes were killed, crashed or used up their memory, and so had to be replaced.
      waiting_since: the instant of `time.monotonic()` since which it waits for the verdict on one item; None if idle.
    """

    def __init__(
        self,
        queue: ChunkQueue,
        create_process: Callable[[], GradingProcess],
        item_seconds: float,
        start_seconds: float,
    ):
        super().__init__(name="nft_jax-verify", daemon=True)
        self.first_start = threading.Event()
        self.failure: StartError | None = None
        self.replacements = 0
        self.waiting_since: float | None = None
        self._queue = queue
        self._create_process = create_process
        self._item_seconds = item_seconds
        self._start_seconds = start_seconds
        self._process: GradingProcess | None = None
        self._stopping = False
        self._lock = threading.Lock()  # between this thread, which replaces the process, and callers of `stop`

    @property
    def pid(self) -> int | None:
        """Process id of the grading process; None if none runs."""
        with self._lock:
            return None if self._process is None else self._process.pid

    @property
    def isolated(self) -> bool:
        """Whether the grading process runs isolated."""
        with self._lock:
            return self._process is not None and self._process.isolated

    def stop(self) -> None:
        """Kills the process and prevents a new one; the thread ends by itself when its queue is closed."""
        with self._lock:
            self._stopping = True
            if self._process is not None:
                self._process.kill()

    def run(self) -> None:
        """Starts the first process and grades chunks until the queue is closed; ends at once if that start fails."""
        try:
            self._start_process()
        except StartError as error:
            self.failure = error
        except Exception as error:
            self.failure = StartError(f"{type(error).__name__}: {error}")
        self.first_start.set()
        while self.failure is None and (chunk := self._queue.take()) is not None:
            try:
                self._grade(chunk)
            except Exception as error:  # the thread must survive whatever fails with one chunk
                if not isinstance(error, StartError):
                    _LOG.exception("grading a chunk failed")
                chunk.settle(error_verdict(f"{type(error).__name__}: {error}"))
                self._discard_process()
        self._reap_process()

    def _grade(self, chunk: Chunk) -> None:
        """Settles the items of a chunk one by one, until one of them breaks the process; the rest goes back."""
        if not self._send(chunk):
            return
        batch = chunk.batch
        for position, index in enumerate(chunk.indices):
            verdict, is_last = self._receive_verdict(batch.deadline)
            if is_last:
                self._discard_process()
            if verdict is None:
                batch.deaths[index] += 1
                verdict = error_verdict(_DEATH) if batch.deaths[index] == _ATTEMPTS else None
            if verdict is not None:
                batch.settle([index], verdict)
            if is_last:
                again, rest = [index] if verdict is None else [], chunk.indices[position + 1 :]
                # In two halves, so that another hard item delays fewer.
                self._queue.put_back(batch, [again, rest[: len(rest) // 2], rest[len(rest) // 2 :]])
                # The next process starts before a chunk needs it; if that fails, the next chunk tries and reports it.
                with contextlib.suppress(StartError):
                    self._start_process()
                return

    def _send(self, chunk: Chunk) -> bool:
        """Sends a chunk and returns whether it arrived; no item is to blame for a failure, so a new process gets it."""
        items = [chunk.batch.items[index] for index in chunk.indices]
        for _ in range(_ATTEMPTS):
            if self._process is None:
                self._start_process()
            deadline = min(time.monotonic() + _TRANSFER_SECONDS, chunk.batch.deadline)
            try:
                self._process.send_items(items, deadline)
                return True
            except (ProcessDied, DeadlinePassed):
                self._discard_process()
            if chunk.batch.abandoned:
                return False
        chunk.settle(error_verdict("no grading process received the items"))
        return False

    def _receive_verdict(self, batch_deadline: float) -> tuple[Verdict | None, bool]:
        """Returns (verdict, whether the process must be replaced); the verdict is None if the process died."""
        start = self.waiting_since = time.monotonic()
        try:
            reply = self._process.receive(min(start + self._item_seconds, batch_deadline))
            return _read_reply(reply)
        except DeadlinePassed:
            seconds = time.monotonic() - start
            return Verdict("timeout", None, seconds, f"no verdict after {seconds:.3g} s"), True
        except ProcessDied:
            return None, True
        finally:
            self.waiting_since = None

    def _start_process(self) -> None:
        """Starts a process and waits until it is ready; no item's deadline runs meanwhile.

        Raises:
          StartError: if the pool is closed, or the process cannot start.
        """
        for _ in range(_ATTEMPTS):
            with self._lock:
                if self._stopping:
                    raise StartError("the pool is closed")
                self._process = self._create_process()
            try:
                self._process.wait_until_ready(time.monotonic() + self._start_seconds)
                return
            except StartError:
                self._reap_process()
                raise
            except ProcessDied:
                self._reap_process()
        raise StartError("the grading process ended while it loaded its grader")

    def _discard_process(self) -> None:
        """Ends a process that can no longer be used, and counts that it must be replaced."""
        self.replacements += self._process is not None
        self._reap_process()

    def _reap_process(self) -> None:
        with self._lock:
            process, self._process = self._process, None
            if process is not None:
                process.reap()


def _read_reply(reply: Any) -> tuple[Verdict, bool]:
    """Returns (verdict, whether the worker ends now) of a worker's reply.

    Raises:
      ProcessDied: if it is no reply.
    """
    try:
        status, extracted, seconds, reason, reward, is_last = reply
    except (TypeError, ValueError) as error:
        raise ProcessDied("it sent a frame that is no reply") from error
    if status not in STATUSES:
        raise ProcessDied("it sent an unknown status")
    return Verdict(status, extracted, float(seconds), reason, reward), bool(is_last)
