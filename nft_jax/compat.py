"""The names whose home differs between the supported versions of JAX (0.10.2 to 0.11), imported in this one place."""

import jax
from jax.experimental import io_callback
from jax.sharding import AxisType

shard_map = jax.shard_map
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

__all__ = ["AxisType", "enable_x64", "io_callback", "shard_map"]
