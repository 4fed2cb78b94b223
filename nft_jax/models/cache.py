"""The decode cache: each prompt's keys and values once, and those of each answer's own tokens."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.types import Array


class Cache(NamedTuple):
    """Keys and values of all layers, in the compute dtype.

    `prompt_key_LQPGH`, `prompt_value_LQPGH`  written by the prefill, shared by a prompt's K answers
    `prompt_length_Q`                         int32: columns at or beyond it are padding
    `answer_key_LBTGH`, `answer_value_LBTGH`  column t holds the answer's token t; B = Q·K, a prompt's answers adjacent
    """

    prompt_key_LQPGH: Array
    prompt_value_LQPGH: Array
    prompt_length_Q: Array
    answer_key_LBTGH: Array
    answer_value_LBTGH: Array


def make_cache(prompt_key_LQPGH: Array, prompt_value_LQPGH: Array, prompt_length_Q: Array, K: int, T: int) -> Cache:
    """A cache with room for K answers a prompt of T tokens each."""
    L, Q, _, G, H = prompt_key_LQPGH.shape
    room = jnp.zeros((L, Q * K, T, G, H), prompt_key_LQPGH.dtype)
    return Cache(prompt_key_LQPGH, prompt_value_LQPGH, prompt_length_Q, room, room)


def write_column(cache: Cache, key_LBGH: Array, value_LBGH: Array, column: Array) -> Cache:
    """Writes one token of every answer, in place: the only write to the cache, once a token for all layers."""

    def update(room, new):
        return jax.lax.dynamic_update_slice_in_dim(room, new[:, :, None], column, axis=2)

    return cache._replace(
        answer_key_LBTGH=update(cache.answer_key_LBTGH, key_LBGH),
        answer_value_LBTGH=update(cache.answer_value_LBTGH, value_LBGH),
    )
