"""The decode cache: keys and values of S slots, in blocks of columns so that only the live ones are read.

A slot's sequence, prompt and answer alike, lies at columns 0, 1, 2, …; column c is place c % W of block c // W. Every
write is to the array that a loop carries, and every read comes after it, so that XLA updates it in place.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from nft_jax.types import Array

LEAST_COLUMNS = 256  # of a block; a sequence of no more is one block, which is read where it lies
MOST_BLOCKS = 8  # of a slot: the loop over live blocks costs a few operations each
MULTIPLE = 32  # where there are several, their columns are one of this


class Cache(NamedTuple):
    """C blocks of W columns, in the compute dtype. U stacks of layers: layer l is entry l // U of stack l % U.

    `key_ULCSGHW`, `value_ULCSGWH`  tuples of U arrays, each as the two matrix products of attention want it: no
                                    transposition at any read, and where a stack is one layer of one block, no slice
    """

    key_ULCSGHW: tuple[Array, ...]
    value_ULCSGWH: tuple[Array, ...]

    @property
    def columns(self) -> int:
        """Columns of a block: W."""
        return self.key_ULCSGHW[0].shape[-1]


def block_columns(tokens: int) -> int:
    """Columns of a block, for sequences of up to `tokens` tokens."""
    blocks = min(-(-tokens // LEAST_COLUMNS), MOST_BLOCKS)
    return tokens if blocks == 1 else -(-tokens // (blocks * MULTIPLE)) * MULTIPLE


def empty_cache(layers: int, stacks: int, slots: int, kv_heads: int, head_size: int, tokens: int, dtype: str) -> Cache:
    """A cache for `slots` sequences of up to `tokens` tokens; `stacks` divides `layers`."""
    W = block_columns(tokens)
    front = layers // stacks, -(-tokens // W), slots, kv_heads
    return Cache(
        tuple(jnp.zeros((*front, head_size, W), dtype) for _ in range(stacks)),
        tuple(jnp.zeros((*front, W, head_size), dtype) for _ in range(stacks)),
    )


def cache_from_keys(key_LQPGH: Array, value_LQPGH: Array, stacks: int, columns: int) -> Cache:
    """Keys and values of Q whole sequences as a cache of Q slots, with blocks of `columns` columns, at most P."""
    L, Q, P, G, H = key_LQPGH.shape
    W = min(columns, P)
    padding = ((0, 0), (0, 0), (0, -P % W), (0, 0), (0, 0))
    key, value = (jnp.pad(x, padding).reshape(L, Q, -1, W, G, H) for x in (key_LQPGH, value_LQPGH))
    key, value = jnp.transpose(key, (0, 2, 1, 4, 5, 3)), jnp.transpose(value, (0, 2, 1, 4, 3, 5))
    return Cache(tuple(key[u::stacks] for u in range(stacks)), tuple(value[u::stacks] for u in range(stacks)))


def copy_slot(cache: Cache, slot: Array, source: Cache, source_slot: Array, really: Array) -> Cache:
    """`cache` with the blocks of a slot of `source` at the start of one of its own; as it was unless `really`."""

    def copied(room, other):
        size = (*other.shape[:2], 1, *other.shape[3:])
        new = jax.lax.dynamic_slice(other, (0, 0, source_slot, 0, 0, 0), size)
        old = jax.lax.dynamic_slice(room, (0, 0, slot, 0, 0, 0), size)
        return jax.lax.dynamic_update_slice(room, jnp.where(really, new, old), (0, 0, slot, 0, 0, 0))

    return jax.tree.map(copied, cache, source)


def constrain_row_major(cache: Cache) -> Cache:
    """The cache with the last axis of each array the densest, whatever XLA would choose.

    On GPUs it would take the transpositions of `as_cache` for a layout, which the loop that fills slots then has for
    the whole cache: that is laid out anew at every token, and back.
    """
    return jax.tree.map(lambda room: with_layout_constraint(room, Layout(tuple(range(room.ndim)))), cache)


def take_slots(cache: Cache, slot_S: Array) -> Cache:
    """These slots of a cache."""
    return jax.tree.map(lambda room: jnp.take(room, slot_S, axis=2, unique_indices=True), cache)


def write_token(cache: Cache, stack: int, layer: Array, key_SGH: Array, value_SGH: Array, column_S: Array) -> Cache:
    """Writes one token of every slot, each at its own column."""
    slot_S = jnp.arange(column_S.shape[0])
    block_S, place_S = jnp.divmod(column_S, cache.columns)
    rules = {"unique_indices": True, "mode": "drop"}
    key = cache.key_ULCSGHW[stack].at[layer, block_S, slot_S, :, :, place_S].set(key_SGH, **rules)
    value = cache.value_ULCSGWH[stack].at[layer, block_S, slot_S, :, place_S].set(value_SGH, **rules)
    return Cache(_replaced(cache.key_ULCSGHW, stack, key), _replaced(cache.value_ULCSGWH, stack, value))


def read_block(cache: Cache, stack: int, layer: Array, block: Array) -> tuple[Array, Array]:
    """Keys `[S, G, H, W]` and values `[S, G, W, H]` of one block of one layer."""

    def at(room):
        return jax.lax.dynamic_slice(room, (layer, block, 0, 0, 0, 0), (1, 1, *room.shape[2:]))[0, 0]

    return at(cache.key_ULCSGHW[stack]), at(cache.value_ULCSGWH[stack])


def _replaced(values: tuple[Array, ...], place: int, value: Array) -> tuple[Array, ...]:
    return (*values[:place], value, *values[place + 1 :])
