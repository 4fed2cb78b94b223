"""Multipliers of each loss, against the formulas written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from nft_jax.compare import multipliers
from nft_jax.compare.multipliers import ratio_multipliers
from nft_jax.losses import resolve
from nft_jax.losses.registry import bind
from nft_jax.types import LossBatch

RATIO_T = np.array([0.3, 0.7, 0.9, 1.0, 1.1, 1.3, 2.5], np.float32)


@pytest.mark.parametrize("epsilon", multipliers.EPSILONS)
@pytest.mark.parametrize("rate", multipliers.RATES)
def test_ratio_multipliers_of_nft_are_equal_on_correct_tokens_and_follow_the_ratio_on_incorrect_ones(rate, epsilon):
    loss = resolve("nft", {"omega": "sqrt_odds", "epsilon": epsilon})
    omega, negative_ratio = np.sqrt((1 - rate) / rate), (1 - rate * RATIO_T) / (1 - rate)
    incorrect = -omega * rate * RATIO_T / (1 - rate) / np.maximum(negative_ratio, epsilon)
    np.testing.assert_allclose(ratio_multipliers(loss, RATIO_T, rate=rate, correct=True), omega, rtol=1e-5)
    np.testing.assert_allclose(ratio_multipliers(loss, RATIO_T, rate=rate, correct=False), incorrect, rtol=1e-4)


@pytest.mark.parametrize("correct", [True, False])
def test_ratio_multipliers_of_grpo_follow_the_ratio_and_are_zero_beyond_the_clip(correct):
    found = ratio_multipliers(resolve("grpo", {}), RATIO_T, rate=0.125, correct=correct)
    advantage = np.sqrt(7) if correct else -np.sqrt(1 / 7)
    stops = RATIO_T > 1.2 if correct else RATIO_T < 0.8
    np.testing.assert_allclose(found, np.where(stops, 0, advantage * RATIO_T), rtol=1e-5)


def test_curves_meet_at_ratio_one():
    losses, one = multipliers.nft_and_grpo(), np.ones(1, np.float32)
    curves = multipliers.compute_curves(losses, ratio_T=one)
    assert len(curves) == 2 * len(multipliers.RATES) * len(losses)
    for correct in (True, False):
        for rate in multipliers.RATES:
            here = [curve.multiplier_T[0] for curve in curves if (curve.correct, curve.rate) == (correct, rate)]
            np.testing.assert_allclose(here, here[0], rtol=1e-6)
            assert (here[0] > 0) == correct


def test_ratio_multipliers_take_a_custom_loss():
    def cautious(logp_BT, batch):
        return jnp.where(batch.answer_BT >= 0, -batch.advantage_BT * logp_BT / 2, 0.0)

    found = ratio_multipliers(bind("cautious", cautious, {}), RATIO_T, rate=0.25, correct=False)
    np.testing.assert_allclose(found, -0.125, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_ratio_multipliers_refuse_a_rate_that_no_mixed_group_of_eight_has(rate):
    with pytest.raises(ValueError, match=f"0.125, .*0.875, not {rate}"):
        ratio_multipliers(resolve("grpo", {}), RATIO_T, rate=rate, correct=True)


def test_zero_share_counts_the_trained_tokens_that_the_clip_has_reached():
    # Correct, correct beyond the clip, incorrect, incorrect below it, without advantage, outside answers.
    log_ratio = np.log(np.array([[1.1, 1.5, 1.5, 0.5, 1.5, 1.0]], np.float32))
    values = np.array([[1.0, 1.0, -1.0, -1.0, 0.0, 0.0]], np.float32)
    answer_BT = np.array([[0, 1, 2, 3, 4, -1]], np.int32)
    zeros = np.zeros_like(values)
    batch = LossBatch(zeros, answer_BT, (values > 0).astype(np.float32), zeros + 0.5, values, answer_BT * 0 - 1)
    assert multipliers.zero_share(resolve("grpo", {}), log_ratio, batch) == 0.5
    assert multipliers.zero_share(resolve("nft", {}), log_ratio, batch) == 0.0
