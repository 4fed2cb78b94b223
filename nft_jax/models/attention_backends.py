"""The choice of attention implementation, by configuration, platform, dtype and head size.

`attention.py` has the one in XLA; `attention_kernels.py`, `decode_kernel.py` and `cudnn_decode.py` have the kernels. A
new implementation gets a function in `attention_kernels.py`, a line in `PLATFORM`, and its limits in
`_unsupported_reason`.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, PartitionSpec

from nft_jax.compat import has_cudnn_attention, has_splash_gradient, shard_map
from nft_jax.config import ModelConfig
from nft_jax.config.sizes import PACKED_BY_CUDNN
from nft_jax.models import attention_kernels, cudnn_decode, decode_kernel
from nft_jax.models.attention import PromptKeys, decode_attention, packed_attention
from nft_jax.models.cache import axis_orders
from nft_jax.models.kernel_blocks import choose_blocks, choose_decode_blocks, describe_gpu
from nft_jax.parallel.mesh import DATA, TENSOR, map_tensor

PLATFORM = {"xla": None, "splash": "tpu", "triton": "gpu", "cudnn": "gpu"} | dict.fromkeys(PACKED_BY_CUDNN, "gpu")
_BY_CUDNN = ("cudnn", *PACKED_BY_CUDNN)
DTYPES = {"splash": ("float32", "bfloat16"), **dict.fromkeys(_BY_CUDNN, ("bfloat16", "float16"))}
# Those that no GPU has run: the smoke test checks them only where the config asks for them.
NEVER_RUN = PACKED_BY_CUDNN
# The head sizes that cuDNN supports on every GPU it runs on.
CUDNN_HEADS = range(8, 129, 8)


def _keep_segments(segment_BT):
    return segment_BT


@dataclasses.dataclass(frozen=True)
class AttentionBackend:
    """The attention functions of a model.

    Attributes:
      name: The implementation, in words.
      rows: `(query_BTNH, key_BTGH, value_BTGH, segments) -> out_BTNH` for packed rows, outside of any `shard_map`.
        XLA's also takes prompts and windows, as `attention.packed_attention`, and those of splash and cuDNN prompts.
      prompts: The same for rows of one sequence each, followed by padding, inside the `shard_map` of the rollout.
      decode: A function with the arguments of `attention.decode_attention`, inside the same `shard_map`.
      describe: `segment_BT -> segments`, what `rows` takes for them; computed once for all layers.
      takes_no_prompts: Why `rows` takes no prompts, so that each row must hold its own; empty if it takes them.
      token_major: Whether `decode` wants a slot's cache as one block, the numbers of each token's head side by side.
    """

    name: str
    rows: Callable
    prompts: Callable
    decode: Callable = decode_attention
    describe: Callable = _keep_segments
    takes_no_prompts: str = ""
    token_major: bool = False


def _xla_attention(*operands):
    return checkpoint_name(packed_attention(*operands), attention_kernels.CHECKPOINT_NAME)


XLA = AttentionBackend("xla", _xla_attention, _xla_attention)


def select_attention(config: ModelConfig, mesh: Mesh, *, interpret: bool = False) -> AttentionBackend:
    """Returns the attention that `config.attention` names, or the platform's best one for "auto".

    `interpret` emulates a kernel on any platform, slowly.

    Raises:
      ValueError: if the kernel does not support the mesh's platform, the dtype or the head size.
    """
    device = mesh.devices.flat[0]
    automatic = config.attention == "auto"
    name = ("xla" if config.bitwise else _best_for(device, config)) if automatic else config.attention
    if reason := _unsupported_reason(name, config, None if interpret else device):
        raise ValueError(reason)
    decode = _select_xla_decode(config, mesh)
    if name == "xla":
        return dataclasses.replace(XLA, decode=decode)
    if name == "splash":
        splash = functools.partial(attention_kernels.splash, interpret=interpret)
        by_rows, by_heads = _map_over_mesh(splash, mesh), _map_over_heads(splash, mesh)
        return AttentionBackend(name, by_rows, by_heads, decode, takes_no_prompts=_no_prompts_reason(name))
    gpu = describe_gpu(device) if device.platform == "gpu" and not interpret else None
    blocks = choose_blocks(config.head_size, config.dtype, gpu)
    triton = functools.partial(attention_kernels.triton, blocks=blocks, interpret=interpret)
    cudnn = functools.partial(attention_kernels.cudnn, interpret=interpret)
    packed = functools.partial(attention_kernels.cudnn_packed, interpret=interpret)
    described, rows, prompts, describe = {
        "triton": ("triton", triton, triton, _keep_segments),
        "cudnn": ("triton for packed rows, cudnn for prompts", triton, cudnn, _keep_segments),
        "cudnn_packed": ("cudnn for packed rows and prompts", packed, cudnn, _find_spans(mesh)),
        "cudnn_only": ("cudnn for packed rows, prompts and decoding", packed, cudnn, _find_spans(mesh)),
    }[name]
    decodes = name == "cudnn_only"
    return AttentionBackend(
        described,
        _map_over_mesh(rows, mesh),
        _map_over_heads(prompts, mesh),
        _select_decode(config, mesh, gpu, interpret, by_cudnn=decodes),
        describe,
        _no_prompts_reason(name),
        token_major=decodes,
    )


def find_kernels(device: jax.Device) -> list[str]:
    """Returns the names of the kernels that run on a device."""
    names = [name for name, platform in PLATFORM.items() if platform == device.platform]
    return [name for name in names if device.platform != "gpu" or not _gpu_reason(name, device)]


def runs_triton(gpu: jax.Device) -> bool:
    """Returns whether Triton compiles for a GPU: not for those before Ampere, such as a T4."""
    return float(gpu.compute_capability) >= 8


def _best_for(device, config):
    """Returns the fastest supported implementation for a device."""
    for name in {"tpu": ("splash",), "gpu": ("cudnn", "triton")}.get(device.platform, ()):
        # In float32, GPUs use XLA, whose products have the precision that `config.precision` asks for.
        if not _unsupported_reason(name, config, device) and (device.platform, config.dtype) != ("gpu", "float32"):
            return name
    return "xla"


def _unsupported_reason(name, config, device):
    """Returns why the implementation does not support the config, or None; `device` None stands for any."""
    needed = PLATFORM[name]
    if needed and device is not None and device.platform != needed:
        return (
            f"config.model.attention={name!r} runs on a {needed.upper()}, and the mesh's devices are {device.platform};"
            f" use 'auto', or 'xla', which runs everywhere"
        )
    if needed == "gpu" and (reason := _gpu_reason(name, device)):
        return reason
    dtypes = DTYPES.get(name, (config.dtype,))
    if config.dtype not in dtypes:
        return (
            f"config.model.attention={name!r} computes in {' or '.join(dtypes)}, not in config.model.dtype="
            f"{config.dtype!r}; use one of these, or attention='auto'"
        )
    if config.window and name != "xla":
        return (
            f"config.model.attention={name!r} has no layers that attend over a window, and the model's window of "
            f"{config.window} tokens is shorter than a prompt with its answer; use 'auto' or 'xla'"
        )
    if name in _BY_CUDNN and config.head_size not in CUDNN_HEADS:
        return (
            f"config.model.attention={name!r} needs a head size that is a multiple of 8 up to 128, not "
            f"config.model.head_size={config.head_size}; use attention='auto'"
        )
    gpu = describe_gpu(device) if needed == "gpu" and device is not None else None
    if needed == "gpu" and not choose_blocks(config.head_size, config.dtype, gpu):
        kind = "any GPU" if device is None else device.device_kind
        return (
            f"config.model.attention={name!r} takes more shared memory or registers for heads of "
            f"config.model.head_size={config.head_size} in {config.dtype} than {kind} has; use 'auto' or 'xla'"
        )
    return None


def _gpu_reason(name, gpu):
    """Returns why a kernel runs neither on this GPU nor with this JAX, or None; `gpu` None stands for any."""
    if name not in PACKED_BY_CUDNN:
        if gpu is None or runs_triton(gpu):
            return None
        return (
            f"config.model.attention={name!r} needs Triton, and with it a GPU of compute capability 8.0 or newer, not "
            f"a {gpu.device_kind} ({gpu.compute_capability}); use 'auto' or 'xla'"
        )
    if gpu is not None and float(gpu.compute_capability) < 9:
        return (
            f"config.model.attention={name!r} needs a GPU of compute capability 9.0 or newer, such as an H100, "
            f"not a {gpu.device_kind} ({gpu.compute_capability}); use 'auto'"
        )
    if not has_cudnn_attention():
        return (
            f"config.model.attention={name!r} calls a part of JAX that jax {jax.__version__} does not have, or "
            f"in another form; use 'auto', 'cudnn' or 'triton'"
        )
    return None


def _no_prompts_reason(name):
    """Returns why a kernel's rows take no prompts, or an empty text."""
    if name in PACKED_BY_CUDNN:
        return ""
    if name != "splash":
        return "its kernel of packed rows is Triton's, which is not merged with a second one over prompts"
    return "" if has_splash_gradient() else f"jax {jax.__version__} has no such backward pass of splash attention"


