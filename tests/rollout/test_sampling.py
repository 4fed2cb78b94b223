"""The draw: its frequencies, the shared log-prob, noise that is never used twice, and truncated sampling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nft_jax.models.attention import MASK_VALUE
from nft_jax.models.logprobs import scaled_log_softmax
from nft_jax.parallel.mesh import TENSOR, make_mesh
from nft_jax.rollout.noise import gumbel
from nft_jax.rollout.sampling import choose_in_one_pass, draw, request_keys, truncate

# The upper 0.1 % of chi-square with 7 degrees of freedom.
CHI_SQUARE_7 = 24.32
LOGITS_V = np.array([1.5, 0.0, -1.0, 0.5, 0.3, -0.5, 1.0, -3.0], np.float32)


@functools.partial(jax.jit, static_argnames=("temperature", "top_p", "top_k"))
def draws(logits_BV, request_B, column, greedy_B, temperature, **truncation):
    column_B = jnp.full(request_B.shape, column)
    return draw(logits_BV, request_keys(jax.random.key(5), request_B), column_B, greedy_B, temperature, **truncation)


def many(count, temperature, greedy=False, **truncation):
    logits_BV = np.broadcast_to(LOGITS_V, (count, 8))
    request_B = np.arange(count, dtype=np.uint32)
    return draws(logits_BV, request_B, np.int32(3), np.full(count, greedy), temperature, **truncation)


def chi_square(token_B, share_V):
    expected_V = share_V * len(token_B)
    return np.sum((np.bincount(token_B, minlength=8) - expected_V) ** 2 / expected_V)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_draw_frequencies_are_those_of_the_softmax(temperature):
    token_B, logp_B = many(20_000, temperature)
    force_V = np.exp(LOGITS_V.astype(np.float64) / temperature)
    share_V = force_V / force_V.sum()
    assert chi_square(np.asarray(token_B), share_V) < CHI_SQUARE_7
    other = np.exp(LOGITS_V / (temperature * 1.1))
    assert chi_square(np.asarray(token_B), other / other.sum()) > CHI_SQUARE_7  # the test would see 10 % of temperature
    np.testing.assert_allclose(logp_B, np.log(share_V)[token_B], rtol=1e-5, atol=1e-6)


def test_draw_greedy_returns_the_likeliest_with_its_log_prob():
    token_B, logp_B = many(20_000, 0.7, greedy=True)
    assert np.all(token_B == LOGITS_V.argmax())
    np.testing.assert_allclose(logp_B, jax.nn.log_softmax(LOGITS_V / 0.7).max(), rtol=1e-5)


def test_draw_log_probs_are_float32_for_any_logits():
    logits_BV = jnp.asarray(LOGITS_V, jnp.bfloat16)[None]
    logp_BV = scaled_log_softmax(logits_BV, 0.7)
    assert logp_BV.dtype == np.float32
    np.testing.assert_allclose(np.exp(np.asarray(logp_BV, np.float64)).sum(), 1, rtol=1e-6)


def test_draw_uses_no_noise_twice():
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


def test_request_keys_depend_on_the_request_number_alone():
    request_B = np.array([7, 3, 2**32 - 1, 0, 1], np.uint32)
    flat_BV, sampled_B = np.zeros((5, 64), np.float32), np.zeros(5, bool)
    order = np.array([4, 2, 0, 3, 1])
    straight, _ = draws(flat_BV, request_B, np.int32(0), sampled_B, 1.0)
    shuffled, _ = draws(flat_BV, request_B[order], np.int32(0), sampled_B, 1.0)
    np.testing.assert_array_equal(straight[order], shuffled)


# Truncated sampling.


def warped(logits_V, top_p=1.0, top_k=0):
    """Log-probs in float64 as transformers 5.23's TopKLogitsWarper, TopPLogitsWarper and softmax give them.

    The latter sorts: where it would part equal logits by chance, all of them stay here.
    """
    score_V = np.asarray(logits_V, np.float64).copy()
    if top_k:
        score_V[score_V < np.sort(score_V)[-min(top_k, score_V.size)]] = -np.inf
    if top_p < 1:
        ascending_V = np.argsort(score_V, kind="stable")
        share_V = np.exp(score_V[ascending_V] - score_V.max())
        removed_V = np.cumsum(share_V / share_V.sum()) <= 1 - top_p
        removed_V[-1] = False
        lowest = score_V[ascending_V][~removed_V].min()
        score_V[score_V < lowest] = -np.inf
    return score_V - score_V.max() - np.log(np.sum(np.exp(score_V - score_V.max())))


@functools.partial(jax.jit, static_argnames=("top_p", "top_k"))
def truncated(logits_BV, top_p=1.0, top_k=0):
    return truncate(scaled_log_softmax(logits_BV, 1.0), top_p, top_k)


def assert_warped(logits_BV, **truncation):
    """`truncate` keeps what the reference keeps, with its log-probs; returns what is kept, bool `[B, V]`."""
    logits_BV = np.asarray(logits_BV, np.float32)
    found_BV = np.asarray(truncated(logits_BV, **truncation))
    expected_BV = np.array([warped(logits_V, **truncation) for logits_V in logits_BV])
    kept_BV = np.isfinite(expected_BV)
    np.testing.assert_array_equal(found_BV > MASK_VALUE / 2, kept_BV)
    np.testing.assert_allclose(found_BV[kept_BV], expected_BV[kept_BV], rtol=1e-6, atol=2e-6)
    return kept_BV


SETTINGS = [
    *({"top_p": 0.05}, {"top_p": 0.7}, {"top_p": 0.95}, {"top_p": 0.999}),
    *({"top_k": 1}, {"top_k": 7}, {"top_k": 99}, {"top_k": 100}, {"top_k": 1000}),
    *({"top_p": 0.7, "top_k": 5}, {"top_p": 0.95, "top_k": 40}, {"top_p": 0.3, "top_k": 100}),
]


@pytest.mark.parametrize("truncation", SETTINGS, ids=str)
def test_truncate_keeps_the_tokens_of_hugging_face(truncation):
    random = np.random.default_rng(0)
    kept_BV = assert_warped(random.normal(size=(64, 100)) * np.geomspace(0.1, 10, 64)[:, None], **truncation)
    assert kept_BV.any(axis=1).all()


def test_truncate_takes_top_p_of_the_mass_that_top_k_left():
    # Shares 0.4, 0.3, 0.2, 0.1: of the first two, 0.4 is 4/7 and reaches 0.55; of all four it does not.
    logits_BV = np.log([[0.1, 0.2, 0.4, 0.3]])
    np.testing.assert_array_equal(assert_warped(logits_BV, top_p=0.55, top_k=2), [[False, False, True, False]])
    np.testing.assert_array_equal(assert_warped(logits_BV, top_p=0.55), [[False, False, True, True]])


@pytest.mark.parametrize(
    ("logits", "truncation", "kept"),
    [
        ([0] * 8, {"top_p": 0.5}, [*range(8)]),
        ([0] * 8, {"top_k": 3}, [*range(8)]),
        ([1, 3, 1, 3, 1, 1], {"top_k": 1}, [1, 3]),
        ([1, 3, 1, 3, 1, 1], {"top_k": 2}, [1, 3]),
        ([1, 3, 1, 3, 1, 1], {"top_k": 3}, [*range(6)]),
        ([1, 3, 1, 3, 1, 1], {"top_p": 0.7}, [1, 3]),
        ([1, 3, 1, 3, 1, 1], {"top_p": 0.9}, [*range(6)]),
        ([3, 2, 1, 1], {"top_p": 0.95, "top_k": 2}, [0, 1]),
        ([0, 50, 0, 0], {"top_p": 0.9}, [1]),
        ([0, 50, 0, 0], {"top_p": 0.9, "top_k": 3}, [1]),
        ([0, 90, 0, 0], {"top_p": 0.9999}, [1]),
        ([3, 1], {"top_p": 0.1, "top_k": 4}, [0]),
    ],
)
def test_truncate_keeps_or_drops_equally_likely_tokens_together(logits, truncation, kept):
    assert np.flatnonzero(assert_warped([logits], **truncation)[0]).tolist() == kept


def test_truncate_leaves_padded_vocabulary_impossible():
    logits_BV = np.concatenate([LOGITS_V, np.full(8, MASK_VALUE, np.float32)])[None]
    for truncation in ({"top_p": 0.7}, {"top_p": 0.999999}, {"top_k": 3}, {"top_k": 12}, {"top_k": 12, "top_p": 0.9}):
        share_V = np.exp(np.asarray(truncated(logits_BV, **truncation))[0])
        assert not share_V[8:].any(), truncation
        np.testing.assert_allclose(share_V.sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("truncation", [{"top_p": 0.8}, {"top_k": 3}, {"top_p": 0.9, "top_k": 4}], ids=str)
def test_draw_frequencies_are_those_of_the_truncated_distribution(truncation):
    token_B, logp_B = many(20_000, 0.7, **truncation)
    token_B, logp_V = np.asarray(token_B), warped(LOGITS_V / 0.7, **truncation)
    kept_V = np.isfinite(logp_V)
    assert 1 < kept_V.sum() < 8
    assert set(token_B.tolist()) == set(np.flatnonzero(kept_V).tolist())
    expected_V = np.exp(logp_V) * len(token_B)
    found_V = np.bincount(token_B, minlength=8)
    assert np.sum((found_V - expected_V)[kept_V] ** 2 / expected_V[kept_V]) < CHI_SQUARE_7
    np.testing.assert_allclose(logp_B, logp_V[token_B], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("truncation", [{"top_p": 0.01}, {"top_k": 1}, {"top_p": 0.8, "top_k": 2}], ids=str)
def test_draw_greedy_returns_the_same_token_under_any_truncation(truncation):
    for greedy in (True, False) if truncation != {"top_p": 0.8, "top_k": 2} else (True,):
        token_B, logp_B = many(100, 1.0, greedy=greedy, **truncation)
        assert np.all(token_B == LOGITS_V.argmax())
        np.testing.assert_allclose(logp_B, warped(LOGITS_V, **truncation).max(), atol=1e-6)


def test_draw_noise_is_that_of_the_whole_vocabulary():
    """Where truncation keeps the token that was drawn without it, it is drawn again."""
    whole_B, _ = many(2000, 1.0)
    part_B, _ = many(2000, 1.0, top_k=3)
    kept_B = np.isin(whole_B, np.argsort(LOGITS_V)[-3:])
    assert 0.5 < kept_B.mean() < 1
    np.testing.assert_array_equal(np.asarray(whole_B)[kept_B], np.asarray(part_B)[kept_B])


def test_truncate_adds_nothing_to_the_program_when_off():
    def program(*arguments):
        sizes = np.zeros((4, 8), np.float32), np.zeros(4, np.uint32), np.zeros(4, np.int32), np.zeros(4, bool)

        def noisy(logits_BV, request_B, column_B, greedy_B):
            return draw(logits_BV, request_keys(jax.random.key(5), request_B), column_B, greedy_B, *arguments)

        return jax.jit(noisy).lower(*sizes).as_text()

    plain = program(0.7)
    assert program(0.7, 1.0, 0) == program(0.7, 1.0, 8) == program(0.7, 1.0, 50) == plain
    for arguments in ((0.7, 0.9, 0), (0.7, 1.0, 3)):
        assert program(*arguments).count("stablehlo.while") == 1 + plain.count("stablehlo.while")


@pytest.mark.parametrize("shards", [1, 8])
def test_choose_in_one_pass_is_the_argmax_with_its_log_prob(shards):
    """As on GPUs; over a vocabulary of which each device has a part, of which some tokens are impossible."""
    random, (B, V) = np.random.default_rng(2), (16, 1024)
    scaled_BV = (8 * random.normal(size=(B, V))).astype(np.float32)
    scaled_BV[:, -20:] = MASK_VALUE
    # One maximum far above the others, first or last; in score, two that are equal.
    scaled_BV[0, 0], scaled_BV[1, -21] = 300, 300
    score_BV = scaled_BV + random.gumbel(size=(B, V)).astype(np.float32)
    score_BV[2, [700, 30, 900]] = 1000
    mesh = make_mesh(1, shards, jax.devices()[:shards])
    over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, TENSOR))
    given = (jax.device_put(x, over) for x in (scaled_BV, score_BV))
    token_B, logp_B = jax.jit(choose_in_one_pass)(*given)
    assert token_B.dtype == np.int32
    np.testing.assert_array_equal(token_B, score_BV.argmax(axis=1))
    assert token_B[2] == 30
    expected_BV = jax.nn.log_softmax(scaled_BV.astype(np.float64), axis=-1)
    np.testing.assert_allclose(logp_B, expected_BV[np.arange(B), token_B], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("V", [8, 511, 5000])
def test_gumbel_is_the_noise_of_jax_random(V):
    keys = request_keys(jax.random.key(7), np.array([0, 1, 5, 2**32 - 1], np.uint32))
    column_B = np.array([0, 3, 3, 100_000], np.int32)

    def of_jax(key, column):
        return jax.random.gumbel(jax.random.fold_in(key, column), (V,), jnp.float32)

    np.testing.assert_array_equal(gumbel(keys, column_B, V), jax.vmap(of_jax)(keys, column_B))
