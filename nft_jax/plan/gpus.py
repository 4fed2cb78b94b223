"""GPUs to compile for. The compiler of JAX's CUDA plugin needs no GPU."""

import importlib.util
import re
from importlib import metadata
from typing import Any, NamedTuple

import jax

from nft_jax.machine.chips import CHIPS, Chip

PLUGINS = {"jax-cuda13-plugin": "13", "jax-cuda12-plugin": "12"}
# GPUs of a machine, or machines x GPUs of each.
_SHAPE = re.compile("[1-9][0-9]{0,3}(x[1-9][0-9]?)?")
_KIB = 1024


class Properties(NamedTuple):
    """What the compiler wants to know of a GPU beside its data sheet, as CUDA's device query states it.

    Attributes:
      capability: CUDA's compute capability.
      cores: Streaming multiprocessors.
      units: FP32 units of a core.
      threads: Threads that a core holds.
      shared, largest_shared: KiB of shared memory of a core, and those that one block can ask for.
      cache: KiB of the level-2 cache.
      clock: GHz at most.
    """

    capability: str
    cores: int
    units: int
    threads: int
    shared: int
    largest_shared: int
    cache: int
    clock: float


PROPERTIES = {
    "t4": Properties("7.5", 40, 64, 1024, 64, 64, 4096, 1.59),
    "a100": Properties("8.0", 108, 64, 2048, 164, 163, 40960, 1.41),
    "l4": Properties("8.9", 58, 128, 1536, 100, 99, 49152, 2.04),
    "h100": Properties("9.0", 132, 128, 2048, 228, 227, 51200, 1.98),
    "h200": Properties("9.0", 132, 128, 2048, 228, 227, 51200, 1.98),
}


def find_gpus(name: str) -> list[jax.Device]:
    """Returns GPUs such as "h100:8", eight of one machine, or "h100:4x8", four such machines.

    Raises:
      ValueError: For another shape, or if JAX's plugin for CUDA is not installed.
    """
    short, _, shape = name.partition(":")
    if not _SHAPE.fullmatch(shape):
        raise ValueError(
            f"--topology={name}: write the GPUs of a machine, such as {short}:8, or machines and the GPUs of each, "
            f"such as {short}:4x8"
        )
    plugin = cuda_plugin()
    if plugin is None:
        raise ValueError(
            f"--topology={name}: this needs the compiler of JAX's plugin for CUDA (but no GPU): "
            f"pip install -e .[cuda12]"
        )
    # Otherwise JAX starts the GPUs of this machine, or complains that there are none.
    jax.config.update("jax_platforms", "cpu")
    chip = next(chip for chip in CHIPS if chip.name == short)
    described = describe_gpu(chip, PLUGINS[plugin])
    machines, gpus = (["1", *shape.split("x")])[-2:]
    return describe_devices(name, "cuda", plugin, target_config=described, topology=f"1x{machines}x{gpus}")


def describe_devices(name: str, platform: str, compiler: str, **options: Any) -> list[jax.Device]:
    """Returns the devices of a topology, of which none need be present.

    Raises:
      ValueError: If the platform's compiler does not know it.
    """
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(name, platform, **options).devices)
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        raise ValueError(f"--topology={name}: {compiler} refuses this: {error}") from error


def cuda_plugin() -> str | None:
    """Returns the name of the installed package with JAX's compiler for GPUs; None if there is none."""
    return next((name for name in PLUGINS if importlib.util.find_spec(name.replace("-", "_"))), None)


def describe_gpu(chip: Chip, cuda: str) -> str:
    """Describes a GPU as the compiler's `GpuTargetConfigProto`, in its text form; `cuda` is CUDA's major version."""
    gpu = PROPERTIES[chip.name]
    major, minor = gpu.capability.split(".")
    try:
        cudnn = metadata.version(f"nvidia-cudnn-cu{cuda}").split(".")
    except metadata.PackageNotFoundError:
        cudnn = ["9", "8"]
    return f"""
        gpu_device_info {{
          threads_per_block_limit: 1024
          threads_per_warp: 32
          shared_memory_per_block: {48 * _KIB}
          shared_memory_per_block_optin: {gpu.largest_shared * _KIB}
          shared_memory_per_core: {gpu.shared * _KIB}
          threads_per_core_limit: {gpu.threads}
          core_count: {gpu.cores}
          fpus_per_core: {gpu.units}
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
          memory_bandwidth: {int(chip.bandwidth)}
          l2_cache_size: {gpu.cache * _KIB}
          clock_rate_ghz: {gpu.clock}
          device_memory_size: {int(chip.memory)}
          cuda_compute_capability {{ major: {major} minor: {minor} }}
          registers_per_core_limit: 65536
          registers_per_block_limit: 65536
        }}
        platform_name: "CUDA"
        runtime_version {{ major: {cuda} }}
        dnn_version_info {{ major: {cudnn[0]} minor: {cudnn[1]} }}
        device_description_str: "{chip.kind}"
    """