def _find_spans(mesh):
    """Finds the sequences of each data shard's rows, as `attention_kernels.cudnn_packed` takes them."""
    by_rows = PartitionSpec(DATA)
    return shard_map(attention_kernels.cudnn_spans, mesh=mesh, in_specs=by_rows, out_specs=by_rows, check_vma=False)


def _map_over_mesh(kernel, mesh):
    """Splits rows over data shards and heads over `tensor`; the compiler does not split a kernel by itself."""
    row, whole = PartitionSpec(DATA, None, TENSOR), PartitionSpec(DATA)

    def attend(query_BTNH, key_BTGH, value_BTGH, segments, prompt=None, window=None):
        del window  # models with windows are refused
        operands = query_BTNH, key_BTGH, value_BTGH, segments
        operands += () if prompt is None else (prompt,)
        specs = (row, row, row, whole, PromptKeys(row, row, whole))[: len(operands)]
        return shard_map(kernel, mesh=mesh, in_specs=specs, out_specs=row, check_vma=False)(*operands)

    return attend


def _map_over_heads(kernel, mesh):
    """Splits heads over `tensor`, inside a data shard."""
    head, whole = PartitionSpec(None, None, TENSOR), PartitionSpec()
    return map_tensor(kernel, mesh, in_specs=(head, head, head, whole), out_specs=head)


