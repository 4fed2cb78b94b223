"""The decode cache: keys and values of S slots, in blocks of columns so that only the live ones are read.

A slot's sequence, prompt and answer alike, lies at columns 0, 1, 2, …; column c is place c % W of block c // W. Every
write is to the array that a loop carries, and every read comes after it, so that XLA updates it in place.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.types import Array

LEAST_COLUMNS = 32  # of a block
MOST_BLOCKS = 8  # of a slot: the loop over live blocks costs a few operations each


class Cache(NamedTuple):
    """C blocks of W columns, for all layers, in the compute dtype.

    `key_LCSGHW`, `value_LCSGWH`  as the two matrix products of attention want them: no transposition at any read
    """

    key_LCSGHW: Array
    value_LCSGWH: Array

    @property
    def columns(self) -> int:
        """Columns of a block: W."""
        return self.key_LCSGHW.shape[-1]


def block_columns(tokens: int) -> int:
    """Columns of a block, for sequences of up to `tokens` tokens: multiples of 32, at most `MOST_BLOCKS` blocks."""
    return -(-tokens // (MOST_BLOCKS * LEAST_COLUMNS)) * LEAST_COLUMNS


def empty_cache(layers: int, slots: int, kv_heads: int, head_size: int, tokens: int, dtype: str) -> Cache:
    """A cache for `slots` sequences of up to `tokens` tokens."""
    W = block_columns(tokens)
    C = -(-tokens // W)
    return Cache(
        jnp.zeros((layers, C, slots, kv_heads, head_size, W), dtype),
        jnp.zeros((layers, C, slots, kv_heads, W, head_size), dtype),
    )


def as_cache(key_LQPGH: Array, value_LQPGH: Array, columns: int) -> Cache:
    """Keys and values of Q whole sequences as a cache of Q slots, with blocks of `columns` columns."""
    L, Q, P, G, H = key_LQPGH.shape
    padding = ((0, 0), (0, 0), (0, -P % columns), (0, 0), (0, 0))
    key, value = (jnp.pad(x, padding).reshape(L, Q, -1, columns, G, H) for x in (key_LQPGH, value_LQPGH))
    return Cache(jnp.transpose(key, (0, 2, 1, 4, 5, 3)), jnp.transpose(value, (0, 2, 1, 4, 3, 5)))


def copy_slot(cache: Cache, slot: Array, source: Cache, source_slot: Array, really: Array) -> Cache:
    """`cache` with the blocks of a slot of `source` at the start of one of its own; as it was unless `really`."""

    def copied(room, other):
        size = (*other.shape[:2], 1, *other.shape[3:])
        new = jax.lax.dynamic_slice(other, (0, 0, source_slot, 0, 0, 0), size)
        old = jax.lax.dynamic_slice(room, (0, 0, slot, 0, 0, 0), size)
        return jax.lax.dynamic_update_slice(room, jnp.where(really, new, old), (0, 0, slot, 0, 0, 0))

    return jax.tree.map(copied, cache, source)


def write(cache: Cache, layer: Array, key_SGH: Array, value_SGH: Array, column_S: Array) -> Cache:
    """Writes one token of every slot, each at its own column."""
    slot_S = jnp.arange(column_S.shape[0])
    block_S, place_S = jnp.divmod(column_S, cache.columns)
    rules = {"unique_indices": True, "mode": "drop"}
    return Cache(
        cache.key_LCSGHW.at[layer, block_S, slot_S, :, :, place_S].set(key_SGH, **rules),
        cache.value_LCSGWH.at[layer, block_S, slot_S, :, place_S].set(value_SGH, **rules),
    )


def read(cache: Cache, layer: Array, block: Array) -> tuple[Array, Array]:
    """Keys `[S, G, H, W]` and values `[S, G, W, H]` of one block of one layer."""

    def at(room):
        return jax.lax.dynamic_slice(room, (layer, block, 0, 0, 0, 0), (1, 1, *room.shape[2:]))[0, 0]

    return at(cache.key_LCSGHW), at(cache.value_LCSGWH)
