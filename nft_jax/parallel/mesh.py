"""The one place that builds a device mesh."""

import jax
import numpy as np
from jax.sharding import Mesh

from nft_jax.compat import AxisType

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
