"""Grouped-query attention over packed rows, and over the two-part cache of the decode loop. Softmax is in float32."""

import jax
import jax.numpy as jnp

from nft_jax.types import Array

# Beyond this many tokens a row's queries are taken in blocks, so that no T × T array exists.
BLOCK = 1024
# Stands for −inf: its exponential is exactly 0 too, but a row without any key stays finite.
MASKED = -1e30


def packed_attention(query_BTNH: Array, key_BTGH: Array, value_BTGH: Array, segment_BT: Array) -> Array:
    """Causal attention inside each segment of each row; returns `[B, T, N, H]`.

    A query sees the keys of its own segment at or before its own place in the row. Rows longer than `BLOCK` tokens are
    taken in query blocks that are recomputed in the backward pass.
    """
    T = query_BTNH.shape[1]
    if T <= BLOCK:
        return _attend(query_BTNH, key_BTGH, value_BTGH, segment_BT, segment_BT, 0)
    padding = -T % BLOCK
    if padding:
        # A segment of its own: no real token sees it.
        tail = ((0, 0), (0, padding))
        arrays = (jnp.pad(x, (*tail, (0, 0), (0, 0))) for x in (query_BTNH, key_BTGH, value_BTGH))
        return packed_attention(*arrays, jnp.pad(segment_BT, tail, constant_values=-2))[:, :T]

    @jax.checkpoint
    def block(start):
        query = jax.lax.dynamic_slice_in_dim(query_BTNH, start, BLOCK, axis=1)
        segment = jax.lax.dynamic_slice_in_dim(segment_BT, start, BLOCK, axis=1)
        return _attend(query, key_BTGH, value_BTGH, segment, segment_BT, start)

    blocks = jax.lax.map(block, jnp.arange(0, T, BLOCK))
    return jnp.moveaxis(blocks, 0, 1).reshape(query_BTNH.shape)


def _attend(query, key, value, query_segment, key_segment, start):
    """Queries at places `start…` of their rows against all keys."""
    B, T, N, H = query.shape
    S, G = key.shape[1], key.shape[2]
    grouped = query.reshape(B, T, G, N // G, H)
    score = jnp.einsum("btgrh,bsgh->bgrts", grouped, key, preferred_element_type=jnp.float32) * (H**-0.5)
    causal_TS = (start + jnp.arange(T))[:, None] >= jnp.arange(S)[None, :]
    mask_BTS = causal_TS[None] & (query_segment[:, :, None] == key_segment[:, None, :])
    score = jnp.where(mask_BTS[:, None, None], score, MASKED)
    share = jax.nn.softmax(score, axis=-1).astype(value.dtype)
    return jnp.einsum("bgrts,bsgh->btgrh", share, value).reshape(B, T, N, H)


def decode_attention(
    query_BNH: Array,
    new_key_BGH: Array,
    new_value_BGH: Array,
    prompt_key_QPGH: Array,
    prompt_value_QPGH: Array,
    prompt_length_Q: Array,
    answer_key_BTGH: Array,
    answer_value_BTGH: Array,
    column: Array,
) -> Array:
    """One query an answer, over its prompt, its own earlier tokens (columns before `column`) and itself; `[B, N, H]`.

    The K answers of a prompt share the prompt's keys and values, which therefore lie in memory once. The new key and
    value come beside the cache, so that the cache is only read here, and written once a token for all layers.
    """
    B, N, H = query_BNH.shape
    Q, P, G, _ = prompt_key_QPGH.shape
    T, R = answer_key_BTGH.shape[1], N // G
    query = query_BNH.reshape(B, G, R, H) * jnp.asarray(H**-0.5, query_BNH.dtype)
    shared = query.reshape(Q, B // Q, G, R, H)

    scored = {"preferred_element_type": jnp.float32}
    prompt = jnp.einsum("qkgrh,qpgh->qkgrp", shared, prompt_key_QPGH, **scored)
    prompt = jnp.where((jnp.arange(P)[None] < prompt_length_Q[:, None])[:, None, None, None], prompt, MASKED)
    answer = jnp.einsum("bgrh,btgh->bgrt", query, answer_key_BTGH, **scored)
    answer = jnp.where((jnp.arange(T) < column)[None, None, None], answer, MASKED)
    itself = jnp.einsum("bgrh,bgh->bgr", query, new_key_BGH, **scored)[..., None]

    score = jnp.concatenate([prompt.reshape(B, G, R, P), answer, itself], axis=-1)
    share = jax.nn.softmax(score, axis=-1).astype(query.dtype)
    out = jnp.einsum("qkgrp,qpgh->qkgrh", share[..., :P].reshape(Q, B // Q, G, R, P), prompt_value_QPGH)
    out = out.reshape(B, G, R, H) + jnp.einsum("bgrt,btgh->bgrh", share[..., P : P + T], answer_value_BTGH)
    out = out + share[..., P + T :] * new_value_BGH[:, :, None]
    return out.reshape(B, N, H)
