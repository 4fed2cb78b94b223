"""The layout of the key-value cache."""

import jax
import jax.numpy as jnp

from nft_jax.models.cache import constrain_row_major, empty_cache


def test_constrain_row_major_keeps_the_values():
    empty = empty_cache(2, 1, 3, 2, 4, 8, "float32")
    cache = jax.tree.map(lambda x: jnp.arange(x.size, dtype=x.dtype).reshape(x.shape), empty)
    held = jax.jit(constrain_row_major)
    assert held.lower(cache).as_text().count("LayoutConstraint") == 2
    for found, expected in zip(jax.tree.leaves(held(cache)), jax.tree.leaves(cache), strict=True):
        assert jnp.array_equal(found, expected)
        assert found.format.layout.major_to_minor == tuple(range(found.ndim))
