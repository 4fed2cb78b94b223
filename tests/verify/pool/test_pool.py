"""`Pool`: correct verdicts whatever an item does to its grader, and nothing left behind."""

import logging
import os
import re
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from helpers.hostile_pool import FOLDER, GRADER, easy_items, hostile_pool, statuses
from nft_jax.verify import Pool
from nft_jax.verify.pool import pool as pool_module


@pytest.fixture(scope="module")
def pool():
    with hostile_pool() as pool:
        yield pool


def test_grade_returns_boxed_exact_verdicts_in_order():
    items = [(rf"so \boxed{{{i % 5}}}", "3") for i in range(1000)] + [("3", "3")]
    with Pool() as pool:
        verdicts = pool.grade(items)
        assert statuses(verdicts) == ["correct" if i % 5 == 3 else "incorrect" for i in range(1000)] + ["unparsed"]
        assert [verdict.extracted for verdict in verdicts[:6]] == ["0", "1", "2", "3", "4", "0"]
        assert pool.grade([]) == []
        assert pool.replacements == 0


DEEDS = {
    "hang": "timeout",
    "sleep": "timeout",
    "crash": "error",
    "segfault": "error",
    "spawn": ("error", "timeout"),  # what it started keeps the pipe open, so only the deadline ends it
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
def test_grade_loses_only_the_hostile_item(pool, deed):
    items, expected = easy_items(300)
    items[100:100], expected[100:100] = [(deed, "")], ["?"]
    verdicts = pool.grade(items)
    assert verdicts[100].status in DEEDS[deed]
    assert bool(verdicts[100].reason) == (verdicts[100].status in ("error", "timeout"))
    assert statuses(verdicts[:100] + verdicts[101:]) == expected[:100] + expected[101:]
    # The pool is as good as before.
    items, expected = easy_items(200, start=1000)
    assert statuses(pool.grade(items)) == expected


def test_replacements_count_only_the_broken_worker():
    with hostile_pool(workers=2) as pool:
        before = set(pool.pids)
        pool.grade([("crash", "")])
        assert pool.replacements == 3  # an item is given up when three processes died of it
        assert len(before & set(pool.pids)) <= 1
        assert statuses(pool.grade([("slow", "")] * 4)) == ["correct"] * 4  # slow enough to need both
        assert len(set(pool.pids)) == 2


def test_grade_gives_the_same_statuses_with_any_number_of_workers():
    items, _ = easy_items(150)
    for position, deed in enumerate(("crash", "raise", "sleep", "keep", "print", "crash")):
        items.insert(20 * position, (deed, ""))
    seen = []
    for workers in (1, 2, 4):
        with hostile_pool(workers=workers) as pool:
            seen.append([verdict[:2] for verdict in pool.grade(items)])
    assert seen[0] == seen[1] == seen[2]
    assert Counter(status for status, _ in seen[0])["error"] == 4


def test_grade_from_eight_threads_at_once(pool):
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


def test_grade_gives_timeout_after_total_seconds():
    with hostile_pool(workers=1, item_seconds=3600.0) as pool:
        verdicts = pool.grade([("1", "1")] + [("sleep", "")] * 5 + [("2", "2")], total_seconds=2.0)
        assert statuses(verdicts) == ["correct"] + ["timeout"] * 6
        assert statuses(pool.grade([("2", "2")], total_seconds=600.0)) == ["correct"]
        assert statuses(pool.grade([("2", "2")], total_seconds=0.0)) == ["timeout"]


def test_grade_shares_stuck_items_between_workers():
    # Four are in one chunk: a free worker takes what a killed one left.
    with hostile_pool(workers=2, item_seconds=2.0) as pool:
        items, expected = easy_items(400)
        for position in (0, 10, 20, 30):
            items[position], expected[position] = ("sleep", ""), "timeout"
        assert statuses(pool.grade(items)) == expected
        assert pool.replacements == 4


def test_grade_blames_no_item_for_a_worker_that_died_between_calls(pool):
    for pid in pool.pids:
        os.kill(pid, 9)
    items, expected = easy_items(300)
    assert statuses(pool.grade(items)) == expected


def test_item_seconds_exclude_the_start_of_a_process():
    # The module sleeps at import for longer than an item may take.
    with Pool("helpers.slow_to_import:equal", 1, 2.0, paths=[FOLDER]) as pool:
        verdicts = pool.grade([("1", "1"), ("hang", ""), ("2", "2"), ("3", "4")])
    assert statuses(verdicts) == ["correct", "timeout", "correct", "incorrect"]


def test_grade_transfers_any_text():
    texts = ["\ud800", "\x00", "é🙂", "\r\n", "\u2028", "x" * 3_000_000]
    with hostile_pool() as pool:
        assert statuses(pool.grade([(text, text) for text in texts])) == ["correct"] * len(texts)
        assert statuses(pool.grade([(text, text + "!") for text in texts])) == ["incorrect"] * len(texts)


def test_grade_gives_error_to_items_that_are_no_text(pool):
    items = [("1", "1"), (b"1", "1"), ("1", 1), 7, ("1",), ("2", "2")]
    assert statuses(pool.grade(items)) == ["correct", "error", "error", "error", "error", "correct"]


def test_close_twice_reaps_all_and_later_items_are_errors():
    pool = hostile_pool()
    pids = pool.pids
    pool.close()
    pool.close()
    assert statuses(pool.grade([("1", "1")])) == ["error"]
    assert pool.pids == []
    # They are reaped, so that no zombie keeps a process id.
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_close_wakes_waiting_callers():
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
        ({"grader": "no_such_module:f"}, RuntimeError, "no_such_module:f.*there is no module 'no_such_module'"),
        ({"grader": "helpers.hostile_graders:nothing"}, RuntimeError, "unknown function 'nothing' of module"),
        ({"grader": "helpers.hostile_graders:not_a_function"}, RuntimeError, "int, not a function"),
        ({"workers": 0}, ValueError, "workers=0"),
        ({"item_seconds": 0.0}, ValueError, "item_seconds"),
    ],
)
def test_pool_refuses_at_once_what_cannot_work(arguments, error, words):
    threads = {*threading.enumerate()}
    with pytest.raises(error, match=words):
        hostile_pool(**arguments)
    assert {*threading.enumerate()} <= threads


