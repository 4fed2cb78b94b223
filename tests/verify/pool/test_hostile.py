"""Hostile answers in a pool: none hangs it, harms it, runs code or is correct."""

import os
import time
from collections import Counter
from pathlib import Path

import pytest

from helpers.hostile_answers import CODE, MARKER, hostile_items
from nft_jax.verify import Pool, grade

SECONDS = 2.0


def grade_hostile_items(grader: str, count: int, workers: int = 2) -> tuple[Counter, dict]:
    """Returns the statuses of hostile items, each followed by an easy one that must be correct, and measurements."""
    hostile = list(hostile_items(count))
    easy = [(rf"\boxed{{{index}}}", str(index)) for index in range(count)]
    start = time.perf_counter()
    with Pool(grader, workers, SECONDS) as pool:
        verdicts = pool.grade([item for pair in zip(hostile, easy, strict=True) for item in pair], 3600.0)
        peak = max(_peak_mib(pid) for pid in pool.pids)
        assert [verdict.status for verdict in verdicts[1::2]] == ["correct"] * count
        assert pool.grade([(r"\boxed{5}", "5")])[0].status == "correct"
        measured = {"seconds": time.perf_counter() - start, "peak MiB": peak, "replacements": pool.replacements}
    slowest = sorted(zip(verdicts[::2], hostile, strict=True), key=lambda pair: -pair[0].seconds)[:3]
    measured["slowest"] = [(round(v.seconds, 2), v.status, response[:60]) for v, (response, _) in slowest]
    correct = [
        response for verdict, (response, _) in zip(verdicts[::2], hostile, strict=True) if verdict.status == "correct"
    ]
    assert correct == []
    return Counter(verdict.status for verdict in verdicts[::2]), measured


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("grader", ["math", "gsm8k", "boxed_exact"])
def test_grade_survives_hostile_answers(grader):
    statuses, measured = grade_hostile_items(grader, 300)
    assert statuses["error"] == 0, (statuses, measured)
    assert statuses["timeout"] <= 3, (statuses, measured)
    assert measured["peak MiB"] < 400


@pytest.mark.slow
def test_grade_survives_ten_thousand_hostile_answers():
    statuses, measured = grade_hostile_items("math", 10_000)
    print(dict(statuses), measured)
    assert statuses["error"] == 0
    assert statuses["timeout"] <= 10


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("form", [r"\boxed{{{}}}", "{}", "${}$", "The answer is {}.", r"\boxed{{1 + {}}}"])
def test_grade_runs_no_code_of_an_answer(code, form, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # What SymPy's parser would do with it, if it got there.
    monkeypatch.setattr("builtins.eval", _refuse)
    for response, answer in [(form.format(code), r"\sin x + 2"), ("1", form.format(code)), (form.format(code), code)]:
        verdict = grade(response, answer)
        assert verdict.status != "error", verdict.reason
    assert os.listdir(tmp_path) == []
    assert not Path(MARKER).exists()


def _refuse(*arguments):
    raise AssertionError(f"eval of {arguments[0]!r:.100}")


def test_parse_expr_would_run_the_code(tmp_path, monkeypatch):
    # The test above guards against a real danger.
    from sympy.parsing import parse_expr

    monkeypatch.chdir(tmp_path)
    parse_expr(f"open('{MARKER}', 'w').close()")
    assert Path(MARKER).exists()


def test_grade_uses_no_signals(monkeypatch):
    # Time-outs by signal fail in threads, where a reward is computed in many trainers.
    import signal

    monkeypatch.setattr(signal, "alarm", _refuse)
    monkeypatch.setattr(signal, "signal", _refuse)
    assert grade(r"\boxed{\frac{1}{2}}", r"\sum_{k=1}^{3} \frac{k}{12}").status == "correct"
