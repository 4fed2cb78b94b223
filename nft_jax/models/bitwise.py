"""One formulation of the forward pass for sampler and trainer, so that their log-probs agree in every bit.

XLA chooses kernels, blockings and the order of sums by the shapes that it sees, and fuses what stands together: the
same formula rounds differently over 64 slots and over 8 rows of 500 tokens. Here both compute the same loops:

- A function of rows (products with weights, norms, softmax) is applied to `BLOCK_ROWS` rows at a time, in a loop of its
  own. Its body is the same computation on the same shapes in both, and a row's result depends on no other row.
- A query reads its keys by `BLOCK_COLUMNS` columns at a time, counted from the beginning of its sequence, in order.

A function whose results are not all read by both would be cut down, and then fused, differently. So each is small.
Gradients are those of the ordinary formulation at these values.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from nft_jax.models.attention import MASK_VALUE, PromptKeys, Window, packed_attention
from nft_jax.models.attention_kernels import CHECKPOINT_NAME
from nft_jax.models.cache import Cache, read_block
from nft_jax.parallel.layout import Placement
from nft_jax.precision import accumulation_dtype
from nft_jax.rounding import ceil_div
from nft_jax.types import Array

BLOCK_ROWS, BLOCK_COLUMNS = 32, 64


def map_rows(function: Callable, placement: Placement) -> Callable:
    """Returns `function(whole, *rows)`, computed by blocks on each data shard."""
    return _with_gradient_of(function, placement.map_rows(functools.partial(map_blocks, function)))


def map_blocks(function: Callable, whole: Any, *rows: Any) -> Any:
    """Computes `function(whole, *rows)` for `BLOCK_ROWS` rows at a time; a row's result may depend on no other row.

    Where blocks do not divide the rows, the last one overlaps the one before. Too few rows are padded.
    """
    M, m = jax.tree.leaves(rows)[0].shape[0], BLOCK_ROWS
    if m > M:
        padded = jax.tree.map(lambda x: jnp.pad(x, ((0, m - M), *((0, 0),) * (x.ndim - 1))), rows)
        return jax.tree.map(lambda x: x[:M], map_blocks(function, whole, *padded))

    def start(index):
        return jnp.minimum(index * m, M - m)

    def compute(index):
        return function(whole, *jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start(index), m), rows))

    def step(index, out):
        def write(x, new):
            return jax.lax.dynamic_update_slice_in_dim(x, new, start(index), 0)

        return jax.tree.map(write, out, compute(index))

    block = jax.eval_shape(compute, jnp.int32(0))
    out = jax.tree.map(lambda x: jnp.zeros((M, *x.shape[1:]), x.dtype), block)
    # Hidden from the compiler, which would dissolve a loop of one trip into what is around it.
    count = jax.lax.optimization_barrier(jnp.int32(ceil_div(M, m)))
    return jax.lax.fori_loop(0, count, step, out)


def _with_gradient_of(ordinary: Callable, exact: Callable) -> Callable:
    """Returns a function with the values of `exact` and the gradient of `ordinary` at the same operands."""
    function = jax.custom_vjp(exact)
    function.defvjp(
        lambda *operands: (exact(*operands), operands),
        lambda operands, gradient: jax.vjp(ordinary, *operands)[1](gradient),
    )
    return function


def attend_rows(placement: Placement) -> Callable:
    """Returns `attention.packed_attention`, computed by blocks on each data shard."""

    def exact(*operands):
        return placement.map_rows(lambda _, *operands: _attend_rows(*operands))(None, *operands)

    attend = _with_gradient_of(packed_attention, exact)
    return lambda *operands: checkpoint_name(attend(*operands), CHECKPOINT_NAME)


def attend_cache(
    query_SNH: Array, column_S: Array, cache: Cache, stack: int, layer: Array, first_S: Array | None = None
) -> Array:
    """Computes `attention.decode_attention` by blocks of slots."""
    S = query_SNH.shape[0]
    slots = min(S, BLOCK_ROWS)

    def attend(cache, query_mNH, column_m, slot_m, first_m):
        def read(block):
            keys = read_block(cache, stack, layer, block, slot_m[0], slots)
            return tuple(jnp.pad(x, ((0, BLOCK_ROWS - slots), *((0, 0),) * 3)) for x in keys)

        return _attend_block_by_block(query_mNH, column_m, first_m, read)

    return map_blocks(attend, cache, query_SNH, column_S, jnp.arange(S, dtype=jnp.int32), first_S)


def _attend_rows(
    query_BTNH, key_BTGH, value_BTGH, segment_BT, prompt: PromptKeys | None = None, window: Window | None = None
):
    B, T, N, H = query_BTNH.shape
    W, P = BLOCK_COLUMNS, 0 if prompt is None else prompt.key_BPGH.shape[1]
    place_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
    # Padding is a sequence of one token at each of its places, so that it reads one block.
    begins_BT = jnp.pad(segment_BT[:, 1:] != segment_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    begin_BT = jax.lax.cummax(jnp.where(begins_BT | (segment_BT < 0), place_BT, 0), axis=1)
    seen_BT = jnp.broadcast_to(0 if prompt is None else prompt.length_B[:, None], (B, T)).astype(jnp.int32)
    own = _pad_keys(key_BTGH, value_BTGH, P, W)
    shared = None if prompt is None else _pad_keys(prompt.key_BPGH, prompt.value_BPGH, 0, W)

    def attend(keys, query_mNH, column_m, row_m, place_m, seen_m, first_m):
        own, shared = keys

        def read(block):
            key_mGHW, value_mGWH = _cut_keys(own, row_m, place_m + block * W)
            if shared is None:
                return key_mGHW, value_mGWH
            other_mGHW, other_mGWH = _cut_keys(shared, row_m, jnp.broadcast_to(block * W, row_m.shape))
            in_prompt_mW = block * W + jnp.arange(W)[None] < seen_m[:, None]
            return (
                jnp.where(in_prompt_mW[:, None, None, :], other_mGHW, key_mGHW),
                jnp.where(in_prompt_mW[:, None, :, None], other_mGWH, value_mGWH),
            )

        return _attend_block_by_block(query_mNH, column_m, first_m, read)

    row_BT = jnp.broadcast_to(jnp.arange(B, dtype=jnp.int32)[:, None], (B, T))
    # Column 0 of a sequence would be `seen` places before its first place in the row; P places are in front of the row.
    rows = query_BTNH, seen_BT + place_BT - begin_BT, row_BT, P + begin_BT - seen_BT, seen_BT
    first_BT = None if window is None else window.first_BT
    flat = jax.tree.map(lambda x: x.reshape(B * T, *x.shape[2:]), (*rows, first_BT))
    return map_blocks(attend, (own, shared), *flat).reshape(B, T, N, H)


def _pad_keys(key_BTGH, value_BTGH, before, behind):
    """Returns keys `[B, G, H, T]` and values `[B, G, T, H]` with so many places more."""
    key, value = (jnp.pad(x, ((0, 0), (before, behind), (0, 0), (0, 0))) for x in (key_BTGH, value_BTGH))
    return jnp.transpose(key, (0, 2, 3, 1)), jnp.transpose(value, (0, 2, 1, 3))


def _cut_keys(keys, row_m, start_m):
    """Returns keys `[m, G, H, W]` and values `[m, G, W, H]`: W places of a row each."""
    key_BGHT, value_BGTH = keys
    _, G, H, _ = key_BGHT.shape

    def cut(row, start):
        key_GHW = jax.lax.dynamic_slice(key_BGHT, (row, 0, 0, start), (1, G, H, BLOCK_COLUMNS))[0]
        return key_GHW, jax.lax.dynamic_slice(value_BGTH, (row, 0, start, 0), (1, G, BLOCK_COLUMNS, H))[0]

    return jax.vmap(cut)(row_m, start_m)


def _attend_block_by_block(query_mNH: Array, column_m: Array, first_m: Array | None, read: Callable) -> Array:
    """Attends from each query to its columns from `first_m` to `column_m`; `read(block)` gives their keys and values.

    An online softmax in float32 as in `attention.decode_attention`. A block before a query's first column or behind its
    last one, which the block of another query may need, changes nothing of it.
    """
    m, N, H = query_mNH.shape
    W, sums = BLOCK_COLUMNS, accumulation_dtype(query_mNH.dtype)
    G = jax.eval_shape(read, jnp.int32(0))[0].shape[1]
    query_mGRH = (query_mNH * jnp.asarray(H**-0.5, query_mNH.dtype)).reshape(m, G, N // G, H)

    def add(block, before):
        out, largest, total = before
        key_mGHW, value_mGWH = read(block)
        score = jnp.einsum("mgrh,mghw->mgrw", query_mGRH, key_mGHW, preferred_element_type=sums)
        column_W = block * W + jnp.arange(W)
        live_mW, live_m = column_W[None] <= column_m[:, None], block * W <= column_m
        if first_m is not None:
            live_mW, live_m = live_mW & (column_W[None] >= first_m[:, None]), live_m & (block * W + W > first_m)
        score = jnp.where(live_mW[:, None, None], score, MASK_VALUE)
        new_largest = jnp.maximum(largest, jnp.max(score, axis=-1, keepdims=True))
        shrink, weight = jnp.exp(largest - new_largest), jnp.exp(score - new_largest)
        added = jnp.einsum("mgrw,mgwh->mgrh", weight.astype(value_mGWH.dtype), value_mGWH, preferred_element_type=sums)
        after = out * shrink + added, new_largest, total * shrink + jnp.sum(weight, axis=-1, keepdims=True)
        return jax.tree.map(lambda new, old: jnp.where(live_m[:, None, None, None], new, old), after, before)

    none = jnp.zeros((m, G, N // G, 1), sums)
    start = jnp.zeros(query_mGRH.shape, sums), none + MASK_VALUE, none
    out, _, total = jax.lax.fori_loop(0, jnp.max(column_m) // W + 1, add, start)
    return (out / total).astype(query_mNH.dtype).reshape(m, N, H)
