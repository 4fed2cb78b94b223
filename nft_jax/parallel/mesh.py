"""The device mesh, and the axes that are manual in the `shard_map` of a data shard."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from nft_jax.compat import AxisType, shard_map

REPLICA, DATA, TENSOR = "replica", "data", "tensor"
# Rows are split over these. Weights are whole on each replica, and split over its `data` and `tensor` axes.
SHARDS = (REPLICA, DATA)


def make_mesh(data: int = -1, tensor: int = 1, devices: list[jax.Device] | None = None, replica: int = 1) -> Mesh:
    """Arranges devices as a mesh `(replica, data, tensor)`; `data = -1` takes all devices that the others leave.

    Devices keep JAX's own order, so that a tensor group stays on one host; those of several TPU slices are taken slice
    by slice, so that only the replica axis crosses the network between slices. All axes are `AxisType.Auto`: the
    program relies on sharding constraints and on partly automatic `shard_map`, which Explicit axes refuse.

    Raises:
      ValueError: when the sizes don't fit the number of devices, or replicas would share slices.
    """
    devices = jax.devices() if devices is None else devices
    count, given = len(devices), f"mesh.replica={replica} × mesh.tensor={tensor}"
    if data == -1:
        if min(replica, tensor) < 1 or count % (replica * tensor):
            fits = [n for n in range(1, count + 1) if count % n == 0]
            raise ValueError(f"{given} does not divide the {count} devices present; use a product among {fits}")
        data = count // (replica * tensor)
    used = replica * data * tensor
    if min(replica, data, tensor) < 1 or used > count:
        raise ValueError(
            f"{given} × mesh.data={data} needs {used} devices, but {count} are present; use mesh.data=-1 to take all "
            f"that the others leave"
        )
    devices = _by_slice(devices, replica, used)
    grid = np.asarray(devices[:used], dtype=object).reshape(replica, data, tensor)
    return Mesh(grid, (REPLICA, DATA, TENSOR), axis_types=(AxisType.Auto,) * 3)


def _by_slice(devices, replica, used):
    """Orders the devices by TPU slice, where there are several."""
    slices = sorted({getattr(device, "slice_index", 0) for device in devices})
    if len(slices) == 1:
        return devices
    if replica % len(slices) or used < len(devices):
        raise ValueError(
            f"mesh.replica={replica} on {len(slices)} slices of {len(devices) // len(slices)} devices: weights would "
            f"be gathered between slices at each layer; use mesh.replica={len(slices)} or a multiple, and all devices"
        )
    return sorted(devices, key=lambda device: device.slice_index)


def describe_mesh(mesh: Mesh) -> str:
    """Returns the axes with their sizes, in words."""
    return " × ".join(f"{name} {size}" for name, size in mesh.shape.items())


def shard_count(mesh: Mesh) -> int:
    """Counts the data shards of all replicas: the parts into which rows are split."""
    return mesh.shape[REPLICA] * mesh.shape[DATA]


def tensor_groups_are_local(mesh: Mesh) -> bool:
    """Returns whether the devices of each data shard belong to one process."""
    groups = mesh.devices.reshape(-1, mesh.shape[TENSOR])
    return all(len({device.process_index for device in group}) == 1 for group in groups)


def shard_axes(mesh: Mesh) -> set[str]:
    """Returns the axes over which a `shard_map` of data shards is manual: `SHARDS`, and `tensor` if its size is 1.

    Callbacks and kernels need all axes manual, and a nested `shard_map` over an axis of size 1 crashes XLA's
    partitioner.
    """
    return {*SHARDS} if mesh.shape[TENSOR] > 1 else {*SHARDS, TENSOR}


def map_tensor(function: Callable, mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable:
    """Maps `function` over the devices of a data shard, inside a `shard_map` that is manual over `shard_axes`."""
    if TENSOR in shard_axes(mesh):
        return function
    # The mesh is the context's, in which the other axes are manual already.
    return shard_map(function, axis_names={TENSOR}, in_specs=in_specs, out_specs=out_specs, check_vma=False)
