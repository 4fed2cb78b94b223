"""Names whose module differs between the supported versions of JAX (0.10.2 to 0.12)."""

import contextlib
import contextvars
import inspect
import re
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any, NamedTuple, get_args

import jax
import numpy as np
from jax._src import clusters, distributed
from jax.experimental import io_callback as call_host
from jax.sharding import AxisType

shard_map = jax.shard_map
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

# `client` (the coordination service's), `process_id` and `num_processes`: `jax.process_index()` and
# `jax.process_count()` would start the devices.
coordination = distributed.global_state

__all__ = [
    "AxisType",
    "coordination",
    "detect_cluster",
    "enable_x64",
    "has_splash_gradient",
    "io_callback",
    "libtpu_version",
    "plan_for_gpus",
    "shard_map",
    "splash_gradient",
]

_GPUS_ARE_PLANNED = contextvars.ContextVar("_GPUS_ARE_PLANNED", default=False)


@contextlib.contextmanager
def plan_for_gpus() -> Iterator[None]:
    """Lets a program with callbacks compile for GPUs that are not present; such a program can't run."""
    token = _GPUS_ARE_PLANNED.set(True)
    try:
        yield
    finally:
        _GPUS_ARE_PLANNED.reset(token)


def io_callback(function: Callable, shapes: Any, *operands: jax.Array) -> Any:
    """Calls a Python function from a compiled program, in no fixed order.

    For GPUs, JAX's own looks for a running device when it lowers the call. Within `plan_for_gpus` the program gets the
    same call without a function.
    """
    if not _GPUS_ARE_PLANNED.get():
        return call_host(function, shapes, *operands, ordered=False)
    leaves, tree = jax.tree.flatten(shapes)
    call = jax.ffi.ffi_call("xla_ffi_python_gpu_callback", tuple(leaves), has_side_effect=True)
    return jax.tree.unflatten(tree, call(*operands, index=np.uint64(0)))


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


def has_splash_gradient() -> bool:
    """Returns whether `splash_gradient` can be called: JAX keeps this part of splash attention private."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    if not hasattr(splash, "_splash_attention_bwd") or not hasattr(splash, "SplashResidualsType"):
        return False
    # Beside what a kernel object keeps in `kwargs`, it takes query, key, value, segments, sinks, output, log-sum-exp,
    # and the masks of both passes.
    options = "save_residuals mask_value is_mqa block_sizes residual_checkpoint_name mask_function"
    names = {*options.split(), "attn_logits_soft_cap", "interpret", "res", "do"}
    same = inspect.signature(splash._splash_attention_bwd).parameters.keys() == names
    return same and len(get_args(splash.SplashResidualsType)) == 9


def splash_gradient(kernel: Any, query_NTH, key_GCH, value_GCH, segments, out_NTH, lse_NT, gradient_NTH) -> tuple:
    """Returns the gradients of a splash kernel's query, key and value, given those of its output.

    Unlike the kernel's own rule, output and log-sum-exp may be those of a softmax over more keys than the kernel's.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    residuals = (query_NTH, key_GCH, value_GCH, segments, None, out_NTH, lse_NT)
    masks = kernel.dq_mask_info, kernel.dkv_mask_info
    gradients = splash._splash_attention_bwd(**kernel.kwargs, res=(*residuals, *masks), do=gradient_NTH)
    return gradients[3:6]
