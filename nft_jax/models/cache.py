"""The key-value cache of the decode loop, for S slots, in blocks of columns so that only live ones are read.

A slot's sequence, prompt and answer alike, occupies columns 0, 1, 2, …; column c is place c % W of block c // W. Every
write goes to the array that the loop carries, and every read comes after it, so that XLA updates the array in place.

A cache of another dtype, such as int8, needs changes here: `empty_cache` allocates, `write_token` and `cache_from_keys`
would quantize, `read_block` would dequantize. The kernel in `decode_kernel.py` reads the arrays itself.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from nft_jax.compat import libtpu_version
from nft_jax.rounding import ceil_div, round_up
from nft_jax.types import Array

MIN_COLUMNS = 256  # of a block; a sequence of at most this many tokens is one block, which is read without a copy
MAX_BLOCKS = 8  # of a slot: each round of the loop over live blocks costs a few operations
COLUMN_MULTIPLE = 32  # of a block's columns, if a slot has several blocks
# Axes of keys and of values in memory, the densest last.
_ROW_MAJOR = (0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 5)
# What `write_token` writes to a slot, [G, H], is dense. A single head is no axis of a TPU's tiles, which pad.
_TOKEN_MAJOR = (0, 1, 2, 5, 3, 4), (0, 1, 2, 4, 3, 5)
_TOKEN_MAJOR_OF_ONE_HEAD = (0, 1, 2, 3, 5, 4), (0, 1, 2, 3, 4, 5)

_NEEDS_ORDER = (0, 0, 51)  # the first libtpu that converts every cache at every token without an order
_TILE = 128  # numbers in a row of a TPU's tile


class Cache(NamedTuple):
    """Keys and values of S slots: Y blocks of W columns, in the compute dtype.

    Each field has one array for each of Z stacks of layers: layer l is entry l // Z of stack l % Z. Their axes are in
    the order of attention's two matrix products, so that no read transposes; if a stack is one layer of one block, no
    read slices.
    """

    key_ZLYSGHW: tuple[Array, ...]
    value_ZLYSGWH: tuple[Array, ...]

    @property
    def columns(self) -> int:
        """Columns of a block, W."""
        return self.key_ZLYSGHW[0].shape[-1]


def block_columns(tokens: int, *, token_major: bool = False) -> int:
    """Returns the columns of a block for sequences of up to `tokens` tokens; `token_major` as in `axis_orders`."""
    blocks = 1 if token_major else min(ceil_div(tokens, MIN_COLUMNS), MAX_BLOCKS)
    return tokens if blocks == 1 else round_up(ceil_div(tokens, blocks), COLUMN_MULTIPLE)


def empty_cache(
    layers: int, stacks: int, slots: int, kv_heads: int, head_size: int, tokens: int, dtype: str, columns: int = 0
) -> Cache:
    """Allocates a cache for `slots` sequences of up to `tokens` tokens; `stacks` must divide `layers`."""
    W = columns or block_columns(tokens)
    front = layers // stacks, ceil_div(tokens, W), slots, kv_heads
    return Cache(
        tuple(jnp.zeros((*front, head_size, W), dtype) for _ in range(stacks)),
        tuple(jnp.zeros((*front, W, head_size), dtype) for _ in range(stacks)),
    )


def cache_from_keys(key_LQPGH: Array, value_LQPGH: Array, stacks: int, columns: int) -> Cache:
    """Makes a cache of Q slots from the keys and values of Q whole sequences; blocks have min(`columns`, P) columns."""
    L, Q, P, G, H = key_LQPGH.shape
    W = min(columns, P)
    padding = ((0, 0), (0, 0), (0, -P % W), (0, 0), (0, 0))
    key, value = (jnp.pad(x, padding).reshape(L, Q, -1, W, G, H) for x in (key_LQPGH, value_LQPGH))
    key, value = jnp.transpose(key, (0, 2, 1, 4, 5, 3)), jnp.transpose(value, (0, 2, 1, 4, 3, 5))
    return Cache(tuple(key[u::stacks] for u in range(stacks)), tuple(value[u::stacks] for u in range(stacks)))


def copy_slot(cache: Cache, slot: Array, source: Cache, source_slot: Array, condition: Array) -> Cache:
    """Copies a slot of `source` to the first columns of a slot of `cache`, if `condition` is true."""

    def copy(target, other):
        size = (*other.shape[:2], 1, *other.shape[3:])
        new = jax.lax.dynamic_slice(other, (0, 0, source_slot, 0, 0, 0), size)
        old = jax.lax.dynamic_slice(target, (0, 0, slot, 0, 0, 0), size)
        return jax.lax.dynamic_update_slice(target, jnp.where(condition, new, old), (0, 0, slot, 0, 0, 0))

    return jax.tree.map(copy, cache, source)


def axis_orders(
    platform: str, kv_heads: int, head_size: int, *, token_major: bool = False
) -> tuple[tuple[int, ...], ...]:
    """Returns the order in memory of the axes of keys, and of values, if a device holds `kv_heads` heads; or ().

    On GPUs, keys lie side by side by columns, as a product with them wants it, or as `token_major` attention wants it.
    Compilers for TPUs choose an order for each loop, and convert the whole cache between two orders at every token:
    libtpu 0.0.42.1 for several heads of 64 numbers, 0.0.52 for most. The older one keeps other caches in place without
    the order. With it, a cache of one head takes a seventh more memory, and the step of Qwen3-8B with two heads of 128
    on a device of v5e:8x8 needs 18.24 GiB.
    """
    if platform == "tpu":
        if libtpu_version() < _NEEDS_ORDER and (kv_heads == 1 or head_size >= _TILE):
            return ()
        return _TOKEN_MAJOR if kv_heads > 1 else _TOKEN_MAJOR_OF_ONE_HEAD
    if platform != "gpu":
        return ()
    return _TOKEN_MAJOR if token_major else _ROW_MAJOR


def constrain_layout(cache: Cache, orders: tuple[tuple[int, ...], ...]) -> Cache:
    """Fixes the order in memory of the axes of each array, from `axis_orders`; without orders, XLA chooses.

    XLA would turn the transpositions of `cache_from_keys` into a layout. The loop that fills slots would then give that
    layout to the whole cache, and the loop over layers would convert the cache to its own and back at every token.
    """

    def constrain(arrays, order):
        return tuple(with_layout_constraint(x, Layout(order)) for x in arrays)

    return Cache(*map(constrain, cache, orders)) if orders else cache


def take_slots(cache: Cache, slot_S: Array) -> Cache:
    """Returns the cache of these slots."""
    return jax.tree.map(lambda x: jnp.take(x, slot_S, axis=2, unique_indices=True), cache)


def write_token(cache: Cache, stack: int, layer: Array, key_SGH: Array, value_SGH: Array, column_S: Array) -> Cache:
    """Writes the keys and values of one token of every slot, each at the slot's column."""
    slot_S = jnp.arange(column_S.shape[0])
    block_S, place_S = jnp.divmod(column_S, cache.columns)
    options = {"unique_indices": True, "mode": "drop"}
    keys, values = list(cache.key_ZLYSGHW), list(cache.value_ZLYSGWH)
    keys[stack] = keys[stack].at[layer, block_S, slot_S, :, :, place_S].set(key_SGH, **options)
    values[stack] = values[stack].at[layer, block_S, slot_S, :, place_S].set(value_SGH, **options)
    return Cache(tuple(keys), tuple(values))


def read_block(
    cache: Cache,
    stack: int,
    layer: Array,
    block: Array,
    slot: Array | int = 0,
    slots: int | None = None,
    orders: tuple[tuple[int, ...], ...] = (),
) -> tuple[Array, Array]:
    """Returns the keys `[S, G, H, W]` and values `[S, G, W, H]` of one block of one layer, for `slots` slots or all.

    `orders`, from `axis_orders`, are fixed for what is read too. The loop over live blocks would otherwise give the
    order that its products want to the whole cache, which XLA for TPUs then converts in each layer.
    """

    def read(arrays, *order):
        _, _, S, *rest = arrays[stack].shape
        found = jax.lax.dynamic_slice(arrays[stack], (layer, block, slot, 0, 0, 0), (1, 1, slots or S, *rest))
        return (with_layout_constraint(found, Layout(*order)) if order else found)[0, 0]

    return tuple(map(read, cache, *([orders] if orders else [])))
