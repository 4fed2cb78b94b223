"""Grouped-query attention over packed rows, and over the cache of the decode loop. Softmax is in float32."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.models.cache import Cache, read_block
from nft_jax.precision import accumulation_dtype
from nft_jax.types import Array

# Beyond this many tokens a row's queries are taken in blocks, so that no T × T array exists.
BLOCK = 1024
# Stands for −inf: its exponential is exactly 0 too, but a row without any key stays finite.
MASKED = -1e30
# Segments of the columns of a row's prompt; a row's own are 0 and above, −1 padding, −2 padding to a whole block.
SEEN_BY_ALL, SEEN_BY_NONE = -3, -4


class PromptKeys(NamedTuple):
    """What the places of a row see besides their own segment: the keys and values of the row's prompt.

    `key_BPGH`, `value_BPGH`  in the compute dtype, keys with their rotary positions; [L, B, …] for all layers
    `length_B`                int32, how many of the P columns are seen
    """

    key_BPGH: Array
    value_BPGH: Array
    length_B: Array


def packed_attention(
    query_BTNH: Array, key_BTGH: Array, value_BTGH: Array, segment_BT: Array, prompt: PromptKeys | None = None
) -> Array:
    """Causal attention inside each segment of each row; returns `[B, T, N, H]`.

    A query sees the keys of its own segment at or before its own place in the row, and those of the row's prompt. Rows
    longer than `BLOCK` tokens are taken in query blocks that are recomputed in the backward pass.
    """
    T = query_BTNH.shape[1]
    padding = -T % BLOCK
    if T > BLOCK and padding:
        # A segment of its own: no real token sees it.
        tail = ((0, 0), (0, padding))
        arrays = (jnp.pad(x, (*tail, (0, 0), (0, 0))) for x in (query_BTNH, key_BTGH, value_BTGH))
        return packed_attention(*arrays, jnp.pad(segment_BT, tail, constant_values=-2), prompt)[:, :T]
    keys = _keys(key_BTGH, value_BTGH, segment_BT, prompt)
    if T <= BLOCK:
        return _attend(query_BTNH, segment_BT, 0, *keys)

    @jax.checkpoint
    def block(start):
        query = jax.lax.dynamic_slice_in_dim(query_BTNH, start, BLOCK, axis=1)
        return _attend(query, jax.lax.dynamic_slice_in_dim(segment_BT, start, BLOCK, axis=1), start, *keys)

    blocks = jax.lax.map(block, jnp.arange(0, T, BLOCK))
    return jnp.moveaxis(blocks, 0, 1).reshape(query_BTNH.shape)


def _keys(key, value, segment, prompt):
    """Keys and values `[B, S, G, H]`, their segments `[B, S]` and places `[S]`: the prompt's first, then the row's."""
    place_T = jnp.arange(segment.shape[1], dtype=jnp.int32)
    if prompt is None:
        return key, value, segment, place_T
    column_P = jnp.arange(prompt.key_BPGH.shape[1], dtype=jnp.int32)
    key = jnp.concatenate([prompt.key_BPGH, key], axis=1)
    value = jnp.concatenate([prompt.value_BPGH, value], axis=1)
    seen_BP = column_P[None] < prompt.length_B[:, None]
    of_prompt_BP = jnp.where(seen_BP, SEEN_BY_ALL, SEEN_BY_NONE).astype(jnp.int32)
    place = jnp.concatenate([jnp.zeros_like(column_P), place_T])
    return key, value, jnp.concatenate([of_prompt_BP, segment], axis=1), place


def _attend(query, query_segment, start, key, value, key_segment, key_place):
    """Queries at places `start…` of their rows against all keys.

    The heads that share keys are rows of one matrix, and no product has to transpose a T × S array.
    """
    B, T, N, H = query.shape
    S, G = key.shape[1], key.shape[2]
    R = N // G
    scale = jnp.asarray(H**-0.5, query.dtype)
    query_BGMH = jnp.transpose((query * scale).reshape(B, T, G, R, H), (0, 2, 3, 1, 4)).reshape(B, G, R * T, H)
    key_BGHS, value_BGSH = jnp.transpose(key, (0, 2, 3, 1)), jnp.transpose(value, (0, 2, 1, 3))
    summed = {"preferred_element_type": accumulation_dtype(query.dtype)}
    score = jnp.einsum("bgmh,bghs->bgms", query_BGMH, key_BGHS, **summed).reshape(B, G, R, T, S)
    causal_TS = (start + jnp.arange(T))[:, None] >= key_place[None, :]
    same_BTS = query_segment[:, :, None] == key_segment[:, None, :]
    mask_BTS = causal_TS[None] & (same_BTS | (key_segment == SEEN_BY_ALL)[:, None, :])
    score = jnp.where(mask_BTS[:, None, None], score, MASKED)
    weight = jnp.exp(score - jax.lax.stop_gradient(jnp.max(score, axis=-1, keepdims=True)))
    weight = weight.reshape(B, G, R * T, S)
    out = jnp.einsum("bgms,bgsh->bgmh", weight.astype(value.dtype), value_BGSH, **summed)
    out = (out / jnp.sum(weight, axis=-1)[..., None]).astype(query.dtype)
    return jnp.transpose(out.reshape(B, G, R, T, H), (0, 3, 1, 2, 4)).reshape(B, T, N, H)


def decode_attention(query_SNH: Array, column_S: Array, cache: Cache, stack: int, layer: Array) -> Array:
    """One query a slot over its columns up to `column_S`, its own among them; `[S, N, H]`.

    Reads the blocks that are live in some slot, one after the other, with the running maximum and sum of an online
    softmax (Milakov & Gimelshein 2018, arXiv 1805.02867), in float32.
    """
    S, N, H = query_SNH.shape
    _, C, _, G, _, W = cache.key_ULCSGHW[stack].shape
    query = (query_SNH * jnp.asarray(H**-0.5, query_SNH.dtype)).reshape(S, G, N // G, H)

    def scores(block):
        key_SGHW, value_SGWH = read_block(cache, stack, layer, block)
        score = jnp.einsum("sgrh,sghw->sgrw", query, key_SGHW, preferred_element_type=accumulation_dtype(query.dtype))
        live_SW = (block * W + jnp.arange(W))[None] <= column_S[:, None]
        return jnp.where(live_SW[:, None, None], score, MASKED), value_SGWH

    def weighted(weight, value_SGWH):
        return jnp.einsum(
            "sgrw,sgwh->sgrh",
            weight.astype(value_SGWH.dtype),
            value_SGWH,
            preferred_element_type=accumulation_dtype(query.dtype),
        )

    # The first block is live in every slot, so that no sum stays empty.
    score, value_SGWH = scores(0)
    largest = jnp.max(score, axis=-1)
    weight = jnp.exp(score - largest[..., None])
    first = weighted(weight, value_SGWH), largest, jnp.sum(weight, axis=-1)

    def add(block, carry):
        out, largest, total = carry
        score, value_SGWH = scores(block)
        new_largest = jnp.maximum(largest, jnp.max(score, axis=-1))
        shrink, weight = jnp.exp(largest - new_largest), jnp.exp(score - new_largest[..., None])
        out = out * shrink[..., None] + weighted(weight, value_SGWH)
        return out, new_largest, total * shrink + jnp.sum(weight, axis=-1)

    out, _, total = first if C == 1 else jax.lax.fori_loop(1, jnp.max(column_S) // W + 1, add, first)
    return (out / total[..., None]).astype(query_SNH.dtype).reshape(S, N, H)
