"""The work of a pool: batches of items that are graded together, the chunks that travel to workers, and their queue.

An item is a pair of text: a response and its reference answer.
"""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..grade import Verdict

Item = tuple[str, str]  # response, reference answer

CHUNK_ITEMS = 64  # a frame: enough to hide the round trip, few enough to share hard items between workers
CHUNK_CHARACTERS = 1 << 22


def error_verdict(reason: str) -> Verdict:
    """Returns the verdict of an item that could not be graded."""
    return Verdict("error", None, 0.0, reason)


class Batch:
    """Items that are graded while others are still to come; `Pool.begin` creates it.

    `add` and `collect` may be called from any number of threads.

    Attributes:
      items: all items so far; their numbers count from 0.
      deadline: the instant of `time.monotonic()` after which none of its items is graded.
      deaths: how many processes died of each item, by its number.
    """

    def __init__(self, queue: "ChunkQueue", workers: int, deadline: float):
        self.items: list[Item] = []
        self.deadline = deadline
        self.deaths: Counter[int] = Counter()
        self._start = time.monotonic()
        self._queue = queue
        self._workers = workers
        self._verdicts: list[Verdict | None] = []
        self._missing = 0
        self._closing: Verdict | None = None  # what an item without a verdict gets, once the batch is closed
        self._changed = threading.Condition()

    @property
    def abandoned(self) -> bool:
        """Whether it is closed or its deadline has passed."""
        return self._closing is not None or time.monotonic() >= self.deadline

    @property
    def missing(self) -> int:
        """How many items have no verdict yet."""
        return 0 if self.abandoned else self._missing

    def add(self, items: Sequence[Item]) -> range:
        """Begins to grade items, and returns their numbers. Never raises.

        An item that is no pair of str gets "error"; so does every item of a closed pool.
        """
        with self._changed:
            numbers = range(len(self.items), len(self.items) + len(items))
            self.items.extend(items)
            self._verdicts.extend([self._closing] * len(items))
            if self._closing is not None:
                return numbers
            self._missing += len(items)
        text = [number for number in numbers if _is_text_pair(self.items[number])]
        if len(text) < len(items):
            malformed = sorted(set(numbers) - set(text))
            self.settle(malformed, error_verdict("an item must be a pair of str: (response, answer)"))
        try:
            self._queue.put(list(split_into_chunks(self, text, self._workers)))
        except RuntimeError as error:
            self.settle(text, error_verdict(str(error)))
        return numbers

    def collect(self, total_seconds: float | None = None) -> list[Verdict]:
        """Waits for the verdicts of all items so far, and returns them in the order of their numbers. Never raises.

        After `total_seconds` from now (None: no limit), or at the deadline, the missing ones are "timeout". The batch
        takes no more items.
        """
        wait = min(math.inf if total_seconds is None else total_seconds, max(0.0, self.deadline - time.monotonic()))
        try:
            with self._changed:
                self._changed.wait_for(self._is_done, None if math.isinf(wait) else wait)
        finally:  # also when the caller is interrupted: its work must not occupy the workers
            seconds = time.monotonic() - self._start
            verdicts = self.close(Verdict("timeout", None, seconds, "the total deadline passed"))
        return verdicts

    def settle(self, numbers: Sequence[int], verdict: Verdict) -> None:
        """Gives this verdict to those of the items that have none; does nothing once the batch is closed."""
        with self._changed:
            if self._closing is not None:
                return
            for number in numbers:
                if self._verdicts[number] is None:
                    self._verdicts[number] = verdict
                    self._missing -= 1
            if not self._missing:
                self._changed.notify_all()

    def close(self, verdict: Verdict) -> list[Verdict]:
        """Gives this verdict where one is missing, and returns all verdicts; the batch takes no more items."""
        with self._changed:
            if self._closing is None:
                self._closing = verdict
                self._verdicts = [verdict if known is None else known for known in self._verdicts]
                self._changed.notify_all()
            return list(self._verdicts)

    def _is_done(self) -> bool:
        return not self._missing or self._closing is not None


class Chunk(NamedTuple):
    """Items of one batch that travel to a worker together; `indices` are their numbers."""

    batch: Batch
    indices: Sequence[int]

    def settle(self, verdict: Verdict) -> None:
        """Gives the same verdict to those of its items that have none."""
        self.batch.settle(self.indices, verdict)


def split_into_chunks(batch: Batch, indices: Sequence[int], workers: int) -> Iterator[Chunk]:
    """Yields chunks of at most `CHUNK_ITEMS` items and about `CHUNK_CHARACTERS`; each worker gets several."""
    size = max(1, min(CHUNK_ITEMS, len(indices) // (4 * workers)))
    members: list[int] = []
    characters = 0
    for index in indices:
        members.append(index)
        characters += len(batch.items[index][0])
        if len(members) == size or characters >= CHUNK_CHARACTERS:
            yield Chunk(batch, members)
            members, characters = [], 0
    if members:
        yield Chunk(batch, members)


class ChunkQueue:
    """Chunks in the order of arrival, except for those of a replaced worker, which go first."""

    def __init__(self):
        self._chunks: deque[Chunk] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, chunks: Sequence[Chunk]) -> None:
        """Appends chunks.

        Raises:
          RuntimeError: on a closed queue, from which no worker would take them.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._chunks.extend(chunks)
            self._changed.notify(len(chunks))

    def put_back(self, batch: Batch, parts: Sequence[Sequence[int]]) -> None:
        """Puts what a replaced worker left before all other chunks, the first part first."""
        chunks = [Chunk(batch, part) for part in parts if part]
        with self._changed:
            self._chunks.extendleft(reversed(chunks))
            self._changed.notify(len(chunks))

    def take(self) -> Chunk | None:
        """Waits for a chunk of a batch that is not abandoned, and returns it; None once the queue is closed."""
        with self._changed:
            while not self._closed:
                chunk = self._chunks.popleft() if self._chunks else None
                if chunk is None:
                    self._changed.wait()
                elif not chunk.batch.abandoned:
                    return chunk
        return None

    def close(self) -> None:
        """Drops the chunks that are left, and lets all calls of `take` return None."""
        with self._changed:
            self._closed = True
            self._chunks.clear()
            self._changed.notify_all()


def _is_text_pair(item: Item) -> bool:
    return isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(part, str) for part in item)
