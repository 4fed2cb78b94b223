"""What a step says of itself: numbers from its record, its line, its groups in words, and the files of the run."""

import json
import math
import os

import jax
import numpy as np
import pytest

from helpers.experiments import STEP_METRICS, small
from nft_jax.config import resolved
from nft_jax.data.prompts import PromptTable
from nft_jax.run.metrics import format_step, share, step_metrics
from nft_jax.run.workdir import PACKAGES, Workdir, as_json, describe_groups, read_lines
from nft_jax.state import Record
from nft_jax.types import Totals
from nft_jax.update.groups import RolloutStatistics, empty_groups
from nft_jax.update.update import UpdateRecord, UpdateStatistics
from nft_jax.verify.grade import STATUSES


def array(*values):
    return np.array(values, np.float32)


def by_hand(taken=(1, 1, 0), nonfinite=(0, 0, 1)) -> Record:
    """Two rounds of 8 × 4 answers; of three updates with 20, 12 and 8 tokens the last was not taken."""
    scalars = {
        "groups": 16,
        "answers": 64,
        "tokens": 480,
        "truncated": 16,
        "kept": 10,
        "reward": 24,
        "longest": 14,
        "seconds": 0.75,
        "compared": 40,
        "differ": 3,
        "capacity": 640,
    }
    statistics = UpdateStatistics(
        objective=array(0.5, -0.25, 100),
        entropy=array(30, 18, 100),
        gap=array(0.002, 0.5, 100),
        gap_max=array(0.001, 0.25, 100),
        ratio=array(20, 14, 100),
        ratio_max=array(1.5, 3, 100),
        clamped=array(4, 4, 100),
        rate_clamped=array(0, 16, 100),
        log_ratio_clamped=array(2, 0, 100),
        kl=array(1, 2.2, 100),
    )
    return Record(
        statistics=RolloutStatistics(
            **{name: np.float32(value) for name, value in scalars.items()},
            verdicts=array(30, 26, 5, 2, 1),
            rates=array(6, 0, 3, 0, 0, 4, 0, 0, 2, 0, 1),
        ),
        rounds=np.int32(2),
        applied=UpdateRecord(array(*taken), array(*nonfinite), array(2, 1, 100), statistics),
        totals=Totals(answers=array(12, 8, 4), tokens=array(20, 12, 8), pairs=array(0, 0, 0)),
        trained=np.int32(8),
        from_carry=np.int32(1),
        wasted=np.int32(3),
        last=jax.device_get(empty_groups(8, 4, 16)),
    )


EXPECTED = {
    "reward": 24 / 64,
    "rate_histogram": [6, 0, 3, 0, 0, 4, 0, 0, 2, 0, 1],
    "groups_kept": 10 / 16,
    "groups_trained": 8,
    "groups_carried_in": 1,
    "groups_wasted": 3,
    "rounds": 2,
    "updates_taken": 2,
    "updates_nonfinite": 1,
    "loss": (0.5 - 0.25) / 2,
    "gradient_norm": (2 + 1) / 2,
    "entropy": (30 + 18) / 32,
    "kl": (1 + 2.2) / 32,
    "sampler_gap_mean": 0.002 / 20,
    "sampler_gap_max": 0.001,
    "ratio_mean": (20 + 14) / 32,
    "ratio_max": 3,
    "clamped_value": 8 / 32,
    "clamped_rate": 16 / 32,
    "clamped_log_ratio": 2 / 32,
    "answer_length": 480 / 64,
    "answer_length_max": 14,
    "truncated": 16 / 64,
    "verdicts": {"incorrect": 30, "correct": 26, "unparsed": 5, "timeout": 2, "error": 1},
    "answers": 64,
    "tokens": 480,
    "tokens_trained": 32,
    "grading_seconds": 0.75,
    "verifier_disagreement": 3 / 40,
    "slots_useful": 480 / 640,
}


def test_the_numbers_of_a_step_equal_those_by_hand():
    metrics = step_metrics(by_hand())
    assert metrics.keys() == EXPECTED.keys() == STEP_METRICS
    for name, expected in EXPECTED.items():
        assert metrics[name] == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected), name
    json.dumps(metrics, allow_nan=False)


