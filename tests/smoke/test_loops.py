"""Diverging decode loops and the verifier in them, and what makes their checks fail."""

import numpy as np
import pytest

from nft_jax.models.sharded import ShardedModel
from nft_jax.rollout.state import Round
from nft_jax.smoke import loops
from nft_jax.smoke.result import CheckFailure
from nft_jax.types import Rollout


def test_check_answers_of_diverging_loops_are_those_of_loops_in_step(experiment):
    message = loops.check_answers(experiment)
    assert message.startswith("4 shards, ")
    fewest, most = (int(word) for word in message.split() if word.isdigit() and word != "4")
    assert fewest < most / 2


def test_workload_lengths_differ_by_shard_and_never_reach_the_limit(experiment):
    length_B = loops.Workload(experiment).length_B
    by_shard = length_B.reshape(4, -1)
    assert by_shard.min() == 1 and by_shard.max() < experiment.config.rollout.max_answer_tokens
    assert np.all(np.diff(by_shard.max(axis=1)) > 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"token_BT": 1}, "different tokens"),
        ({"length_B": 1}, "incorrect lengths"),
        ({"logp_BT": 1}, "log-probs up to 1"),
        ({"capacity_X": 0}, "nothing diverged"),
    ],
)
def test_check_answers_fails_if_answers_differ_or_loops_do_not(experiment, monkeypatch, change, message):
    work = loops.Workload(experiment)
    B, T = work.Q * work.K, experiment.config.rollout.max_answer_tokens

    def sampler(work, lockstep):
        values = {name: 0 if lockstep else value for name, value in change.items()}
        rollout = Rollout(
            token_BT=np.full((B, T), values.get("token_BT", 0), np.int32),
            logp_BT=np.full((B, T), values.get("logp_BT", 0), np.float32),
            length_B=work.length_B + values.get("length_B", 0),
            truncated_B=np.zeros(B, bool),
        )
        capacity_X = (16 + 8 * np.arange(4) * values.get("capacity_X", 1)).astype(np.int32)
        return lambda weights, requests: Round(rollout, capacity_X, np.zeros(4, np.int32))

    monkeypatch.setattr(loops, "_sampler", sampler)
    monkeypatch.setattr(ShardedModel, "random_weights", lambda *_: None)
    if message is None:
        assert loops.check_answers(experiment) == "4 shards, 4 to 10 trips, the same answers as in step"
    else:
        with pytest.raises(CheckFailure, match=message):
            loops.check_answers(experiment)


def test_check_grading_counts_every_answer_once(experiment):
    assert loops.check_grading(experiment).startswith("64 answers, each graded once a run, 64 to 64 a host")


@pytest.mark.parametrize(
    ("graded", "longer", "message"),
    [
        (lambda rows: [rows, rows[:1]], 0, r"more or less often 1, unknown ones 0"),
        (lambda rows: [rows[1:]], 0, r"more or less often 1, unknown ones 0"),
        (lambda rows: [rows], 1, r"wrong verdicts \[[1-9].* unknown ones [1-9]"),
    ],
)
def test_check_grading_fails_if_answers_are_graded_twice_never_or_as_others(
    experiment, monkeypatch, graded, longer, message
):
    def grading(work, grader):
        B, T = work.Q * work.K, experiment.config.rollout.max_answer_tokens

        def run(weights, requests, code_B):
            found_B = np.array(code_B)
            for rows in graded(np.arange(B)):
                shape = len(rows), T
                length_b = work.length_B[rows] + longer
                given = work.request_QK.reshape(-1)[rows], rows // work.K, np.zeros(shape, np.int32), length_b
                found_B[rows] = grader(np.zeros(1), *given, np.ones(len(rows), bool))[0]
            return np.sum(found_B != code_B)

        return run

    monkeypatch.setattr(loops, "_grading", grading)
    monkeypatch.setattr(ShardedModel, "random_weights", lambda *_: None)
    with pytest.raises(CheckFailure, match=message):
        loops.check_grading(experiment)
