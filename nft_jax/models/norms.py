"""RMSNorm, of the residual stream and of queries and keys."""

import jax
import jax.numpy as jnp

from nft_jax.precision import accumulation_dtype
from nft_jax.types import Array


def rms_norm(x_MD: Array, scale_D: Array, epsilon: float, offset: float = 0.0) -> Array:
    """Computes `x / sqrt(mean(x²) + epsilon) · (offset + scale)`: Zhang 2019 (arXiv 1910.07467).

    The mean is over the last axis; there may be any number of axes before it. It is in float32, as is everything where
    there is an offset: a sum with a small scale would lose digits in 16 bits.
    """
    wide_MD = x_MD.astype(accumulation_dtype(x_MD.dtype))
    inverse = jax.lax.rsqrt(jnp.mean(wide_MD * wide_MD, axis=-1, keepdims=True) + epsilon)
    if offset:
        scale_D = offset + scale_D.astype(wide_MD.dtype)
        return (wide_MD * inverse * scale_D[(None,) * (x_MD.ndim - 1)]).astype(x_MD.dtype)
    return (wide_MD * inverse).astype(x_MD.dtype) * scale_D[(None,) * (x_MD.ndim - 1)]
