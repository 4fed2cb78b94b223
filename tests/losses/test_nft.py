"""NFT's gradient multiplier, its clamps, its spread over an answer, and its diagnostics."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nft_jax.losses import nft, ratio_statistics
from nft_jax.losses.nft import max_v
from nft_jax.types import LossBatch

RATES = np.array([0.02, 0.0625, 0.25, 0.5, 0.75, 0.98])
RATIOS = np.array([1e-4, 0.3, 0.9, 1.0, 1.1, 1.9, 2.5, 60.0, 2e4])


def grid(reward, dtype=np.float64):
    """One answer a token: rates down, ratios across."""
    shape = (len(RATES), len(RATIOS))
    rate_BT = np.broadcast_to(RATES[:, None], shape).astype(dtype)
    old_logp_BT = np.full(shape, -2.0, dtype)
    logp_BT = old_logp_BT + np.log(np.broadcast_to(RATIOS, shape)).astype(dtype)
    ids_BT = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
    batch = LossBatch(old_logp_BT, ids_BT, np.full(shape, reward, dtype), rate_BT, np.zeros(shape, dtype), ids_BT)
    return jnp.asarray(logp_BT), jax.tree.map(jnp.asarray, batch)


def omega_of(rate, omega):
    odds = (1 - rate) / rate
    return {"one": np.ones_like(rate), "one_minus_rate": 1 - rate, "sqrt_odds": np.sqrt(odds), "odds": odds}[omega]


@pytest.mark.parametrize("ratio", ["token", "answer", "mean"])
@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 1.0, 2.0])
@pytest.mark.parametrize("omega", ["one", "one_minus_rate", "sqrt_odds", "odds"])
@jax.enable_x64(True)
def test_nft_gradient_multiplier(omega, epsilon, ratio):
    rate, ratios = RATES[:, None], RATIOS[None, :]
    weight = omega_of(rate, omega)
    loss = functools.partial(nft, omega=omega, epsilon=epsilon, negative_weight=0.7, ratio=ratio)
    incorrect = -0.7 * weight * rate * ratios / (1 - rate) / np.maximum((1 - rate * ratios) / (1 - rate), epsilon)
    for reward, multiplier in ((1.0, weight * np.ones_like(ratios)), (0.0, incorrect)):
        gradient_BT = jax.jit(jax.grad(lambda *inputs: loss(*inputs).sum()))(*grid(reward))
        np.testing.assert_allclose(gradient_BT, -multiplier, rtol=1e-9)


def test_nft_bounds_the_ratio_on_incorrect_tokens_only():
    logp_BT = jnp.array([[9.99, 10.01, 9.99, 10.01]], jnp.float32)
    reward_BT = jnp.array([[0, 0, 1, 1]], jnp.float32)
    zeros, ids = jnp.zeros((1, 4), jnp.float32), jnp.arange(4, dtype=jnp.int32)[None]
    batch = LossBatch(zeros, ids, reward_BT, jnp.full((1, 4), 0.5, jnp.float32), zeros, ids)
    gradient_BT = jax.jit(jax.grad(lambda logp: nft(logp, batch).sum()))(logp_BT)
    assert gradient_BT[0, 0] > 1000
    np.testing.assert_array_equal(gradient_BT[0, 1:], np.array([0.0, -0.5, -0.5], np.float32))


def test_nft_clamps_rates_unless_clamp_rate_is_off():
    zeros, ids = jnp.zeros((1, 2), jnp.float32), jnp.zeros((1, 2), jnp.int32)
    batch = LossBatch(zeros, ids, jnp.ones_like(zeros), jnp.array([[0.001, 0.999]], jnp.float32), zeros, ids)

    def multiplier(clamp_rate):
        return -np.asarray(jax.jit(jax.grad(lambda logp: nft(logp, batch, clamp_rate=clamp_rate).sum()))(zeros))

    np.testing.assert_allclose(multiplier(True), [[0.98, 0.02]], rtol=1e-5)
    np.testing.assert_allclose(multiplier(False), [[0.999, 0.001]], rtol=1e-4)


def test_max_v_has_the_value_of_max_and_the_gradient_of_x():
    # −1e8 + (1 + 1e8) is 0 in float32: written as in the paper, the first value would be 0.
    x = jnp.array([-1e8, 0.5, 1.0, 3.0], jnp.float32)
    np.testing.assert_array_equal(max_v(x, 1.0), np.array([1, 1, 1, 3], np.float32))
    np.testing.assert_array_equal(jax.vmap(jax.grad(lambda each: max_v(each, 1.0)))(x), np.ones(4, np.float32))


def double_odds(rate_BT):
    """An ω of one's own."""
    return 2 * (1 - rate_BT) / rate_BT


def cautious_sides(rate_BT):
    """Weights of correct and incorrect answers of one's own."""
    return 1.5, 1 - rate_BT


