"""Names whose module differs between the supported versions of JAX (0.10.2 to 0.12)."""

import re
from importlib import metadata
from typing import NamedTuple

import jax
from jax._src import clusters, distributed
from jax.experimental import io_callback
from jax.sharding import AxisType

shard_map = jax.shard_map
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

# `client` (the coordination service's), `process_id` and `num_processes`: `jax.process_index()` and
# `jax.process_count()` would start the devices.
coordination = distributed.global_state

__all__ = ["AxisType", "coordination", "detect_cluster", "enable_x64", "io_callback", "libtpu_version", "shard_map"]


def libtpu_version() -> tuple[int, ...]:
    """Returns the version of the installed compiler for TPUs, such as (0, 0, 42, 1), or (99,) if its package is not."""
    try:
        return tuple(int(part) for part in re.findall(r"\d+", metadata.version("libtpu")))
    except metadata.PackageNotFoundError:
        return (99,)


class Cluster(NamedTuple):
    """The cluster that `jax.distributed.initialize` detects; None where it detects nothing."""

    address: str | None
    processes: int | None
    process: int | None
    local_devices: list[int] | None


def detect_cluster(seconds: int) -> Cluster:
    """Detects the cluster that started this process; waits at most so many seconds."""
    nothing = (None, None, None, None)
    return Cluster(*clusters.ClusterEnv.auto_detect_unset_distributed_params(*nothing, None, seconds))
