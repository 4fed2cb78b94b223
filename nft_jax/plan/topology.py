"""Devices to compile for: TPU slices, whose compiler in libtpu needs no TPU, and GPUs (`gpus.py`)."""

import importlib.util
import os
import re

import jax

from nft_jax.machine.chips import CHIPS
from nft_jax.names import suggestion
from nft_jax.plan.gpus import PROPERTIES, describe_devices, find_gpus

# The two cores of a v4 chip are one device.
CHIP_OPTIONS = {"v4": {"chip_config_name": "megacore"}}
_SHAPE = re.compile("[1-9][0-9]{0,3}(x[1-9][0-9]{0,3}){0,2}")


def find_devices(name: str, slices: int = 1) -> list[jax.Device]:
    """Returns the devices of `slices` slices such as "v5e:8x8", or GPUs such as "h100:8".

    Raises:
      ValueError: If the compiler is not installed, or does not know the topology.
    """
    known = [chip.name for chip in CHIPS]
    chip, _, shape = name.partition(":")
    if chip not in known or (chip not in PROPERTIES and not _SHAPE.fullmatch(shape)):
        raise ValueError(
            f"--topology={name}: write a chip and a shape, such as v5e:8x8, v5p:4x4x4 or h100:8; chips: "
            f"{', '.join(known)}{suggestion(chip, known)}"
        )
    if slices < 1 or (slices > 1 and chip in PROPERTIES):
        raise ValueError(f"--slices={slices}: use 1 or more for TPUs, and 1 for GPUs, as in h100:4x8 for four machines")
    if chip in PROPERTIES:
        return find_gpus(name)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"--topology={name}: this needs the compiler of libtpu (but no TPU), in the version that JAX pins: "
            f"pip install -e .[tpu]"
        )
    _prepare_libtpu()
    options = CHIP_OPTIONS.get(chip, {}) | ({"num_slices": slices} if slices > 1 else {})
    if set(shape) == {"1", "x"}:
        # A machine with one chip, such as a v5e-1. By default libtpu assumes four chips a host.
        options = options | {"chips_per_host_bounds": (1, 1, 1)}
    return describe_devices(name, "tpu", f"libtpu, for --slices={slices},", **options)


def _prepare_libtpu() -> None:
    # libtpu ends the process if XLA_FLAGS has a flag that it does not know; jaxlib reads its own flags first.
    jax.devices("cpu")
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "xla_cpu" not in flag]
    os.environ["XLA_FLAGS"] = " ".join(flags)
    # Outside a TPU VM no metadata server answers, and another process may hold the library's lock.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