def last_token(log_ratio_BT, answer_BT):
    """A ratio of one's own: the square of each token's."""
    del answer_BT
    return 2 * log_ratio_BT, jnp.full_like(log_ratio_BT, 0.5)


@jax.enable_x64(True)
def test_nft_takes_functions_of_the_users_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_nft", sys.modules[__name__])
    rate, ratios = RATES[:, None], RATIOS[None, :]
    own = {"omega": "my_nft:double_odds", "sides": "my_nft:cautious_sides", "ratio": "my_nft:last_token"}
    weight = 2 * (1 - rate) / rate
    negative = (1 - rate * ratios**2) / (1 - rate)
    incorrect = -(1 - rate) * weight * rate * ratios**2 / (1 - rate) / np.maximum(negative, 1)
    inside = ratios**2 < np.exp(10)
    for reward, multiplier in ((1.0, 1.5 * weight * np.ones_like(ratios)), (0.0, incorrect * inside)):
        gradient_BT = jax.jit(jax.grad(lambda *inputs: nft(*inputs, **own).sum()))(*grid(reward))
        np.testing.assert_allclose(gradient_BT, -multiplier, rtol=1e-9)


@jax.enable_x64(True)
def test_nft_gives_an_incorrect_answer_one_term_under_the_answer_ratio():
    """An answer of 3 tokens and R = 0.9 · 1.1 · 0.8 loses what an answer of a single token with that R does."""
    log_ratios = jnp.log(jnp.array([[0.9, 1.1, 0.8]]))
    total = log_ratios.sum(axis=1, keepdims=True)

    def batch_of(length):
        zeros, ids = jnp.zeros((1, length)), jnp.zeros((1, length), jnp.int32)
        return LossBatch(zeros, ids, zeros, jnp.full((1, length), 0.25), zeros, ids)

    def loss(logp):
        return nft(logp, batch_of(logp.shape[1]), ratio="answer", epsilon=0.5).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(log_ratios)
    one_value, one_gradient = jax.jit(jax.value_and_grad(loss))(total)
    np.testing.assert_allclose(value, -0.75 * np.log((1 - 0.25 * 0.9 * 1.1 * 0.8) / 0.75), rtol=1e-12)
    np.testing.assert_allclose(value, one_value, rtol=1e-12)
    np.testing.assert_allclose(gradient, np.broadcast_to(one_gradient, (1, 3)), rtol=1e-12)


def test_ratio_statistics_count_clamped_tokens():
    # Tokens: correct R=1, incorrect R=1, incorrect R=3 (value −1), incorrect R=e^11, rare rate, padding.
    logp_BT = jnp.array([[0, 0, np.log(3), 11, 0, -np.inf]], jnp.float32)
    ids_BT = jnp.array([[0, 1, 2, 3, 4, -1]], jnp.int32)
    zeros = jnp.zeros((1, 6), jnp.float32)
    reward_BT = jnp.array([[1, 0, 0, 0, 1, 0]], jnp.float32)
    rate_BT = jnp.array([[0.5, 0.5, 0.5, 0.5, 0.01, 0]], jnp.float32)
    statistics = ratio_statistics(logp_BT, LossBatch(zeros, ids_BT, reward_BT, rate_BT, zeros, ids_BT), epsilon=1.0)
    expected = {
        "ratio": [[1, 1, 3, np.exp(10), 1, 0]],
        "log_ratio_clamped": [[0, 0, 0, 1, 0, 0]],
        "rate_clamped": [[0, 0, 0, 0, 1, 0]],
        "value_clamped": [[0, 0, 1, 1, 0, 0]],
    }
    assert statistics.keys() == expected.keys()
    for name, values in expected.items():
        assert statistics[name].dtype == np.float32
        np.testing.assert_allclose(statistics[name], np.array(values), rtol=1e-6, err_msg=name)


def test_ratio_statistics_follow_epsilon_and_the_answer_ratio():
    logp_BT = jnp.log(jnp.array([[1.2, 1.2, 1.2]], jnp.float32))  # negative ratio 0.8 a token, 0.272 the answer
    zeros, ids = jnp.zeros((1, 3), jnp.float32), jnp.zeros((1, 3), jnp.int32)
    batch = LossBatch(zeros, ids, zeros, jnp.full((1, 3), 0.5, jnp.float32), zeros, ids)
    assert ratio_statistics(logp_BT, batch, epsilon=0.9)["value_clamped"].sum() == 3
    assert ratio_statistics(logp_BT, batch, epsilon=0.5)["value_clamped"].sum() == 0
    answer = ratio_statistics(logp_BT, batch, epsilon=0.5, ratio="answer")
    assert answer["value_clamped"].sum() == 3
    np.testing.assert_allclose(answer["ratio"], np.full((1, 3), 1.728, np.float32), rtol=1e-6)
