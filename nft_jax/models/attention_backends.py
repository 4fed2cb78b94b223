"""Which attention a model runs over rows of tokens: one choice by configuration, platform and dtype."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, PartitionSpec

from nft_jax.compat import shard_map
from nft_jax.config import ModelConfig
from nft_jax.models import attention_kernels, decode_kernel
from nft_jax.models.attention import decode_attention, packed_attention
from nft_jax.parallel.mesh import DATA, TENSOR, over_tensor

PLATFORM = {"xla": None, "splash": "tpu", "triton": "gpu", "cudnn": "gpu"}
DTYPES = {"splash": ("float32", "bfloat16"), "cudnn": ("bfloat16", "float16")}
# What cuDNN takes on every GPU that it supports.
CUDNN_HEADS = range(8, 129, 8)


@dataclass(frozen=True)
class AttentionBackend:
    """Two functions `(query_BTNH, key_BTGH, value_BTGH, segment_BT) -> out_BTNH`, and what they are, in words.

    `rows` takes packed rows, outside of any `shard_map`. `prompts` takes rows of one sequence each, padding behind it,
    inside the `shard_map` of the rollout. So does `decode`, which has the arguments of `attention.decode_attention`.
    """

    name: str
    rows: Callable
    prompts: Callable
    decode: Callable = decode_attention


def _xla(*operands):
    return checkpoint_name(packed_attention(*operands), attention_kernels.KEPT)


XLA = AttentionBackend("xla", _xla, _xla)


def select_attention(config: ModelConfig, mesh: Mesh, *, interpret: bool = False) -> AttentionBackend:
    """The attention that `config.attention` names, or the platform's own for "auto".

    `interpret` emulates a kernel on any platform, slowly.

    Raises:
      ValueError: when the platform of the mesh, the dtype or the head size is none that the kernel can have.
    """
    platform = mesh.devices.flat[0].platform
    name = _automatic(config, platform) if config.attention == "auto" else config.attention
    if fault := _fault(name, config, None if interpret else platform):
        raise ValueError(fault)
    if name == "xla":
        return XLA
    rows = attention_kernels.triton if name == "cudnn" else getattr(attention_kernels, name)
    prompts = getattr(attention_kernels, name)
    return AttentionBackend(
        "triton for packed rows, cudnn for prompts" if name == "cudnn" else name,
        _of_all(functools.partial(rows, interpret=interpret), mesh),
        _of_shard(functools.partial(prompts, interpret=interpret), mesh),
        _decode(config, mesh, interpret) if PLATFORM[name] == "gpu" else decode_attention,
    )


def _automatic(config, platform):
    best = {"tpu": ("splash",), "gpu": ("cudnn", "triton")}.get(platform, ())
    for name in best:
        # Float32 on a GPU goes to XLA, whose products are as precise as `config.precision` says.
        if not _fault(name, config, platform) and not (platform == "gpu" and config.dtype == "float32"):
            return name
    return "xla"


def _fault(name, config, platform):
    """Why it can't run, in a sentence, or nothing; `platform` None is any."""
    needed = PLATFORM[name]
    if needed and platform not in (None, needed):
        return (
            f"config.model.attention={name!r} runs on a {needed.upper()}, and the mesh's devices are {platform}; "
            f"use 'auto', or 'xla', which runs everywhere"
        )
    dtypes = DTYPES.get(name, (config.dtype,))
    if config.dtype not in dtypes:
        return (
            f"config.model.attention={name!r} computes in {' or '.join(dtypes)}, not in config.model.dtype="
            f"{config.dtype!r}; use one of these, or attention='auto'"
        )
    if name == "cudnn" and config.head_size not in CUDNN_HEADS:
        return (
            f"config.model.attention='cudnn' takes heads of a multiple of 8 up to 128, not config.model.head_size="
            f"{config.head_size}; use attention='auto'"
        )
    return None


def _of_all(kernel, mesh):
    """Over a replica: rows split over data shards, heads over `tensor`. No compiler splits a kernel by itself."""
    row, segment = PartitionSpec(DATA, None, TENSOR), PartitionSpec(DATA)
    return shard_map(kernel, mesh=mesh, in_specs=(row, row, row, segment), out_specs=row, check_vma=False)


def _of_shard(kernel, mesh):
    """Inside a data shard: heads split over `tensor`."""
    head, whole = PartitionSpec(None, None, TENSOR), PartitionSpec()
    return over_tensor(kernel, mesh, in_specs=(head, head, head, whole), out_specs=head)


def _decode(config, mesh, interpret):
    """Inside a data shard: the kernel, with the heads of queries and cache split over `tensor`, where it can be had."""
    if not decode_kernel.is_supported(config.dtype, config.head_size):
        return decode_attention
    heads, room, whole = PartitionSpec(None, TENSOR), PartitionSpec(None, None, None, TENSOR), PartitionSpec()

    def attend(query_SNH, column_S, cache, stack, layer):
        def kernel(query_SNH, column_S, cache, layer):
            return decode_kernel.decode_attention(query_SNH, column_S, cache, stack, layer, interpret=interpret)

        split = over_tensor(kernel, mesh, in_specs=(heads, whole, room, whole), out_specs=heads)
        return split(query_SNH, column_S, cache, layer)

    return attend
