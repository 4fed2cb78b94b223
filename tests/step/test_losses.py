"""What the step trains: old log-probs, each loss, the KL term, and a hostile verifier."""

import importlib

import numpy as np
import pytest

from helpers.experiments import GRADERS_MODULE, assert_same, grader, moved, on_host
from helpers.step_programs import Q
from nft_jax.run.metrics import step_metrics
from nft_jax.verify import Pool
from nft_jax.verify.grade import STATUSES


def test_step_strict_on_policy_has_ratio_one_with_any_sampler_log_probs(programs):
    program = programs("dr_grpo")
    for record in program.take(3):
        statistics, tokens = record.applied.statistics, record.totals.tokens
        assert statistics.ratio == tokens > 0
        # The maximum runs over all places of a row, those outside answers too, where the ratio is not above 1.
        assert statistics.ratio_max == 1
        assert statistics.gap / tokens == pytest.approx(1, abs=1e-4)


def test_step_old_logp_is_the_samplers_by_default(plain):
    (record,) = plain.take()
    statistics, tokens = record.applied.statistics, record.totals.tokens
    assert 0 < statistics.gap_max < 1e-4
    assert abs(statistics.ratio / tokens - 1) < 1e-4
    assert statistics.ratio_max != 1  # two programs' rounding: were it 1, the test above could not fail


def test_step_old_logp_recompute_uses_the_trainers_log_probs(programs):
    program = programs("rft")
    (record,) = program.take()
    statistics, tokens = record.applied.statistics, record.totals.tokens
    # The first update takes them from its own forward pass.
    assert statistics.ratio[0] == tokens[0]
    assert statistics.ratio_max[0] == 1
    assert statistics.gap[0] / tokens[0] == pytest.approx(1, abs=1e-4)
    # The second update's weights are no longer those of the recomputation.
    assert abs(statistics.ratio_max[1] - 1) > 1e-3


@pytest.mark.parametrize("name", ["plain", "rft", "grpo", "dr_grpo", "dapo", "dpo", "contrast", "own"])
def test_step_takes_its_updates_with_each_loss(programs, name):
    program = programs(name)
    (record,) = program.take()
    metrics = step_metrics(record)
    assert metrics["updates_taken"] == program.config.updates_per_step
    assert metrics["updates_nonfinite"] == 0
    assert np.isfinite(metrics["loss"])
    assert metrics["gradient_norm"] > 0
    assert metrics["entropy"] > 0
    assert moved(program.weights, on_host(program.state.weights))
    pairs = record.totals.pairs
    assert (pairs > 0).all() if program.experiment.loss.unit == "pair" else not pairs.any()


def test_step_learns_from_rewards_between_0_and_1(programs):
    program = programs("own")
    graders = importlib.import_module(GRADERS_MODULE)
    (record,) = program.take()
    groups, decode = record.last, program.experiment.tokenizer.decode_batch
    earned = []
    for ids_KT, length_K, cut_K in zip(groups.token_QKT, groups.length_QK, groups.truncated_QK, strict=True):
        texts = decode([row[:n].tolist() for row, n in zip(ids_KT, length_K, strict=True)])
        earned.append([0 if cut else graders.share(text, "") for text, cut in zip(texts, cut_K, strict=True)])
    np.testing.assert_allclose(groups.graded_QK, earned, atol=1e-6)
    np.testing.assert_array_equal(groups.reward_QK, groups.graded_QK >= 0.5)
    np.testing.assert_allclose(groups.rate_Q, groups.reward_QK.mean(axis=1))
    assert 0.1 < step_metrics(record)["reward"] < 0.9


def test_step_kl_term_measures_against_frozen_weights(programs, all_incorrect):
    program = programs("grpo")
    first, second, third = (record.applied.statistics for record in program.take(3))
    assert 0 <= first.kl < 1e-6 < second.kl < third.kl
    assert_same(program.weights, on_host(program.state.reference))
    # Where no answer has an advantage the penalty is all there is: its weight times a mean over tokens, of answers.
    program.pool.pool = all_incorrect
    (record,) = program.take()
    penalty = program.config.loss.kl_weight * record.applied.statistics.kl / record.totals.tokens
    # A mean over sequences weighs a token by the mean length over its answer's: between 1/limit and limit.
    limit = program.config.rollout.max_answer_tokens
    assert penalty / limit < record.applied.statistics.objective < penalty * limit
    assert record.applied.gradient_norm > 0


def test_step_loses_only_the_answers_that_a_hostile_verifier_fails_on(plain):
    with Pool(grader("hostile"), item_seconds=1.0) as hostile:
        plain.pool.pool = hostile
        (record,) = plain.take()
        asked = [response for response, _ in plain.pool.items]
        count = dict(zip(STATUSES, record.statistics.verdicts.astype(int).tolist(), strict=True))
        assert hostile.replacements > 0
    graders = importlib.import_module(GRADERS_MODULE)
    deeds = [graders.draw(response, graders.DEEDS) for response in asked]
    hangs, failures = (sum(deed in kind for deed in deeds) for kind in (graders.HANGS, graders.FAILS))
    assert hangs > 0
    assert failures > 0
    # A slow machine may time out more than what hangs.
    assert count["timeout"] >= hangs
    assert 0 < count["error"] <= failures
    assert count["timeout"] + count["error"] >= hangs + failures
    assert count["correct"] > 0
    assert sum(count.values()) == record.statistics.answers
    assert record.statistics.reward == count["correct"]
    plain.pool.pool = plain.pool.own
    (record,) = plain.take()
    assert record.statistics.verdicts[[STATUSES.index("timeout"), STATUSES.index("error")]].sum() == 0
    assert record.trained == Q