def test_where_nothing_trained_means_are_none():
    record = by_hand(taken=(0, 0, 0), nonfinite=(0, 0, 0))
    empty = record._replace(
        totals=Totals(*[np.zeros(3, np.float32)] * 3),
        applied=record.applied._replace(
            gradient_norm=np.zeros(3, np.float32), statistics=UpdateStatistics(*[np.zeros(3, np.float32)] * 10)
        ),
    )
    metrics = step_metrics(empty)
    json.dumps(metrics, allow_nan=False)
    none = {name for name, value in metrics.items() if value is None}
    assert none == {
        "loss",
        "gradient_norm",
        "entropy",
        "kl",
        "sampler_gap_mean",
        "ratio_mean",
        "clamped_value",
        "clamped_rate",
        "clamped_log_ratio",
    }
    assert metrics["reward"] == 24 / 64
    assert "entropy –" in format_step(1, 10, metrics | {"tokens_per_second": 1.0, "seconds": 1.0})


def not_finite(record: Record, update: int) -> Record:
    """The record where one update's forward pass overflowed."""

    def spoil(values):
        return np.where(np.arange(3) == update, np.float32(np.nan), values)

    applied = record.applied
    statistics = jax.tree.map(spoil, applied.statistics)
    return record._replace(applied=applied._replace(gradient_norm=spoil(applied.gradient_norm), statistics=statistics))


def test_an_update_that_is_not_finite_is_not_taken_and_spoils_no_mean():
    metrics = step_metrics(not_finite(by_hand(), update=2))
    assert metrics == step_metrics(by_hand())


def test_where_the_first_update_is_not_finite_the_numbers_are_still_json():
    metrics = step_metrics(not_finite(by_hand(taken=(0, 1, 1), nonfinite=(1, 0, 0)), update=0))
    json.dumps(metrics, allow_nan=False)
    assert metrics["updates_nonfinite"] == 1


@pytest.mark.parametrize(("part", "whole"), [(0, 0), (1, 0), (math.nan, 2), (math.inf, 2)])
def test_a_share_of_nothing_is_none(part, whole):
    assert share(part, whole) is None
    assert share(1, 2) == 0.5


@pytest.mark.parametrize(("step", "bars"), [(0, 0), (1, 2), (5, 10), (10, 20)])
def test_the_line_has_its_bar_and_its_fields_in_their_places(step, bars):
    metrics = step_metrics(by_hand()) | {"tokens_per_second": 12345.6, "seconds": 1.26}
    text = format_step(step, 10, metrics)
    assert text.startswith(f"{step:>2}/10 {'━' * bars}{'╌' * (20 - bars)} ")
    assert text.split("╌")[-1].split("━")[-1].split() == [
        *("reward", "0.375", "kept", "0.62", "entropy", "1.500", "ratio≤3.00", "gap≤1e-03", "grad", "1.50"),
        *("length", "7.5", "cut", "0.250", "12,346", "tok/s", "1.3", "s"),
    ]


class Letters:
    """A tokenizer in which id i is the i-th letter."""

    def decode_batch(self, rows):
        return ["".join("abcdefgh"[i] for i in row) for row in rows]


def two_groups():
    groups = jax.device_get(empty_groups(2, 2, 3))
    return groups._replace(
        prompt_Q=np.array([1, 0], np.int32),
        token_QKT=np.array([[[1, 2, 0], [3, 0, 0]], [[4, 5, 6], [7, 7, 0]]], np.int32),
        length_QK=np.array([[2, 1], [3, 2]], np.int32),
        truncated_QK=np.array([[False, False], [True, False]]),
        verdict_QK=np.array([[1, 2], [0, 3]], np.int32),
        rate_Q=array(1 / 3, 0),
    )


TABLE = PromptTable(np.zeros((2, 4), np.int32), np.ones(2, np.int32), ["4", "5"], ["2+2=", "2+3="], [], 0)


def test_groups_in_words():
    assert list(describe_groups(two_groups(), TABLE, Letters())) == [
        {
            "prompt": "2+3=",
            "reference": "5",
            "rate": 0.3333,
            "answers": ["bc", "d"],
            "verdicts": ["correct", "unparsed"],
            "truncated": [False, False],
            "lengths": [2, 1],
        },
        {
            "prompt": "2+2=",
            "reference": "4",
            "rate": 0.0,
            "answers": ["efg", "hh"],
            "verdicts": ["incorrect", "timeout"],
            "truncated": [True, False],
            "lengths": [3, 2],
        },
    ]


# Files.


def rows(path):
    return [json.loads(row) for row in path.read_text().splitlines()]


