"""`step_metrics` and `format_step`: the numbers of a step from its record, and its line."""

import json
import math

import jax
import numpy as np
import pytest

from helpers.experiments import STEP_METRICS
from nft_jax.config import OptimizerConfig
from nft_jax.run.metrics import format_faults, format_step, optimizer_metrics, share, step_metrics
from nft_jax.state import PartialRecord, Record
from nft_jax.types import Totals
from nft_jax.update.groups import Ages, RolloutStatistics, empty_groups
from nft_jax.update.statistics import UpdateStatistics
from nft_jax.update.update import UpdateRecord
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
        "disagreements": 3,
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
        length_RQK=np.zeros((2, 8, 4), np.int32),
    )


def test_step_metrics_average_the_metrics_of_the_loss_over_the_tokens_that_it_left():
    record = by_hand()
    statistics = record.applied.statistics._replace(own={"clipped": array(3, 1, 100)})
    applied = record.applied._replace(statistics=statistics, rejected=array(10, 2, 0))
    metrics = step_metrics(record._replace(applied=applied))
    # Of 20 and 12 tokens 10 and 2 were rejected; the third update was not taken.
    assert metrics["loss_metrics"] == {"clipped": 4 / 20}
    assert (metrics["tokens_rejected"], metrics["tokens_trained"]) == (12, 20)
    assert metrics["entropy"] == 48 / 20
    assert not {"loss_metrics", "tokens_rejected"} & step_metrics(record).keys()


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
    "ratio_max_by_update": [1.5, 3, None],
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


def test_step_metrics_equal_those_by_hand():
    metrics = step_metrics(by_hand())
    assert metrics.keys() == EXPECTED.keys() == STEP_METRICS
    assert set(STATUSES) == EXPECTED["verdicts"].keys()
    for name, expected in EXPECTED.items():
        assert metrics[name] == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected), name
    json.dumps(metrics, allow_nan=False)


def test_step_metrics_of_partial_rollouts_compare_sampler_and_trainer_where_their_weights_are_the_same():
    record = by_hand()
    statistics = record.applied.statistics._replace(fresh=array(5, 9, 9), drift=array(6, 9, 9))
    ages = Ages(*(np.float32(value) for value in (32, 8, 12, 2)))
    partial = PartialRecord(ages, np.int32(11), np.int32(-160), None, None, None)
    record = record._replace(partial=partial, applied=record.applied._replace(statistics=statistics))
    metrics = step_metrics(record)
    own = {
        "answers_in_flight": 11,
        "answers_older": 8 / 32,
        "answer_age_mean": 12 / 32,
        "answer_age_max": 2,
        "sampler_drift_mean": 6 / (20 - 5),
        "slots_useful": (480 - 160) / 640,
        "sampler_gap_mean": 0.002 / 5,
    }
    for name, expected in (EXPECTED | own).items():
        assert metrics[name] == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected), name
    assert metrics.keys() == EXPECTED.keys() | own.keys()
    statistics = statistics._replace(fresh=array(0, 0, 0))
    metrics = step_metrics(record._replace(applied=record.applied._replace(statistics=statistics)))
    assert metrics["sampler_gap_mean"] is metrics["sampler_gap_max"] is None


def test_step_metrics_have_no_means_where_nothing_trained():
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
        "ratio_max",
        "clamped_value",
        "clamped_rate",
        "clamped_log_ratio",
    }
    assert metrics["reward"] == 24 / 64
    assert "entropy –  ratio≤–  gap" in format_step(
        1, 10, metrics | {"tokens_per_second": 1.0, "seconds": 1.0}, 9.0, None
    )


def not_finite(record: Record, update: int) -> Record:
    """The record where one update's forward pass overflowed."""

    def spoil(values):
        return np.where(np.arange(3) == update, np.float32(np.nan), values)

    applied = record.applied
    statistics = jax.tree.map(spoil, applied.statistics)
    return record._replace(applied=applied._replace(gradient_norm=spoil(applied.gradient_norm), statistics=statistics))


