"""Multipliers: what each loss's gradient does to a token, against the formulas written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from nft_jax.compare import multipliers
from nft_jax.losses import resolve
from nft_jax.losses.registry import bind
from nft_jax.types import LossBatch

RATIO_T = np.array([0.3, 0.7, 0.9, 1.0, 1.1, 1.3, 2.5], np.float32)


@pytest.mark.parametrize("epsilon", multipliers.EPSILONS)
@pytest.mark.parametrize("rate", multipliers.RATES)
def test_nft_pulls_at_right_tokens_alike_and_at_wrong_ones_by_their_ratio(rate, epsilon):
    loss = resolve("nft", {"omega": "sqrt_odds", "epsilon": epsilon})
    omega, negative_ratio = np.sqrt((1 - rate) / rate), (1 - rate * RATIO_T) / (1 - rate)
    wrong = -omega * rate * RATIO_T / (1 - rate) / np.maximum(negative_ratio, epsilon)
    np.testing.assert_allclose(multipliers.of_ratios(loss, RATIO_T, rate=rate, right=True), omega, rtol=1e-5)
    np.testing.assert_allclose(multipliers.of_ratios(loss, RATIO_T, rate=rate, right=False), wrong, rtol=1e-4)


@pytest.mark.parametrize("right", [True, False])
def test_grpo_pulls_by_the_ratio_and_not_at_all_beyond_the_clip(right):
    found = multipliers.of_ratios(resolve("grpo", {}), RATIO_T, rate=0.125, right=right)
    advantage = np.sqrt(7) if right else -np.sqrt(1 / 7)
    stops = RATIO_T > 1.2 if right else RATIO_T < 0.8
    np.testing.assert_allclose(found, np.where(stops, 0, advantage * RATIO_T), rtol=1e-5)


def test_at_the_policy_that_sampled_all_curves_meet():
    losses, one = multipliers.nft_beside_grpo(), np.ones(1, np.float32)
    curves = multipliers.curves(losses, ratio_T=one)
    assert len(curves) == 2 * len(multipliers.RATES) * len(losses)
    for right in (True, False):
        for rate in multipliers.RATES:
            here = [curve.multiplier_T[0] for curve in curves if (curve.right, curve.rate) == (right, rate)]
            np.testing.assert_allclose(here, here[0], rtol=1e-6)
            assert (here[0] > 0) == right


def test_a_loss_of_ones_own_has_a_curve():
    def cautious(logp_BT, batch):
        return jnp.where(batch.answer_BT >= 0, -batch.advantage_BT * logp_BT / 2, 0.0)

    found = multipliers.of_ratios(bind("cautious", cautious, {}), RATIO_T, rate=0.25, right=False)
    np.testing.assert_allclose(found, -0.125, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_a_rate_that_no_group_of_eight_has_is_refused(rate):
    with pytest.raises(ValueError, match=f"0.125, .*0.875, not {rate}"):
        multipliers.of_ratios(resolve("grpo", {}), RATIO_T, rate=rate, right=True)


def test_stopped_counts_the_trained_tokens_that_the_clip_has_reached():
    # Right, right beyond the clip, wrong, wrong below it, a token without advantage, a place that is no answer's.
    log_ratio = np.log(np.array([[1.1, 1.5, 1.5, 0.5, 1.5, 1.0]], np.float32))
    values = np.array([[1.0, 1.0, -1.0, -1.0, 0.0, 0.0]], np.float32)
    answer_BT = np.array([[0, 1, 2, 3, 4, -1]], np.int32)
    zeros = np.zeros_like(values)
    batch = LossBatch(zeros, answer_BT, (values > 0).astype(np.float32), zeros + 0.5, values, answer_BT * 0 - 1)
    assert multipliers.stopped(resolve("grpo", {}), log_ratio, batch) == 0.5
    assert multipliers.stopped(resolve("nft", {}), log_ratio, batch) == 0.0
