"""A loop over layers whose bodies are in the loop itself."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def scan_in_place(body: Callable, carry: Any, inputs: Any, unroll: int) -> tuple[Any, Any]:
    """Does what `jax.lax.scan` does, with unrolled bodies in the loop itself, where `scan` calls one function for each.

    Inside the `shard_map` of a data shard, libtpu 0.0.42.1 aborts at a nested one over `tensor` ("IsManualSubgroup") if
    it is in a function that is called more than once and not inlined; 0.0.52 does not.
    """
    length = jax.tree.leaves(inputs)[0].shape[0]
    unroll = math.gcd(unroll, length)

    def bodies(carry, group):
        found = []
        for place in range(unroll):
            carry, one = body(carry, jax.tree.map(lambda x, place=place: x[place], group))
            found.append(one)
        return carry, jax.tree.map(lambda *parts: jnp.stack(parts), *found)

    groups = jax.tree.map(lambda x: x.reshape(-1, unroll, *x.shape[1:]), inputs)
    carry, found = jax.lax.scan(bodies, carry, groups)
    return carry, jax.tree.map(lambda x: x.reshape(length, *x.shape[2:]), found)
