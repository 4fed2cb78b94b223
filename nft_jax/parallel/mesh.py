"""The one place that builds a device mesh, and that knows what is manual in the `shard_map` of a data shard."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from nft_jax.compat import AxisType, shard_map

DATA, TENSOR = "data", "tensor"


def make_mesh(data: int = -1, tensor: int = 1, devices: list[jax.Device] | None = None) -> Mesh:
    """Arranges devices as a mesh `(data, tensor)`; `data = -1` takes all devices that `tensor` leaves.

    Devices keep JAX's own order, so that a tensor group stays on one host. All axes are `AxisType.Auto`: the program
    relies on sharding constraints and on partly automatic `shard_map`, which Explicit axes refuse.

    Raises:
      ValueError: when the sizes don't fit the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if data == -1:
        if tensor < 1 or count % tensor:
            fits = [n for n in range(1, count + 1) if count % n == 0]
            raise ValueError(f"mesh.tensor={tensor} does not divide the {count} devices present; use one of {fits}")
        data = count // tensor
    if data < 1 or tensor < 1 or data * tensor > count:
        raise ValueError(
            f"mesh.data={data} × mesh.tensor={tensor} needs {data * tensor} devices, but {count} are present; "
            f"use mesh.data=-1 to take what is there"
        )
    grid = np.asarray(devices[: data * tensor], dtype=object).reshape(data, tensor)
    return Mesh(grid, (DATA, TENSOR), axis_types=(AxisType.Auto, AxisType.Auto))


def shard_axes(mesh: Mesh) -> set[str]:
    """The axes over which a `shard_map` of data shards is manual: `data`, and `tensor` where it splits nothing.

    A callback or a kernel in it wants all axes manual, and nesting for an axis of size 1 crashes XLA's partitioner.
    """
    return {DATA} if mesh.shape[TENSOR] > 1 else {DATA, TENSOR}


def over_tensor(function: Callable, mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable:
    """`function` on each device of a data shard, inside a `shard_map` that is manual over `shard_axes`."""
    if TENSOR in shard_axes(mesh):
        return function
    # The mesh is the context's, in which `data` is manual already.
    return shard_map(function, axis_names={TENSOR}, in_specs=in_specs, out_specs=out_specs, check_vma=False)
