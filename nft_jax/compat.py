"""Names whose module differs between the supported versions of JAX (0.10.2 to 0.12)."""

import contextlib
import contextvars
import inspect
import re
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
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
    "CudnnSequences",
    "coordination",
    "cudnn_attention",
    "cudnn_gradient",
    "detect_cluster",
    "enable_x64",
    "has_cudnn_attention",
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


class CudnnSequences(NamedTuple):
    """The sequences that `cudnn_attention` reads in B rows: one from each row's first token on, or M times B.

    Attributes:
      query_length, key_length: int32 `[B]` or `[B, M]`, their tokens; 0 if they are not in use.
      query_offset, key_offset: int32 `[B, M + 1]`, of which the first B · M + 1 are read: how many numbers lie before
        each sequence in the queries and in the keys; None without M.
    """

    query_length: jax.Array
    key_length: jax.Array
    query_offset: jax.Array | None
    key_offset: jax.Array | None


_CUDNN_OPERANDS = "query key value bias q_seqlen kv_seqlen q_offsets kv_offsets page_table_k page_table_v"
_CUDNN_OPTIONS = "scale seed dropout_rate variadic_args mask_type layout sliding_window_length"
_CUDNN_OTHERS = {"fwd": "is_training", "bwd": "activation fwd_output grad_output"}
# A function of the scores: new in JAX 0.12.
_CUDNN_SCORES = ("score_mod_name", "score_mod_jaxpr")


def has_cudnn_attention() -> bool:
    """Returns whether `cudnn_attention` and `cudnn_gradient` can be called: JAX keeps their primitives private."""
    try:
        found = {direction: _cudnn_parameters(direction) for direction in _CUDNN_OTHERS}
    except (ImportError, AttributeError):
        return False
    return all(
        found[direction] - {"ctx", "score_mod_args", *_CUDNN_SCORES}
        == set(f"{_CUDNN_OPERANDS} {_CUDNN_OPTIONS} {others}".split())
        for direction, others in _CUDNN_OTHERS.items()
    )


def cudnn_attention(query_BTNH, key_BCGH, value_BCGH, sequences: CudnnSequences, *, causal: bool) -> tuple:
    """Attends inside each sequence by cuDNN, with scores over √H; returns the output and its log-sum-exp `[S, N, T]`.

    Queries of a sequence come first in its row of the log-sum-exp. What belongs to no sequence is left unwritten.

    JAX's own function takes the offsets of the queries for those of fewer keys too, in 0.10.2; it does not in 0.11.2.
    """
    return _bind_cudnn("fwd", (query_BTNH, key_BCGH, value_BCGH), sequences, (), causal, is_training=True)


def cudnn_gradient(
    query_BTNH, key_BCGH, value_BCGH, sequences: CudnnSequences, lse_SNT, out_BTNH, gradient_BTNH, *, causal: bool
) -> tuple:
    """Returns the gradients of query, key and value, given that of the output.

    Output and log-sum-exp may be those of a softmax over more keys than these.
    """
    others = lse_SNT, out_BTNH, gradient_BTNH
    return _bind_cudnn("bwd", (query_BTNH, key_BCGH, value_BCGH), sequences, others, causal)


def _bind_cudnn(direction, operands, sequences, others, causal, **options):
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    # Stands for the bias and for the tables of pages, and for offsets.
    nothing = jnp.zeros(0, operands[0].dtype)
    lengths, offsets = sequences[:2], [nothing if x is None else x for x in sequences[2:]]
    options |= {
        "scale": operands[0].shape[-1] ** -0.5,
        "seed": 0,
        "dropout_rate": 0.0,
        "variadic_args": (False, False),
        "mask_type": cudnn.MaskType.PADDING_CAUSAL if causal else cudnn.MaskType.PADDING,
        "layout": cudnn.AttentionLayout.BTNH.value,
        "sliding_window_length": None,
    }
    options |= dict.fromkeys(_cudnn_parameters(direction).intersection(_CUDNN_SCORES))
    primitive = getattr(cudnn, f"_dot_product_attention_{direction}_p")
    return tuple(primitive.bind(*operands, nothing, *lengths, *offsets, nothing, nothing, *others, **options))


def _cudnn_parameters(direction):
    """Returns the names of a primitive's operands and options, as its lowering for CUDA takes them."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    return set(inspect.signature(getattr(cudnn, f"_dot_product_attention_{direction}_cuda_lowering")).parameters)
