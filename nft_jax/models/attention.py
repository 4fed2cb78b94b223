"""Grouped-query attention in XLA: over packed rows, and over the cache of the decode loop. Softmax is in float32.

Runs on every platform and defines what the kernels compute (`attention_kernels.py`, `decode_kernel.py`);
`attention_backends.py` chooses among them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.models.cache import Cache, read_block
from nft_jax.models.on_cpus import transpose_left
from nft_jax.precision import accumulation_dtype
from nft_jax.types import Array

# The queries of longer rows are processed in blocks of this many tokens, so that no T × T array exists.
QUERY_BLOCK = 1024
# Stands for −inf: its exponential is also exactly 0, but a row without any key stays finite.
MASK_VALUE = -1e30
# Segments of the columns of a row's prompt. The row's own segments are 0 and above, −1 padding, −2 padding of blocks.
SEEN_BY_ALL, SEEN_BY_NONE = -3, -4


class PromptKeys(NamedTuple):
    """Keys and values of the prompt that precedes each row, which all segments of the row see.

    Attributes:
      key_BPGH: Keys in the compute dtype, rotary positions applied; `[L, B, …]` for all layers.
      value_BPGH: Values, likewise.
      length_B: int32, how many of the P columns are visible.
    """

    key_BPGH: Array
    value_BPGH: Array
    length_B: Array


class Window(NamedTuple):
    """The positions that the tokens of each row see, where they don't see all before them.

    Attributes:
      position_BT: int32, the position of each token in its sequence, which begins with its prompt.
      first_BT: int32, the first position that it sees; 0 or less: all.
    """

    position_BT: Array
    first_BT: Array


def packed_attention(
    query_BTNH: Array,
    key_BTGH: Array,
    value_BTGH: Array,
    segment_BT: Array,
    prompt: PromptKeys | None = None,
    window: Window | None = None,
) -> Array:
    """Computes causal attention inside each segment of each row; returns `[B, T, N, H]`.

    A query sees the keys of its own segment at or before its place in the row, and the keys of the row's prompt; with a
    `window`, those of them that it says. Rows longer than `QUERY_BLOCK` tokens are processed in query blocks that the
    backward pass recomputes.
    """
    T = query_BTNH.shape[1]
    padding = -T % QUERY_BLOCK
    if T > QUERY_BLOCK and padding:
        tail = ((0, 0), (0, padding))
        arrays = (jnp.pad(x, (*tail, (0, 0), (0, 0))) for x in (query_BTNH, key_BTGH, value_BTGH))
        window = jax.tree.map(lambda x: jnp.pad(x, tail), window)
        # Segment −2 contains only the padding, so no real token sees it.
        return packed_attention(*arrays, jnp.pad(segment_BT, tail, constant_values=-2), prompt, window)[:, :T]
    columns = _key_columns(key_BTGH, value_BTGH, segment_BT, prompt, window)
    queries = _Queries(query_BTNH, segment_BT, None if window is None else window.first_BT)
    if T <= QUERY_BLOCK:
        return _attend(queries, 0, columns)

    @jax.checkpoint
    def attend_block(start):
        def cut(x):
            return jax.lax.dynamic_slice_in_dim(x, start, QUERY_BLOCK, axis=1)

        return _attend(jax.tree.map(cut, queries), start, columns)

    blocks = jax.lax.map(attend_block, jnp.arange(0, T, QUERY_BLOCK))
    return jnp.moveaxis(blocks, 0, 1).reshape(query_BTNH.shape)


class _Queries(NamedTuple):
    """Queries with the segment of each, and the first position that it sees, or None if it sees all."""

    query_BTNH: Array
    segment_BT: Array
    first_BT: Array | None


class _KeyColumns(NamedTuple):
    """The C columns that the queries of each row may see: the prompt's columns, then the row's.

    Attributes:
      segment_BC: int32, the segment of each column, or `SEEN_BY_ALL` or `SEEN_BY_NONE`.
      place_C: int32, the place of each column in the row; 0 for columns of the prompt.
      position_BC: int32, the position of each column in its sequence, or None if queries see all.
    """

    key_BCGH: Array
    value_BCGH: Array
    segment_BC: Array
    place_C: Array
    position_BC: Array | None


def _key_columns(key, value, segment, prompt, window):
    place_T = jnp.arange(segment.shape[1], dtype=jnp.int32)
    position = None if window is None else window.position_BT
    if prompt is None:
        return _KeyColumns(key, value, segment, place_T, position)
    column_P = jnp.arange(prompt.key_BPGH.shape[1], dtype=jnp.int32)
    key = jnp.concatenate([prompt.key_BPGH, key], axis=1)
    value = jnp.concatenate([prompt.value_BPGH, value], axis=1)
    seen_BP = column_P[None] < prompt.length_B[:, None]
    of_prompt_BP = jnp.where(seen_BP, SEEN_BY_ALL, SEEN_BY_NONE).astype(jnp.int32)
    place = jnp.concatenate([jnp.zeros_like(column_P), place_T])
    if window is not None:
        # A prompt's column is its position.
        position = jnp.concatenate([jnp.broadcast_to(column_P, of_prompt_BP.shape), position], axis=1)
    return _KeyColumns(key, value, jnp.concatenate([of_prompt_BP, segment], axis=1), place, position)


def _attend(queries, start, columns):
    """Attends from queries `[B, T, N, H]` at places `start…` of their rows to all columns.

    The R heads that share keys are rows of one matrix, so that no product transposes a T × C array.
    """
    query, query_segment, first_BT = queries
    B, T, N, H = query.shape
    C, G = columns.key_BCGH.shape[1:3]
    R = N // G
    scale = jnp.asarray(H**-0.5, query.dtype)
    query_BGMH = jnp.transpose((query * scale).reshape(B, T, G, R, H), (0, 2, 3, 1, 4)).reshape(B, G, R * T, H)
    key_BGHC = jnp.transpose(columns.key_BCGH, (0, 2, 3, 1))
    value_BGCH = jnp.transpose(columns.value_BCGH, (0, 2, 1, 3))
    causal_TC = (start + jnp.arange(T))[:, None] >= columns.place_C[None, :]
    same_BTC = query_segment[:, :, None] == columns.segment_BC[:, None, :]
    mask_BTC = causal_TC[None] & (same_BTC | (columns.segment_BC == SEEN_BY_ALL)[:, None, :])
    if first_BT is not None:
        mask_BTC &= columns.position_BC[:, None, :] >= first_BT[:, :, None]
    out = _softmax_attention(query_BGMH, key_BGHC, value_BGCH, mask_BTC)
    return jnp.transpose(out.reshape(B, G, R, T, H), (0, 3, 1, 2, 4)).reshape(B, T, N, H)


@jax.custom_vjp
def _softmax_attention(query_BGMH, key_BGHC, value_BGCH, mask_BTC):
    """Attends from scaled queries to the keys that the mask allows; M = R · T. Returns `[B, G, M, H]`."""
    return _attend_forward(query_BGMH, key_BGHC, value_BGCH, mask_BTC)[0]


def _attend_forward(query_BGMH, key_BGHC, value_BGCH, mask_BTC):
    B, G, M, _ = query_BGMH.shape
    _, T, C = mask_BTC.shape
    accumulation = {"preferred_element_type": accumulation_dtype(query_BGMH.dtype)}
    score = jnp.einsum("bgmh,bghc->bgmc", query_BGMH, key_BGHC, **accumulation).reshape(B, G, M // T, T, C)
    score = jnp.where(mask_BTC[:, None, None], score, MASK_VALUE)
    weight = jnp.exp(score - jnp.max(score, axis=-1, keepdims=True)).reshape(B, G, M, C)
    total_BGM1 = jnp.sum(weight, axis=-1, keepdims=True)
    out = jnp.einsum("bgmc,bgch->bgmh", weight.astype(value_BGCH.dtype), value_BGCH, **accumulation) / total_BGM1
    out = out.astype(query_BGMH.dtype)
    return out, (query_BGMH, key_BGHC, value_BGCH, weight, total_BGM1, out)


def _attend_backward(saved, d_out):
    """Needs no mask: the weight of a key that is not seen is exactly 0."""
    query_BGMH, key_BGHC, value_BGCH, weight, total_BGM1, out = saved
    d_out = d_out.astype(weight.dtype) / total_BGM1
    shift_BGM1 = jnp.sum(d_out * out.astype(weight.dtype), axis=-1, keepdims=True)
    d_out = d_out.astype(out.dtype)
    accumulation = {"preferred_element_type": weight.dtype}
    d_weight = jnp.einsum("bgmh,bgch->bgmc", d_out, value_BGCH, **accumulation)
    d_score = (weight * (d_weight - shift_BGM1)).astype(out.dtype)
    d_query = jnp.einsum("bgmc,bghc->bgmh", d_score, key_BGHC)
    # The narrow side comes first: XLA is slow on CPUs at the other order.
    d_key_BGHC = transpose_left(query_BGMH) @ d_score
    d_value_BGHC = transpose_left(d_out) @ weight.astype(out.dtype)
    return d_query, d_key_BGHC, d_value_BGHC.mT, None


_softmax_attention.defvjp(_attend_forward, _attend_backward)


def decode_attention(
    query_SNH: Array,
    column_S: Array,
    cache: Cache,
    stack: int,
    layer: Array,
    first_S: Array | None = None,
    orders: tuple[tuple[int, ...], ...] = (),
) -> Array:
    """Attends from one query a slot to its columns up to and including `column_S`; returns `[S, N, H]`.

    With `first_S`, columns before it are not seen; `orders` as in `read_block`. Reads the blocks that are live in any
    slot one after the other, with the running maximum and sum of an online softmax in float32: Milakov & Gimelshein
    2018 (arXiv 1805.02867).
    """
    S, N, H = query_SNH.shape
    _, Y, _, G, _, W = cache.key_ZLYSGHW[stack].shape
    query = (query_SNH * jnp.asarray(H**-0.5, query_SNH.dtype)).reshape(S, G, N // G, H)
    accumulation = {"preferred_element_type": accumulation_dtype(query.dtype)}

    def scores(block):
        key_SGHW, value_SGWH = read_block(cache, stack, layer, block, orders=orders)
        score = jnp.einsum("sgrh,sghw->sgrw", query, key_SGHW, **accumulation)
        column_W = block * W + jnp.arange(W)
        live_SW = column_W[None] <= column_S[:, None]
        if first_S is not None:
            live_SW &= column_W[None] >= first_S[:, None]
        return jnp.where(live_SW[:, None, None], score, MASK_VALUE), value_SGWH

    def weighted_sum(weight, value_SGWH):
        return jnp.einsum("sgrw,sgwh->sgrh", weight.astype(value_SGWH.dtype), value_SGWH, **accumulation)

    # Every slot's own column is live, so no sum stays empty: what a block without live columns adds shrinks to 0 then.
    start = 0 if first_S is None else jnp.maximum(jnp.min(first_S), 0) // W
    score, value_SGWH = scores(start)
    largest = jnp.max(score, axis=-1)
    weight = jnp.exp(score - largest[..., None])
    first = weighted_sum(weight, value_SGWH), largest, jnp.sum(weight, axis=-1)

    def add(block, carry):
        out, largest, total = carry
        score, value_SGWH = scores(block)
        new_largest = jnp.maximum(largest, jnp.max(score, axis=-1))
        shrink, weight = jnp.exp(largest - new_largest), jnp.exp(score - new_largest[..., None])
        out = out * shrink[..., None] + weighted_sum(weight, value_SGWH)
        return out, new_largest, total * shrink + jnp.sum(weight, axis=-1)

    out, _, total = first if Y == 1 else jax.lax.fori_loop(start + 1, jnp.max(column_S) // W + 1, add, first)
    return (out / total[..., None]).astype(query_SNH.dtype).reshape(S, N, H)
