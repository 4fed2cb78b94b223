"""Precision: the dtype of sums, the dtype that is fast on a device, and float64 for exact checks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.compat import enable_x64


def accumulation_dtype(dtype: Any) -> jnp.dtype:
    """Returns the dtype of norms, softmaxes, log-probs and sums of values: float32, or float64 for float64."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def fast_dtype(device: jax.Device) -> str:
    """Returns the number format that a device computes in fast: bfloat16, or float32 where it has no bfloat16.

    CPUs emulate bfloat16, and so do GPUs before compute capability 8.0, such as the T4. float16 would need loss
    scaling, which this package does not have.
    """
    lacks = device.platform == "cpu" or (device.platform == "gpu" and float(device.compute_capability) < 8.0)
    return "float32" if lacks else "bfloat16"


@contextmanager
def in_float64() -> Iterator[None]:
    """Lets arrays have 64 bits: a model whose `dtype` is float64 then stays so, with float64 weights and groups."""
    # Python integers have 64 bits here, and meet int32 indices.
    with enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


def to_float64(tree: Any) -> Any:
    """Copies the tree to the host, with its floating arrays in float64."""
    return jax.tree.map(lambda x: np.asarray(x, np.float64) if np.issubdtype(x.dtype, np.floating) else x, tree)
