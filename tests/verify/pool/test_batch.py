"""`Batch`: items that are graded as they come, and the chunks in which they travel."""

import threading
import time

import pytest

from helpers.hostile_pool import easy_items, hostile_pool, statuses
from nft_jax.verify.pool.batch import CHUNK_CHARACTERS, CHUNK_ITEMS, Batch, ChunkQueue, split_into_chunks


@pytest.fixture(scope="module")
def pool():
    with hostile_pool() as pool:
        yield pool


def test_split_into_chunks_covers_each_item_once():
    items = [("x" * (CHUNK_CHARACTERS // 2 + 1 if i % 10 == 0 and i < 100 else 1), "") for i in range(3000)]
    chunks = list(split_into_chunks(batch_of(items), range(3000), workers=2))
    assert [index for chunk in chunks for index in chunk.indices] == list(range(3000))
    assert max(len(chunk.indices) for chunk in chunks) == CHUNK_ITEMS
    assert all(sum(len(items[i][0]) for i in chunk.indices) < 2 * CHUNK_CHARACTERS for chunk in chunks)
    assert [len(chunk.indices) for chunk in split_into_chunks(batch_of(items[:5]), range(5), workers=4)] == [1] * 5


def batch_of(items) -> Batch:
    batch = Batch(ChunkQueue(), 1, float("inf"))
    batch.add(items)
    return batch


def test_batch_grades_items_as_they_come(pool):
    batch = pool.begin()
    items, expected = easy_items(500)
    numbers = [number for start in range(0, 500, 7) for number in batch.add(items[start : start + 7])]
    assert numbers == list(range(500))
    assert statuses(batch.collect(600.0)) == expected
    # It takes no more items; a late one gets what was missing at the end.
    assert statuses([batch.collect()[number] for number in batch.add([("1", "1")])]) == ["timeout"]


def test_batch_is_graded_while_nobody_waits(pool):
    batch = pool.begin()
    batch.add([("slow", "")])
    end = time.monotonic() + 60
    while not batch._is_done() and time.monotonic() < end:
        time.sleep(0.01)
    assert statuses(batch.collect(0.0)) == ["correct"]


def test_batch_add_from_many_threads(pool):
    batch, seen = pool.begin(), {}

    def add(start: int) -> None:
        items, expected = easy_items(100, start)
        seen.update(zip(batch.add(items), expected, strict=True))

    threads = [threading.Thread(target=add, args=(1000 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdicts = batch.collect()
    assert sorted(seen) == list(range(800))
    assert statuses(verdicts) == [seen[number] for number in range(800)]


def test_batch_collect_has_a_separate_deadline():
    with hostile_pool(workers=1, item_seconds=3600.0) as pool:
        batch = pool.begin()
        batch.add([("1", "1")])
        while not batch._is_done():
            time.sleep(0.01)
        batch.add([("sleep", "")])
        assert statuses(batch.collect(0.5)) == ["correct", "timeout"]


def test_batch_of_a_closed_pool_gives_errors():
    pool = hostile_pool(workers=1)
    before = pool.begin()
    before.add([("sleep", "")])
    pool.close()
    after = pool.begin()
    for batch in (before, after):
        batch.add([("1", "1")])
        assert set(statuses(batch.collect())) == {"error"}
