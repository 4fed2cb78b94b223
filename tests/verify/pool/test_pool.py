"""`Pool`: right verdicts whatever an item does to its grader, and nothing left behind."""

import logging
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers.hostile_pool import FOLDER, GRADER, hostile_pool
from nft_jax.verify import Pool
from nft_jax.verify.pool import pool as pool_module
from nft_jax.verify.pool.batch import CHUNK_CHARACTERS, CHUNK_ITEMS, Batch, ChunkQueue, cut


@pytest.fixture(scope="module")
def pool():
    with hostile_pool() as pool:
        yield pool


def easy_items(count: int, start: int = 0) -> tuple[list[tuple[str, str]], list[str]]:
    """Items of which every third is right, and their statuses."""
    items = [(str(i), str(i if i % 3 == 0 else -i)) for i in range(start, start + count)]
    return items, ["correct" if i % 3 == 0 else "incorrect" for i in range(start, start + count)]


def statuses(verdicts) -> list[str]:
    return [verdict.status for verdict in verdicts]


def test_boxed_exact_in_order():
    items = [(rf"so \boxed{{{i % 5}}}", "3") for i in range(1000)] + [("3", "3")]
    with Pool() as pool:
        verdicts = pool.grade(items)
        assert statuses(verdicts) == ["correct" if i % 5 == 3 else "incorrect" for i in range(1000)] + ["unparsed"]
        assert [verdict.extracted for verdict in verdicts[:6]] == ["0", "1", "2", "3", "4", "0"]
        assert pool.grade([]) == []
        assert pool.respawns == 0


DEEDS = {
    "hang": "timeout",
    "sleep": "timeout",
    "crash": "error",
    "segfault": "error",
    "spawn": ("error", "timeout"),  # its child keeps the pipe open: only the deadline tells
    "close": "error",
    "exit": "error",
    "raise": "error",
    "interrupt": "error",
    "recurse": "error",
    "allocate": "error",
    "keep": "error",
    "print": "correct",
    "input": "correct",
    "thread": "correct",
    "number": "error",
    "status": "error",
    "long": "incorrect",
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_hostile_item_costs_only_itself(pool, deed):
    items, expected = easy_items(300)
    items[100:100], expected[100:100] = [(deed, "")], ["?"]
    verdicts = pool.grade(items)
    assert verdicts[100].status in DEEDS[deed]
    assert bool(verdicts[100].reason) == (verdicts[100].status in ("error", "timeout"))
    assert statuses(verdicts[:100] + verdicts[101:]) == expected[:100] + expected[101:]
    # And the pool is as good as before.
    items, expected = easy_items(200, start=1000)
    assert statuses(pool.grade(items)) == expected


def test_only_the_broken_worker_is_replaced():
    with hostile_pool(workers=2) as pool:
        before = set(pool.pids)
        pool.grade([("crash", "")])
        assert pool.respawns == 3  # an item is given up when three processes died of it
        assert len(before & set(pool.pids)) <= 1
        assert statuses(pool.grade([("slow", "")] * 4)) == ["correct"] * 4  # slow enough to need both
        assert len(set(pool.pids)) == 2


def test_statuses_do_not_depend_on_the_number_of_workers():
    items, _ = easy_items(150)
    for position, deed in enumerate(("crash", "raise", "sleep", "keep", "print", "crash")):
        items.insert(20 * position, (deed, ""))
    seen = []
    for workers in (1, 2, 4):
        with hostile_pool(workers=workers) as pool:
            seen.append([verdict[:2] for verdict in pool.grade(items)])
    assert seen[0] == seen[1] == seen[2]
    assert Counter(status for status, _ in seen[0])["error"] == 4


def test_eight_threads_at_once(pool):
    results = {}

    def call(number: int) -> None:
        items, expected = easy_items(400, start=1000 * number)
        if number % 2:
            items.append(("crash", ""))
            expected.append("error")
        results[number] = statuses(pool.grade(items)) == expected

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(8), True)