def test_the_folder_says_what_was_run_with_what(tmp_path):
    config = small(seed=7)
    Workdir(tmp_path / "deep" / "run").begin(config, "xla")
    folder = tmp_path / "deep" / "run"
    assert json.loads((folder / "config.json").read_text()) == resolved(config)
    run = json.loads((folder / "run.json").read_text())
    assert run["seed"] == 7
    assert run["commit"]
    assert run["versions"].keys() == set(PACKAGES)
    assert run["versions"]["jax"] == jax.__version__
    assert "--xla_force_host_platform_device_count=8" in run["xla_flags"]
    assert len(run["devices"]) == jax.device_count()
    assert run["attention"] == "xla"
    assert run["command"]


def test_a_folder_that_can_not_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--workdir=.*file/run can't be written"):
        Workdir(tmp_path / "file" / "run")


def test_lines_after_a_step_are_forgotten(tmp_path):
    folder = Workdir(tmp_path)
    folder.drop_after(3)  # there is nothing yet
    for step in (1, 2, 3, 4, 5):
        folder.metrics({"step": step, "reward": None})
        folder.metrics({"step": step}, file="evaluation.jsonl")
    folder.drop_after(3)
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert len(rows(tmp_path / "evaluation.jsonl")) == 5
    folder.metrics({"step": 4})
    assert [row["step"] for row in rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    folder.drop_after(0, file="evaluation.jsonl")
    assert rows(tmp_path / "evaluation.jsonl") == []
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["evaluation.jsonl", "metrics.jsonl"]


WHOLE = b'{"step": 1, "x": 0.1}\n{"step": 2, "x": null}\n'


@pytest.mark.parametrize(
    "torn",
    [b'{"step": 3, "x": 0.', b'{"step": 3', b"{", b'{"step": 3, "x": "caf\xc3', b"\0" * 40, b'{"st\n', b"12", b"\n\n"],
)
def test_a_line_half_written_at_a_kill_is_dropped(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE + torn)
    assert read_lines(path) == [{"step": 1, "x": 0.1}, {"step": 2, "x": None}]
    folder = Workdir(tmp_path)
    folder.drop_after(9)
    assert path.read_bytes() == WHOLE
    folder.metrics({"step": 3})
    assert [row["step"] for row in read_lines(path)] == [1, 2, 3]


def test_a_line_that_lacks_only_its_end_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE.rstrip())
    Workdir(tmp_path).drop_after(9)
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize("bad", [b'{"step": 2, "x"', b"12", b"\xff", b"null"])
def test_a_bad_line_in_the_middle_is_named_and_nothing_is_lost(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(bad.join([b'{"step": 1}\n', b'\n{"step": 3}\n']))
    before = path.read_bytes()
    for act in (lambda: read_lines(path), lambda: Workdir(tmp_path).drop_after(1)):
        with pytest.raises(ValueError, match=r"metrics.jsonl:2 is no JSON object .*: repair or remove the line"):
            act()
    assert path.read_bytes() == before


def test_what_replaces_a_file_is_on_the_disk_first(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append((os.fstat(handle).st_ino, path.read_bytes())))
    Workdir(tmp_path).drop_after(1)
    assert synced == [(path.stat().st_ino, WHOLE)]
    assert path.read_bytes() == b'{"step": 1, "x": 0.1}\n'


def test_a_file_that_is_not_there_has_no_lines(tmp_path):
    assert read_lines(tmp_path / "nothing.jsonl") == []


def test_rollouts_are_an_object_a_group(tmp_path):
    folder = Workdir(tmp_path)
    folder.rollouts(12, two_groups(), TABLE, Letters())
    assert rows(tmp_path / "rollouts" / "step_000012.jsonl") == list(describe_groups(two_groups(), TABLE, Letters()))
    folder.rollouts(12, two_groups(), TABLE, Letters())  # a resumed run takes a step again
    assert len(rows(tmp_path / "rollouts" / "step_000012.jsonl")) == 2


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    folder = Workdir(tmp_path / "run")
    folder.metrics({"step": 1})
    folder.write("result.json", {})
    folder.drop_after(0)
    folder.rollouts(1, two_groups(), TABLE, Letters())
    assert not (tmp_path / "run").exists()


def test_results_are_json(tmp_path):
    totals = Totals(1.0, 2.0, 3.0)
    Workdir(tmp_path).write("result.json", {"test": {"base": as_json(totals)}})
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored == {"test": {"base": {"answers": 1.0, "tokens": 2.0, "pairs": 3.0}}}
    assert set(STATUSES) == EXPECTED["verdicts"].keys()
