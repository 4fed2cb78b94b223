"""Fixtures of the tests of checkpoints."""

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from nft_jax.state import State


@pytest.fixture(scope="module")
def simple():
    """Shapes and layouts of a state of a few arrays."""
    whole = NamedSharding(jax.make_mesh((1,), ("data",), devices=jax.devices()[:1]), PartitionSpec())

    def init():
        weights = {"inner": {"kernel": jnp.zeros((40, 30))}, "scale": jnp.zeros(30)}
        return State(weights, optax.adamw(0.1).init(weights), jnp.int32(0), jnp.int32(0), None, None)

    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), jax.eval_shape(init))
