"""Rewards of single tokens: sums to the end of an answer, and functions that can't be used."""

import jax.numpy as jnp
import numpy as np
import pytest

from nft_jax.losses import bind_token_reward, sum_to_end

TEXTS = ["a", "b\n", "c"]


def by_text(token_QKT, length_QK, *, texts):
    return jnp.array([text.endswith("\n") for text in texts], jnp.float32)[token_QKT]


def by_place(token_QKT, length_QK):
    return jnp.broadcast_to(jnp.arange(token_QKT.shape[-1], dtype=jnp.float32), token_QKT.shape)


def of_answers(token_QKT, length_QK):
    return length_QK.astype(jnp.float32)


def raises(token_QKT, length_QK):
    return token_QKT.sum() / [0]


def of_text(response, answer, more):
    return 0.0


def test_sum_to_end_is_the_sum_of_what_follows():
    reward_QKT = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    expected = [reward_QKT[..., t:].sum(axis=-1) for t in range(5)]
    np.testing.assert_allclose(sum_to_end(reward_QKT), np.stack(expected, axis=-1), rtol=1e-5, atol=1e-6)


def test_bound_rewards_know_texts_and_end_with_the_answer():
    token_QKT, length_QK = jnp.array([[[1, 0, 1, 1], [2, 1, 0, 0]]]), jnp.array([[3, 1]])
    found = bind_token_reward(f"{__name__}:by_text", TEXTS)(token_QKT, length_QK)
    np.testing.assert_array_equal(found, [[[1, 0, 1, 0], [0, 0, 0, 0]]])
    found = bind_token_reward(f"{__name__}:by_place", TEXTS)(token_QKT, length_QK)
    np.testing.assert_array_equal(found, [[[0, 1, 2, 0], [0, 0, 0, 0]]])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("of_answers", r"gave .* for ids of shape \(2, 3, 4\); want float32\[2,3,4\]"),
        ("raises", "raises': TypeError: unsupported operand"),
        ("of_text", r"has the arguments .*, but it is called as reward\(token_QKT, length_QK, \*, texts\)"),
        ("by_txet", "by_text"),
    ],
)
def test_functions_that_give_no_rewards_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        bind_token_reward(f"{__name__}:{name}", TEXTS)
