"""What XLA compiles badly for CPUs, in forms that it compiles well; on other devices nothing changes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nft_jax.types import Array


def transpose_left(x: Array) -> Array:
    """Returns `x.mT` for a product with it on the left; on CPUs as an array of its own.

    XLA's fast products on CPUs take no left side that is summed over its rows.
    """
    # Without the barrier XLA folds the transposition into the product again.
    return jax.lax.platform_dependent(x, cpu=lambda x: jax.lax.optimization_barrier(x.mT), default=lambda x: x.mT)


def compute_apart(function: Callable[..., Any], *operands: Array) -> Any:
    """Returns `function(*operands)`; on CPUs computed once, and not in each loop that reads it, for each element.

    XLA fuses nothing into or out of a loop of its own.
    """

    def loop(*operands):
        start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *operands))
        # Hidden from the compiler, which would dissolve a loop of one trip into what is around it.
        trips = jax.lax.optimization_barrier(jnp.int32(1))
        return jax.lax.fori_loop(0, trips, lambda *_: function(*operands), start)

    return jax.lax.platform_dependent(*operands, cpu=loop, default=function)


def first_largest(x_BV: Array) -> Array:
    """Returns `argmax(x, axis=-1)`, int32 `[B]`, for numbers; on CPUs by the maximum and the first place that has it.

    XLA compiles the reduction of pairs (number, place) for CPUs one element at a time, and with it all that it fuses.
    """

    def find(x_BV):
        V = x_BV.shape[-1]
        is_largest_BV = x_BV == jnp.max(x_BV, axis=-1, keepdims=True)
        place_B = jnp.min(jnp.where(is_largest_BV, jnp.arange(V, dtype=jnp.int32), V), axis=-1)
        return jnp.minimum(place_B, V - 1)  # no number equals itself where one is NaN

    def plain(x_BV):
        return jnp.argmax(x_BV, axis=-1).astype(jnp.int32)

    return jax.lax.platform_dependent(x_BV, cpu=find, default=plain)


@jax.custom_vjp
def multiply(x_MD: Array, weight_DF: Array) -> Array:
    """Computes `x @ weight`."""
    return x_MD @ weight_DF


def _forward(x_MD, weight_DF):
    return x_MD @ weight_DF, (x_MD, weight_DF)


def _backward(operands, gradient_MF):
    x_MD, weight_DF = operands
    return gradient_MF @ weight_DF.T, transpose_left(x_MD) @ gradient_MF


multiply.defvjp(_forward, _backward)