def test_step_metrics_leave_out_an_update_that_is_not_finite():
    metrics = step_metrics(not_finite(by_hand(), update=2))
    assert metrics == step_metrics(by_hand())


def test_step_metrics_are_json_where_the_first_update_is_not_finite():
    metrics = step_metrics(not_finite(by_hand(taken=(0, 1, 1), nonfinite=(1, 0, 0)), update=0))
    json.dumps(metrics, allow_nan=False)
    assert metrics["updates_nonfinite"] == 1


def test_optimizer_metrics_equal_those_by_hand():
    """Of two updates one is clipped to 1.5."""
    config = OptimizerConfig(clip_norm=1.5, epsilon=1e-3)
    metrics = optimizer_metrics(array(2, 1), config, 400)
    assert metrics == {"updates_clipped": 1 / 2, "gradient_over_epsilon": pytest.approx((1.5 + 1) / 2 / 20 / 1e-3)}
    assert optimizer_metrics(array(), config, 400) == {"updates_clipped": None, "gradient_over_epsilon": None}


@pytest.mark.parametrize(("part", "whole"), [(0, 0), (1, 0), (math.nan, 2), (math.inf, 2)])
def test_share_of_nothing_is_none(part, whole):
    assert share(part, whole) is None
    assert share(1, 2) == 0.5


METRICS = {"tokens_per_second": 12345.6, "seconds": 1.26}


@pytest.mark.parametrize("step", [1, 5, 10])
def test_format_step_has_its_bar_and_fields_in_their_places(step):
    left, fields = (
        [["9", "min", "left"], []][step == 10],
        [
            *("reward", "0.375", "kept", "0.62", "entropy", "1.500", "ratio≤3.00", "gap≤1e-03", "grad", "1.50"),
            *("length", "7.5", "cut", "0.250", "12,346", "tok/s", "1.3", "s"),
        ],
    )
    faults = ["[1", "of", "3", "updates", "not", "finite;", "2", "timeouts,", "1", "error", "of", "the", "grader]"]
    metrics = step_metrics(by_hand()) | METRICS
    text = format_step(step, 10, metrics, 540.0, 500)
    assert text.startswith(f"{step:>2}/10 {'━' * step}{'╌' * (10 - step)} reward")
    assert text.split("╌")[-1].split("━")[-1].split() == [*fields, *left, *faults]
    # A file gets the same without the bar.
    assert format_step(step, 10, metrics, 540.0, None).split() == [*f"{step:>2}/10".split(), *fields, *left, *faults]


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_format_step_fits_a_terminal_and_keeps_what_matters(width):
    metrics = step_metrics(by_hand(taken=(1, 1, 1), nonfinite=(0, 0, 0))) | METRICS
    metrics["verdicts"] = {}
    text = format_step(5, 10, metrics, 540.0, width)
    assert len(text) <= width
    assert "reward 0.375" in text and "9 min left" in text
    shorter = format_step(5, 10, metrics, 540.0, width - 10)
    # In a narrower terminal it has some of the same numbers, and no other.
    assert set(shorter.split("  ")) <= set(text.split("  ")) and len(shorter) < len(text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, ""),
        ({"updates_nonfinite": 2}, "2 of 4 updates not finite"),
        ({"groups_trained": 0, "updates_taken": 0}, "no group trained"),
        ({"verdicts": {"timeout": 1}}, "1 timeout of the grader"),
        ({"verdicts": {"error": 5}, "groups_trained": 0}, "no group trained; 5 errors of the grader"),
    ],
)
def test_format_faults_has_what_went_wrong_in_a_step(changes, text):
    assert (
        format_faults({"updates_taken": 2, "updates_nonfinite": 0, "groups_trained": 8, "verdicts": {}} | changes)
        == text
    )
    assert format_faults({"updates_taken": 1, "updates_nonfinite": 0}) == ""  # a supervised update
