"""The work of a pool: batches of items that are graded together, the chunks they are cut into, and their queue."""

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..grade import Verdict

Item = tuple[str, str]  # response, reference answer

CHUNK_ITEMS = 64  # items per frame: enough to hide the round trip, few enough to share hard ones between workers
CHUNK_CHARACTERS = 1 << 22


def error_verdict(reason: str) -> Verdict:
    """The verdict of an item that could not be graded."""
    return Verdict("error", None, 0.0, reason)


class Batch:
    """Items that are graded while others are still to come; made by `Pool.begin`.

    `add` and `collect` may be called from any number of threads; `deadline` is an instant of `time.monotonic()`.
    `deaths` counts, by number of the item, the processes that ended over it.
    """

    def __init__(self, queue: "ChunkQueue", workers: int, deadline: float):
        self.items: list[Item] = []
        self.deadline = deadline
        self.deaths: Counter[int] = Counter()
        self._began = time.monotonic()
        self._queue = queue
        self._workers = workers
        self._verdicts: list[Verdict | None] = []
        self._missing = 0
        self._closing: Verdict | None = None  # what an item without a verdict gets, once the batch is closed
        self._changed = threading.Condition()

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._closing is not None or time.monotonic() >= self.deadline

    @property
    def missing(self) -> int:
        """How many items have no verdict yet."""
        return 0 if self.abandoned else self._missing

    def add(self, items: Sequence[Item]) -> range:
        """Take (response, answer) pairs on, and begin to grade them; their numbers, which count from 0. Never raises.

        What is no pair of str is an "error"; so is everything on a closed pool.
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
            strange = sorted(set(numbers) - set(text))
            self.settle(strange, error_verdict("an item must be a pair of str: (response, answer)"))
        try:
            self._queue.put(list(cut(self, text, self._workers)))
        except RuntimeError as error:
            self.settle(text, error_verdict(str(error)))
        return numbers

    def collect(self, total_seconds: float | None = None) -> list[Verdict]:
        """Wait for the verdicts of all items so far, in the order of their numbers, and take no more. Never raises.

        After `total_seconds` from now (None: no limit), or at the deadline, the missing ones are "timeout".
        """
        wait = min(math.inf if total_seconds is None else total_seconds, max(0.0, self.deadline - time.monotonic()))
        try:
            with self._changed:
                self._changed.wait_for(self._is_done, None if math.isinf(wait) else wait)
        finally:  # also when the caller is interrupted: its work must not occupy the workers
            given = time.monotonic() - self._began
            verdicts = self.close(Verdict("timeout", None, given, "the total deadline passed"))
        return verdicts

    def settle(self, numbers: Sequence[int], verdict: Verdict) -> None:
        """Give each of these items that has no verdict yet this one; nothing happens once the batch is closed."""
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
        """Finish, with this verdict where one is missing; all verdicts so far."""
        with self._changed:
            if self._closing is None:
                self._closing = verdict
                self._verdicts = [verdict if known is None else known for known in self._verdicts]
                self._changed.notify_all()
            return list(self._verdicts)

    def _is_done(self) -> bool:
        return not self._missing or self._closing is not None


class Chunk(NamedTuple):
    """Items of one batch that travel to a worker together."""

    batch: Batch
    indices: Sequence[int]

    def settle(self, verdict: Verdict) -> None:
        """Give the same verdict to each of its items that has none."""
        self.batch.settle(self.indices, verdict)


def cut(batch: Batch, indices: Sequence[int], workers: int) -> Iterator[Chunk]:
    """Chunks of at most `CHUNK_ITEMS` items and about `CHUNK_CHARACTERS`; small batches give each worker several."""
    most = max(1, min(CHUNK_ITEMS, len(indices) // (4 * workers)))
    members: list[int] = []
    characters = 0
    for index in indices:
        members.append(index)
        characters += len(batch.items[index][0])
        if len(members) == most or characters >= CHUNK_CHARACTERS:
            yield Chunk(batch, members)
            members, characters = [], 0
    if members:
        yield Chunk(batch, members)


class ChunkQueue:
    """First in, first out, except for chunks that come back because their worker had to be replaced."""

    def __init__(self):
        self._chunks: deque[Chunk] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, chunks: Sequence[Chunk]) -> None:
        """Append chunks. Raises RuntimeError on a closed queue, where nobody would ever take them."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._chunks.extend(chunks)
            self._changed.notify(len(chunks))

    def put_back(self, batch: Batch, parts: Sequence[Sequence[int]]) -> None:
        """Put what a replaced worker left before all else, the first part first."""
        chunks = [Chunk(batch, part) for part in parts if part]
        with self._changed:
            self._chunks.extendleft(reversed(chunks))
            self._changed.notify(len(chunks))

    def take(self) -> Chunk | None:
        """Wait for a chunk whose batch somebody still waits for; None once the queue is closed."""
        with self._changed:
            while not self._closed:
                chunk = self._chunks.popleft() if self._chunks else None
                if chunk is None:
                    self._changed.wait()
                elif not chunk.batch.abandoned:
                    return chunk
        return None

    def close(self) -> None:
        """Wake all takers with None; chunks that are left are dropped."""
        with self._changed:
            self._closed = True
            self._chunks.clear()
            self._changed.notify_all()


def _is_text_pair(item: Item) -> bool:
    return isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(part, str) for part in item)
