"""The order in which prompts are drawn: a function of (seed, epoch), computed on the device, draw by draw."""

import jax
import jax.numpy as jnp

from nft_jax.types import Array

ROUNDS = 6


def prompt_order(key: Array, size: int, cursor: Array, count: int) -> Array:
    """Rows `[count]` int32 of a table of `size` that draws number `cursor … cursor + count − 1` take.

    Draw c is place `c mod size` of a permutation that belongs to epoch `c // size`, so every row comes once an epoch,
    and resuming needs nothing but the cursor.
    """
    draw = cursor + jnp.arange(count, dtype=jnp.int32)
    keys = jax.vmap(lambda epoch: jax.random.bits(jax.random.fold_in(key, epoch), (ROUNDS,), jnp.uint32))(draw // size)
    return permute(draw % size, keys, size)


def permute(place: Array, keys: Array, size: int) -> Array:
    """Where a keyed permutation of `0 … size − 1` sends each place, without writing the permutation down.

    A Feistel network permutes the numbers of an even number of bits; a number that leaves the range is sent on until it
    is back in it (cycle walking), which keeps the map one-to-one. `keys` uint32 `[places, ROUNDS]`.
    """
    half = max((size - 1).bit_length() + 1, 2) // 2
    mask = jnp.uint32((1 << half) - 1)

    def network(number):
        left, right = number >> half, number & mask
        for index in range(ROUNDS):
            left, right = right, left ^ (mix_bits(right ^ keys[:, index]) & mask)
        return (left << half) | right

    def walk(number):
        return jnp.where(number >= size, network(number), number)

    first = network(place.astype(jnp.uint32))
    return jax.lax.while_loop(lambda number: jnp.any(number >= size), walk, first).astype(jnp.int32)


def mix_bits(number: Array) -> Array:
    """A bijective scramble of 32 bits (the finaliser of MurmurHash3)."""
    number = (number ^ (number >> 16)) * jnp.uint32(0x85EBCA6B)
    number = (number ^ (number >> 13)) * jnp.uint32(0xC2B2AE35)
    return number ^ (number >> 16)