def test_total_deadline_gives_the_rest_a_timeout():
    with hostile_pool(workers=1, item_seconds=3600.0) as pool:
        verdicts = pool.grade([("1", "1")] + [("sleep", "")] * 5 + [("2", "2")], total_seconds=2.0)
        assert statuses(verdicts) == ["correct"] + ["timeout"] * 6
        assert statuses(pool.grade([("2", "2")], total_seconds=600.0)) == ["correct"]
        assert statuses(pool.grade([("2", "2")], total_seconds=0.0)) == ["timeout"]


def test_many_stuck_items_are_shared_between_workers():
    # Four in one chunk: whoever is free takes what a killed worker left.
    with hostile_pool(workers=2, item_seconds=2.0) as pool:
        items, expected = easy_items(400)
        for position in (0, 10, 20, 30):
            items[position], expected[position] = ("sleep", ""), "timeout"
        assert statuses(pool.grade(items)) == expected
        assert pool.respawns == 4


def test_a_worker_that_dies_between_calls_is_blamed_on_no_item(pool):
    for pid in pool.pids:
        os.kill(pid, 9)
    items, expected = easy_items(300)
    assert statuses(pool.grade(items)) == expected


def test_start_up_does_not_count_against_an_item():
    # The module sleeps at import for longer than an item may take.
    with Pool("helpers.slow_to_import:equal", 1, 2.0, paths=[FOLDER]) as pool:
        verdicts = pool.grade([("1", "1"), ("hang", ""), ("2", "2"), ("3", "4")])
    assert statuses(verdicts) == ["correct", "timeout", "correct", "incorrect"]


def test_strange_text_survives():
    odd = ["\ud800", "\x00", "é🙂", "\r\n", "\u2028", "x" * 3_000_000]
    with hostile_pool() as pool:
        assert statuses(pool.grade([(text, text) for text in odd])) == ["correct"] * len(odd)
        assert statuses(pool.grade([(text, text + "!") for text in odd])) == ["incorrect"] * len(odd)


def test_items_that_are_not_text_are_errors(pool):
    items = [("1", "1"), (b"1", "1"), ("1", 1), 7, ("1",), ("2", "2")]
    assert statuses(pool.grade(items)) == ["correct", "error", "error", "error", "error", "correct"]


def test_a_closed_pool_says_error_and_closing_twice_is_harmless():
    pool = hostile_pool()
    pids = pool.pids
    pool.close()
    pool.close()
    assert statuses(pool.grade([("1", "1")])) == ["error"]
    assert pool.pids == []
    # Reaped, not only dead: no zombie keeps the number.
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_closing_wakes_who_waits():
    pool = hostile_pool(item_seconds=3600.0)
    seen = []
    caller = threading.Thread(target=lambda: seen.extend(statuses(pool.grade([("sleep", "")] * 9))))
    caller.start()
    time.sleep(0.5)
    pool.close()
    caller.join(timeout=60)
    assert seen == ["error"] * 9


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"grader": "boxed_exakt"}, ValueError, "did you mean 'boxed_exact'"),
        ({"grader": "no_such_module:f"}, RuntimeError, "no_such_module:f.*ModuleNotFoundError.*`paths`"),
        ({"grader": "helpers.hostile_graders:nothing"}, RuntimeError, "AttributeError.*nothing"),
        ({"grader": "helpers.hostile_graders:not_a_function"}, RuntimeError, "int, not a function"),
        ({"workers": 0}, ValueError, "workers=0"),
        ({"item_seconds": 0.0}, ValueError, "item_seconds"),
    ],
)
def test_a_pool_that_cannot_work_says_so_at_once(arguments, error, words):
    threads = threading.active_count()
    with pytest.raises(error, match=words):
        hostile_pool(**arguments)
    assert threading.active_count() == threads


def test_a_missing_interpreter_is_said_at_once(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RuntimeError, match="/nowhere/python"):
        Pool()


def test_when_no_worker_can_be_replaced_items_are_errors_and_later_ones_recover(monkeypatch):
    with hostile_pool(workers=1) as pool:
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/nowhere/python")
            verdicts = pool.grade([("1", "1"), ("crash", ""), ("2", "2")])
            assert statuses(verdicts) == ["correct", "error", "error"]
        assert statuses(pool.grade([("2", "2")])) == ["correct"]


