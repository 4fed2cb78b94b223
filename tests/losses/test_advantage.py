"""Advantages against NumPy, and the groups they must leave at zero."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nft_jax.losses.advantage import (
    calibrated,
    centered,
    deficit,
    leave_one_out,
    normalized,
    over_rate,
    overlong_normalized,
    raw,
    signed,
)

LIMIT = 20


def jitted(advantage, correct_QK, length_QK, **options):
    return jax.jit(functools.partial(advantage, max_answer_tokens=LIMIT, **options))(correct_QK, length_QK)


def draw_group(seed=0, dtype=np.float64):
    random = np.random.default_rng(seed)
    correct_QK = (random.random((6, 8)) < 0.5).astype(dtype)
    correct_QK[0], correct_QK[1] = 0, 1
    return jnp.asarray(correct_QK), jnp.asarray(random.integers(1, LIMIT + 1, (6, 8)), jnp.int32)


def standardized_twin(rewards, ddof=0, delta=0.0):
    if len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    return [(reward - np.mean(rewards)) / (np.std(rewards, ddof=ddof) + delta) for reward in rewards]


@jax.enable_x64(True)
def test_centered():
    correct_QK, length_QK = draw_group()
    expected = [[each - sum(group) / 8 for each in group] for group in np.asarray(correct_QK)]
    np.testing.assert_allclose(jitted(centered, correct_QK, length_QK), expected, atol=1e-15)


def leave_one_out_twin(group):
    return [each - (sum(group) - each) / (len(group) - 1) for each in group]


def over_rate_twin(group):
    return [(each - np.mean(group)) / np.mean(group) if any(group) else 0.0 for each in group]


def calibrated_twin(group):
    together = [*group, 1.0]
    if all(group):
        return [0.0] * len(group)
    return [(each - np.mean(together)) / (np.std(together, ddof=1) + 1e-6) for each in group]


@pytest.mark.parametrize(
    ("advantage", "twin"),
    [
        (leave_one_out, leave_one_out_twin),
        (over_rate, over_rate_twin),
        (calibrated, calibrated_twin),
        (raw, list),
        (deficit, lambda group: [each - 1 for each in group]),
        (signed, lambda group: [0.1 if each else -1.0 for each in group]),
    ],
)
@jax.enable_x64(True)
def test_advantages_are_their_twins_on_groups_of_every_kind(advantage, twin):
    correct_QK, length_QK = draw_group()
    expected = [twin(group) for group in np.asarray(correct_QK)]
    np.testing.assert_allclose(jitted(advantage, correct_QK, length_QK), expected, rtol=1e-13, atol=1e-15)


def test_calibrated_pushes_down_groups_without_a_correct_answer():
    correct_QK = jnp.array([[0.0] * 4, [1.0] * 4], jnp.float32)
    advantage_QK = jitted(calibrated, correct_QK, jnp.ones((2, 4), jnp.int32))
    np.testing.assert_allclose(advantage_QK, [[-(5**-0.5)] * 4, [0.0] * 4], rtol=1e-5)


def test_leave_one_out_is_zero_in_a_group_of_one():
    assert jitted(leave_one_out, jnp.ones((1, 1), jnp.float32), jnp.ones((1, 1), jnp.int32)) == 0


@pytest.mark.parametrize(("options", "ddof", "delta"), [({}, 0, 0), ({"sample_std": True, "delta": 1e-6}, 1, 1e-6)])
@jax.enable_x64(True)
def test_normalized(options, ddof, delta):
    correct_QK, length_QK = draw_group()
    expected = [standardized_twin(group, ddof, delta) for group in np.asarray(correct_QK)]
    np.testing.assert_allclose(jitted(normalized, correct_QK, length_QK, **options), expected, rtol=1e-13)


@pytest.mark.parametrize(("buffer", "weight"), [(0, 1.0), (8, 1.0), (8, 0.5), (LIMIT, 1.0)])
@jax.enable_x64(True)
def test_overlong_normalized(buffer, weight):
    correct_QK, length_QK = draw_group()

    def reward_of(correct, length):
        penalty = 0.0
        if buffer and length > LIMIT - buffer:
            penalty = -(length - (LIMIT - buffer)) / buffer
        assert -1 <= penalty <= 0
        return (1.0 if correct else -1.0) + weight * penalty

    rewards = [
        [reward_of(*each) for each in zip(*group, strict=True)]
        for group in zip(np.asarray(correct_QK), np.asarray(length_QK), strict=True)
    ]
    mine = jitted(overlong_normalized, correct_QK, length_QK, overlong_buffer=buffer, overlong_weight=weight)
    np.testing.assert_allclose(mine, [standardized_twin(group) for group in rewards], rtol=1e-12, atol=1e-14)


def test_overlong_normalized_penalty_by_hand():
    """Limit 20, buffer 10: correct answers of 10, 15, 20 tokens are worth 1, 0.5, 0; longer ones 0 too."""
    correct_QK, length_QK = jnp.ones((1, 4), jnp.float32), jnp.array([[10, 15, 20, 25]], jnp.int32)
    rewards = np.array([1, 0.5, 0, 0])
    expected = (rewards - rewards.mean()) / rewards.std()
    mine = jitted(overlong_normalized, correct_QK, length_QK, overlong_buffer=10)
    np.testing.assert_allclose(mine[0], expected, rtol=1e-6)


@pytest.mark.parametrize("sample_std", [False, True])
@pytest.mark.parametrize("size", [1, 3, 7, 16, 41, 97])
def test_advantages_of_equal_rewards_are_exactly_zero(size, sample_std):
    """Means of shaped rewards such as 1 − 1/3 round: a computed std of 1e-8 must not become an advantage of 1."""
    correct_Q1, length_Q1 = np.meshgrid([0.0, 1.0], np.arange(1, LIMIT + 1))
    correct_QK = jnp.asarray(np.repeat(correct_Q1.reshape(-1, 1), size, axis=1), jnp.float32)
    length_QK = jnp.asarray(np.repeat(length_Q1.reshape(-1, 1), size, axis=1), jnp.int32)
    mine = jitted(overlong_normalized, correct_QK, length_QK, overlong_buffer=19, sample_std=sample_std)
    np.testing.assert_array_equal(mine, np.zeros((2 * LIMIT, size)))
    for advantage in (centered, leave_one_out, over_rate, normalized):
        for reward in (0.0, 0.3, 1.0):
            mine = jitted(advantage, jnp.full((1, size), reward, jnp.float32), length_QK[:1])
            np.testing.assert_array_equal(mine, np.zeros((1, size)), err_msg=f"{advantage.__name__}, {reward}")


def test_advantages_refuse_options_out_of_range():
    group = draw_group(dtype=np.float32)
    with pytest.raises(ValueError, match="between 0 and the answer limit 20, not 21"):
        overlong_normalized(*group, LIMIT, overlong_buffer=21)
    with pytest.raises(ValueError, match="overlong_weight"):
        overlong_normalized(*group, LIMIT, overlong_weight=-1.0)
    with pytest.raises(ValueError, match="virtual must be 1 or more"):
        calibrated(*group, LIMIT, virtual=0)
    with pytest.raises(ValueError, match="positive_weight must be 0 or more"):
        signed(*group, LIMIT, positive_weight=-0.1)
    with pytest.raises(ValueError, match="delta"):
        normalized(*group, LIMIT, delta=float("nan"))
