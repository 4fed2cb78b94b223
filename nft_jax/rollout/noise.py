"""Gumbel noise for a draw: the numbers of `jax.random`, computed in one pass over the vocabulary.

On CPUs `jax.random` runs threefry's rounds as a loop of array operations, which costs more than a small model's
forward pass. Written out, they fuse with the operations that follow.
"""

import jax
import jax.numpy as jnp

from nft_jax.types import Array

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_TINY = float(jnp.finfo(jnp.float32).tiny)


@jax.named_scope("gumbel")
def gumbel(key_B: Array, column_B: Array, V: int) -> Array:
    """Draws Gumbel noise, float32 `[B, V]`.

    Row b is `jax.random.gumbel(jax.random.fold_in(key_B[b], column_B[b]), V)`.
    """
    data_B2 = jax.random.key_data(key_B)
    column_B = column_B.astype(jnp.uint32)
    first_B, second_B = _threefry(data_B2[:, 0], data_B2[:, 1], jnp.zeros_like(column_B), column_B)
    place_BV = jnp.broadcast_to(jnp.arange(V, dtype=jnp.uint32)[None], (column_B.shape[0], V))
    one_BV, other_BV = _threefry(first_B[:, None], second_B[:, None], jnp.zeros_like(place_BV), place_BV)
    # 23 random bits as the fraction of a number in [1, 2).
    bits_BV = ((one_BV ^ other_BV) >> 9) | jnp.uint32(0x3F800000)
    uniform_BV = jax.lax.bitcast_convert_type(bits_BV, jnp.float32) - 1.0
    return -jnp.log(-jnp.log(jnp.maximum(_TINY, uniform_BV + _TINY)))


def _threefry(key0: Array, key1: Array, count0: Array, count1: Array) -> tuple[Array, Array]:
    """Applies Threefry-2x32 with 20 rounds to two counters.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    keys = key0, key1, key0 ^ key1 ^ jnp.uint32(_PARITY)
    x, y = count0 + key0, count1 + key1
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = x ^ ((y << rotation) | (y >> (32 - rotation)))
        x = x + keys[(group + 1) % 3]
        y = y + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y