def test_the_reason_of_errors_is_logged_once(caplog):
    with hostile_pool() as pool, caplog.at_level(logging.WARNING, logger=pool_module.__name__):
        pool.grade([("raise", "")] * 5)
        pool.grade([("raise", "")])
    assert [record.getMessage() for record in caplog.records] == [
        f"grader {GRADER!r} failed on an answer (said once): ZeroDivisionError: division by zero"
    ]


def test_chunks_cover_each_item_once_and_stay_small():
    items = [("x" * (CHUNK_CHARACTERS // 2 + 1 if i % 10 == 0 and i < 100 else 1), "") for i in range(3000)]
    chunks = list(cut(batch_of(items), range(3000), workers=2))
    assert [index for chunk in chunks for index in chunk.indices] == list(range(3000))
    assert max(len(chunk.indices) for chunk in chunks) == CHUNK_ITEMS
    assert all(sum(len(items[i][0]) for i in chunk.indices) < 2 * CHUNK_CHARACTERS for chunk in chunks)
    assert [len(chunk.indices) for chunk in cut(batch_of(items[:5]), range(5), workers=4)] == [1] * 5


def batch_of(items) -> Batch:
    batch = Batch(ChunkQueue(), 1, float("inf"))
    batch.add(items)
    return batch


# Streaming.


def test_answers_are_graded_as_they_come(pool):
    batch = pool.begin()
    items, expected = easy_items(500)
    numbers = [number for start in range(0, 500, 7) for number in batch.add(items[start : start + 7])]
    assert numbers == list(range(500))
    assert statuses(batch.collect(600.0)) == expected
    # It takes no more; what comes late gets what was missing at the end.
    assert statuses([batch.collect()[number] for number in batch.add([("1", "1")])]) == ["timeout"]


def test_grading_goes_on_while_nobody_waits(pool):
    batch = pool.begin()
    batch.add([("slow", "")])
    end = time.monotonic() + 60
    while not batch._is_done() and time.monotonic() < end:
        time.sleep(0.01)
    assert statuses(batch.collect(0.0)) == ["correct"]


def test_many_threads_may_add_to_one_batch(pool):
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


def test_collecting_has_a_deadline_of_its_own():
    with hostile_pool(workers=1, item_seconds=3600.0) as pool:
        batch = pool.begin()
        batch.add([("1", "1")])
        while not batch._is_done():
            time.sleep(0.01)
        batch.add([("sleep", "")])
        assert statuses(batch.collect(0.5)) == ["correct", "timeout"]


def test_a_batch_of_a_closed_pool_says_error():
    pool = hostile_pool(workers=1)
    before = pool.begin()
    before.add([("sleep", "")])
    pool.close()
    after = pool.begin()
    for batch in (before, after):
        batch.add([("1", "1")])
        assert set(statuses(batch.collect())) == {"error"}


# Processes that are killed by somebody else, or that have used up their memory.


def test_verdicts_are_the_same_when_workers_are_killed_at_random():
    items = [("brief", "") if i % 2 else (str(i % 7), str(i % 3)) for i in range(5000)]
    expected = ["correct" if i % 2 or i % 7 == i % 3 else "incorrect" for i in range(5000)]
    random = np.random.default_rng(0)
    with hostile_pool(item_seconds=60.0) as pool:
        batch, killed = pool.begin(), 0
        batch.add(items)
        while not batch._is_done():
            time.sleep(random.uniform(0.3, 0.6))
            if pids := pool.pids:
                os.kill(random.choice(pids), 9)
                killed += 1
        assert statuses(batch.collect()) == expected
        assert killed > 5
        assert pool.respawns > 5


def test_a_worker_that_has_used_up_half_its_memory_is_replaced():
    with hostile_pool(workers=1, memory_mib=256) as pool:
        before = pool.pids
        assert statuses(pool.grade([("leak", "")] * 2)) == ["correct"] * 2
        assert pool.pids == before
        assert statuses(pool.grade([("leak", "")] * 20)) == ["correct"] * 20
        assert pool.pids != before
        assert 1 <= pool.respawns <= 4