def test_pool_raises_for_a_missing_interpreter(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RuntimeError, match="/nowhere/python"):
        Pool()


def test_grade_gives_errors_while_no_process_can_start_and_recovers(monkeypatch):
    with hostile_pool(workers=1) as pool:
        with monkeypatch.context() as broken:
            broken.setattr(sys, "executable", "/nowhere/python")
            verdicts = pool.grade([("1", "1"), ("crash", ""), ("2", "2")])
            assert statuses(verdicts) == ["correct", "error", "error"]
        assert statuses(pool.grade([("2", "2")])) == ["correct"]


def test_log_first_error_logs_one_reason(caplog):
    with hostile_pool() as pool, caplog.at_level(logging.WARNING, logger=pool_module.__name__):
        pool.grade([("raise", "")] * 5)
        pool.grade([("raise", "")])
    (record,) = caplog.records
    words = f"grader {GRADER!r} failed on an answer (logged once): ZeroDivisionError: division by zero, in "
    assert record.getMessage().startswith(words)
    assert re.search(r"hostile_graders.py:\d+$", record.getMessage())


def test_pool_gives_the_same_verdicts_when_workers_are_killed_at_random():
    items = [("brief", "") if i % 2 else (str(i % 7), str(i % 3)) for i in range(5000)]
    expected = ["correct" if i % 2 or i % 7 == i % 3 else "incorrect" for i in range(5000)]
    random = np.random.default_rng(0)
    with hostile_pool(item_seconds=60.0) as pool:
        batch, killed, spared = pool.begin(), 0, set()
        batch.add(items)
        while not batch._is_done():
            time.sleep(random.uniform(0.3, 0.6))
            one = pool._supervisors[random.integers(2)]
            # Its items are errors if it dies at its start three times in a row, as it would where a start takes long.
            if one.waiting_since is None and one in spared:
                continue
            (spared.add if one.waiting_since is None else spared.discard)(one)
            if pid := one.pid:
                os.kill(pid, 9)
                killed += 1
        assert statuses(batch.collect()) == expected
        assert killed > 5
        assert pool.replacements > 5


def test_replacements_of_a_worker_that_used_up_half_its_memory():
    with hostile_pool(workers=1, memory_mib=256) as pool:
        before = pool.pids
        assert statuses(pool.grade([("leak", "")] * 2)) == ["correct"] * 2
        assert pool.pids == before
        assert statuses(pool.grade([("leak", "")] * 20)) == ["correct"] * 20
        assert pool.pids != before
        assert 1 <= pool.replacements <= 4
