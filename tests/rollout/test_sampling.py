"""The draw: the right frequencies, the shared log-prob, and noise that is never used twice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nft_jax.rollout.sampling import draw, request_keys, scaled_log_softmax

# The upper 0.1 % of chi-square with 7 degrees of freedom.
CHI_SQUARE_7 = 24.32
LOGITS_V = np.array([1.5, 0.0, -1.0, 0.5, 0.3, -0.5, 1.0, -3.0], np.float32)


@functools.partial(jax.jit, static_argnames="temperature")
def draws(logits_BV, request_B, column, greedy_B, temperature):
    return draw(logits_BV, request_keys(jax.random.key(5), request_B), column, greedy_B, temperature)


def many(count, temperature, greedy=False):
    logits_BV = np.broadcast_to(LOGITS_V, (count, 8))
    request_B = np.arange(count, dtype=np.uint32)
    return draws(logits_BV, request_B, np.int32(3), np.full(count, greedy), temperature)


def chi_square(token_B, share_V):
    expected_V = share_V * len(token_B)
    return np.sum((np.bincount(token_B, minlength=8) - expected_V) ** 2 / expected_V)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_frequencies_are_those_of_the_softmax(temperature):
    token_B, logp_B = many(20_000, temperature)
    force_V = np.exp(LOGITS_V.astype(np.float64) / temperature)
    share_V = force_V / force_V.sum()
    assert chi_square(np.asarray(token_B), share_V) < CHI_SQUARE_7
    other = np.exp(LOGITS_V / (temperature * 1.1))
    assert chi_square(np.asarray(token_B), other / other.sum()) > CHI_SQUARE_7  # the test would see 10 % of temperature
    np.testing.assert_allclose(logp_B, np.log(share_V)[token_B], rtol=1e-5, atol=1e-6)


def test_greedy_takes_the_likeliest_and_reports_its_log_prob_of_the_sampling_distribution():
    token_B, logp_B = many(20_000, 0.7, greedy=True)
    assert np.all(token_B == LOGITS_V.argmax())
    np.testing.assert_allclose(logp_B, jax.nn.log_softmax(LOGITS_V / 0.7).max(), rtol=1e-5)


def test_log_probs_are_float32_whatever_the_logits():
    logits_BV = jnp.asarray(LOGITS_V, jnp.bfloat16)[None]
    logp_BV = scaled_log_softmax(logits_BV, 0.7)
    assert logp_BV.dtype == np.float32
    np.testing.assert_allclose(np.exp(np.asarray(logp_BV, np.float64)).sum(), 1, rtol=1e-6)


def test_no_two_draws_share_their_noise():
    """Over flat logits, draws with the same noise take the same token; others agree once in V cases."""
    requests, columns, V = 64, 16, 4096
    request_B = np.arange(requests, dtype=np.uint32)
    flat_BV, sampled_B = np.zeros((requests, V), np.float32), np.zeros(requests, bool)
    token_TB = np.array([draws(flat_BV, request_B, np.int32(t), sampled_B, 1.0)[0] for t in range(columns)])
    seen = np.bincount(token_TB.ravel(), minlength=V)
    pairs = requests * columns * (requests * columns - 1) / 2
    agreeing = np.sum(seen * (seen - 1) / 2)
    # One key for all columns would give 64 · 120 = 7,680; a key by request + column (a diagonal) about 8,000.
    assert abs(agreeing - pairs / V) < 5 * np.sqrt(pairs / V)


def test_noise_belongs_to_the_request_number_alone():
    request_B = np.array([7, 3, 2**32 - 1, 0, 1], np.uint32)
    flat_BV, sampled_B = np.zeros((5, 64), np.float32), np.zeros(5, bool)
    order = np.array([4, 2, 0, 3, 1])
    straight, _ = draws(flat_BV, request_B, np.int32(0), sampled_B, 1.0)
    shuffled, _ = draws(flat_BV, request_B[order], np.int32(0), sampled_B, 1.0)
    np.testing.assert_array_equal(straight[order], shuffled)
