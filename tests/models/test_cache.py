"""The layout of the key-value cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nft_jax.models import cache
from nft_jax.models.cache import axis_orders, constrain_layout, empty_cache

PLACES = ("cpu", 2, False), ("gpu", 2, False), ("gpu", 2, True), ("tpu", 1, False), ("tpu", 2, False)


@pytest.mark.parametrize("orders", [axis_orders(name, heads, 64, token_major=dense) for name, heads, dense in PLACES])
def test_constrain_layout_keeps_the_values(orders):
    empty = empty_cache(2, 1, 3, 2, 4, 8, "float32")
    filled = jax.tree.map(lambda x: jnp.arange(x.size, dtype=x.dtype).reshape(x.shape), empty)
    held = jax.jit(functools.partial(constrain_layout, orders=orders))
    assert held.lower(filled).as_text().count("LayoutConstraint") == len(orders)
    found = held(filled)
    for one, expected in zip(jax.tree.leaves(found), jax.tree.leaves(filled), strict=True):
        np.testing.assert_array_equal(one, expected)
    assert all(x.format.layout.major_to_minor == order for (x,), order in zip(found, orders, strict=False))


@pytest.mark.parametrize(("version", "ordered"), [((0, 0, 42, 1), False), ((0, 0, 50), False), ((0, 0, 52), True)])
def test_axis_orders_fixes_the_order_for_compilers_that_need_it(monkeypatch, version, ordered):
    monkeypatch.setattr(cache, "libtpu_version", lambda: version)
    assert bool(axis_orders("tpu", 1, 128)) == bool(axis_orders("tpu", 1, 64)) == ordered
    assert bool(axis_orders("tpu", 2, 128)) == ordered
    # Heads narrower than a tile need the order by every compiler.
    assert axis_orders("tpu", 2, 64)
    assert axis_orders("cpu", 2, 128) == ()
    assert axis_orders("gpu", 2, 128)
