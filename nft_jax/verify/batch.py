"""The work of a pool: the batch of one `grade` call, the chunks it is cut into, and the queue that owners take from."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .grade import Verdict

Item = tuple[str, str]  # response, reference answer

CHUNK_ITEMS = 64  # items per frame: enough to hide the round trip, few enough to share hard ones between workers
CHUNK_CHARACTERS = 1 << 22


class Batch:
    """The items of one call and the verdicts so far; shared by the caller and the owner threads.

    `deadline` is an instant of `time.monotonic()`; `finished` is set once no verdict can change any more.
    """

    def __init__(self, items: Sequence[Item], deadline: float):
        self.items = items
        self.deadline = deadline
        self.finished = threading.Event()
        self._verdicts: list[Verdict | None] = [None] * len(items)
        self._missing = len(items)
        self._lock = threading.Lock()

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.finished.is_set() or time.monotonic() >= self.deadline

    def settle(self, indices: Sequence[int], verdict: Verdict) -> None:
        """Give each of `indices` that has no verdict yet this one; nothing happens once the batch is finished."""
        with self._lock:
            if self.finished.is_set():
                return
            for index in indices:
                if self._verdicts[index] is None:
                    self._verdicts[index] = verdict
                    self._missing -= 1
            if not self._missing:
                self.finished.set()

    def close(self, verdict: Verdict) -> list[Verdict]:
        """Finish: all verdicts in the order of the items, `verdict` where one is missing."""
        with self._lock:
            self.finished.set()
            self._verdicts = [verdict if known is None else known for known in self._verdicts]
            return self._verdicts


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

    def put_back(self, batch: Batch, indices: Sequence[int]) -> None:
        """Put what a replaced worker left before all else, in two halves, so that another hard item delays fewer."""
        middle = len(indices) // 2
        halves = [Chunk(batch, half) for half in (indices[:middle], indices[middle:]) if half]
        with self._changed:
            self._chunks.extendleft(reversed(halves))
            self._changed.notify(len(halves))

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
