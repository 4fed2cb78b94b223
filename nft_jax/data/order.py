"""The order in which prompts are drawn: a function of (seed, epoch), computed on the device."""

import jax
import jax.numpy as jnp

from nft_jax.types import Array


def prompt_order(key: Array, size: int, cursor: Array, count: int) -> Array:
    """Rows `[count]` int32 of a table of `size` that draws number `cursor … cursor + count − 1` take.

    Draw c is place `c mod size` of a permutation that belongs to epoch `c // size`, so every row comes once an epoch,
    and resuming needs nothing but the cursor.
    """
    draw = cursor + jnp.arange(count, dtype=jnp.int32)
    first = cursor // size
    # The draws of one call touch at most this many epochs.
    epochs = first + jnp.arange(-(-count // size) + 1, dtype=jnp.int32)
    order = jax.vmap(lambda epoch: jax.random.permutation(jax.random.fold_in(key, epoch), size))(epochs)
    return order[draw // size - first, draw % size].astype(jnp.int32)
