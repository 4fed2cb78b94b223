"""The names whose home differs between the supported versions of JAX (0.10.2 to 0.11), imported in this one place."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax._src import distributed
from jax.experimental import io_callback
from jax.sharding import AxisType

shard_map = jax.shard_map
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

# `client` (the coordination service's), `process_id` and `num_processes`: `jax.process_index()` and
# `jax.process_count()` would start the devices.
coordination = distributed.global_state

__all__ = ["AxisType", "coordination", "enable_x64", "initialize", "io_callback", "shard_map"]


def initialize(lost: Callable[..., None], **arguments: Any) -> None:
    """`jax.distributed.initialize`; `lost` is called, in a thread of JAX's, when another process is taken for dead.

    JAX itself gives no way to say what happens then: its client ends the process with code 1.
    """
    extension, name = distributed._jax, "get_distributed_runtime_client"
    client = getattr(extension, name)
    setattr(extension, name, partial(client, missed_heartbeat_callback=lost))
    try:
        jax.distributed.initialize(**arguments)
    finally:
        setattr(extension, name, client)