def _select_xla_decode(config, mesh):
    """Returns XLA's attention over the cache, which on TPUs fixes the order in memory of what it reads."""
    platform = mesh.devices.flat[0].platform
    if platform != "tpu":
        return decode_attention
    orders = axis_orders(platform, config.kv_heads // mesh.shape[TENSOR], config.head_size)
    return functools.partial(decode_attention, orders=orders)


def _select_decode(config, mesh, gpu, interpret, *, by_cudnn):
    """Returns the decode kernel, with the heads of queries and cache split over `tensor`, or XLA's if unsupported."""
    if by_cudnn:
        decode = functools.partial(cudnn_decode.decode_attention, interpret=interpret)
    else:
        blocks = choose_decode_blocks(config.head_size, config.heads // config.kv_heads, gpu)
        if not decode_kernel.is_supported(config.dtype, config.head_size) or blocks is None:
            return decode_attention
        decode = functools.partial(decode_kernel.decode_attention, blocks=blocks, interpret=interpret)
    heads, caches, whole = PartitionSpec(None, TENSOR), PartitionSpec(None, None, None, TENSOR), PartitionSpec()

    def attend(query_SNH, column_S, cache, stack, layer):
        def kernel(query_SNH, column_S, cache, layer):
            return decode(query_SNH, column_S, cache, stack, layer)

        split = map_tensor(kernel, mesh, in_specs=(heads, whole, caches, whole), out_specs=heads)
        return split(query_SNH, column_S, cache, layer)

    return attend
