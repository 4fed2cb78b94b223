"""The order in which prompts are drawn: a function of (seed, epoch) that the device computes draw by draw."""

import jax
import jax.numpy as jnp

from nft_jax.types import Array

ROUNDS = 6  # of the Feistel network


def prompt_order(key: Array, size: int, draw: Array) -> Array:
    """Returns the table rows that draws take, given their numbers int32 `[draws]`: int32, each in [0, size).

    Draw c takes place `c mod size` of a permutation that belongs to epoch `c // size`. Every row therefore occurs once
    an epoch, and a resumed run needs only the cursor.
    """
    keys = jax.vmap(lambda epoch: jax.random.bits(jax.random.fold_in(key, epoch), (ROUNDS,), jnp.uint32))(draw // size)
    return permute(draw % size, keys, size)


def permute(place: Array, keys: Array, size: int) -> Array:
    """Maps each place by a keyed permutation of `0 … size − 1`, without an array of `size` elements.

    A Feistel network permutes the numbers of an even number of bits. A result outside the range is mapped again until
    it is inside (cycle walking), which keeps the map one-to-one.

    Args:
      place: int `[places]`.
      keys: uint32 `[places, ROUNDS]`, the permutation of each place.
      size: How many numbers are permuted.
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
    """Scrambles 32 bits by a bijection, the finalizer of MurmurHash3."""
    number = (number ^ (number >> 16)) * jnp.uint32(0x85EBCA6B)
    number = (number ^ (number >> 13)) * jnp.uint32(0xC2B2AE35)
    return number ^ (number >> 16)
