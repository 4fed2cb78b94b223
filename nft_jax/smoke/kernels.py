"""Compares each attention kernel of the platform with XLA, over the whole mesh."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from nft_jax.compat import shard_map
from nft_jax.experiment import Experiment
from nft_jax.models import attention_backends
from nft_jax.models.attention import PromptKeys, decode_attention, packed_attention
from nft_jax.models.cache import Cache
from nft_jax.parallel.mesh import SHARDS, shard_axes, shard_count
from nft_jax.smoke.result import CheckFailure

TOKENS, ROWS = 1024, 2  # rows of a shard and their tokens
SLOTS, BLOCKS = 4, (2, 96)  # slots of a shard; blocks of the cache and their columns
# Allowed share of the largest value. A kernel may multiply float32 in fewer bits than XLA; a wrong mask is off by 1.
TOLERANCE = {"float32": 1e-2, "bfloat16": 5e-2}


def platform_kernels(experiment: Experiment) -> list[str]:
    """Returns the names of the platform's kernels: those that `auto` may choose, and the one of the config."""
    found = attention_backends.find_kernels(experiment.model.mesh.devices.flat[0])
    return [
        name for name in found if name not in attention_backends.NEVER_RUN or name == experiment.config.model.attention
    ]


def check_kernel(name: str, experiment: Experiment) -> str:
    """Checks a kernel's outputs of packed rows, prompts and decoding, and the gradients of rows, in each dtype.

    Raises:
      CheckFailure: if it differs from XLA.
    """
    worst = largest_differences(name, experiment)
    gaps = ", ".join(f"{dtype} {gap:.1e}" for dtype, gap in worst.items())
    if not all(gap <= TOLERANCE[dtype] for dtype, gap in worst.items()):
        raise CheckFailure(f"differs from XLA, relative to the largest value: {gaps}; allowed: {TOLERANCE}")
    return f"rows, their gradients, prompts and decoding agree with XLA, relative to the largest value: {gaps}"


def largest_differences(
    name: str, experiment: Experiment, *, interpret: bool = False, tokens: int = TOKENS
) -> dict[str, float]:
    """Returns, by dtype, the largest difference from XLA over the largest value; `interpret` emulates the kernel."""
    programs = comparisons(name, experiment, interpret=interpret, tokens=tokens)
    return {dtype: max(float(gap) for gap in program()) for dtype, program in programs.items()}


def comparisons(
    name: str, experiment: Experiment, *, interpret: bool = False, tokens: int = TOKENS
) -> dict[str, Callable]:
    """Returns, by dtype, a jitted function without arguments that returns the differences."""
    mesh, programs = experiment.model.mesh, {}
    for dtype in sorted({*attention_backends.DTYPES.get(name, TOLERANCE)} & TOLERANCE.keys()):
        model = dataclasses.replace(experiment.config.model, attention=name, dtype=dtype)
        attention = attention_backends.select_attention(model, mesh, interpret=interpret)
        differ = functools.partial(_differences, attention, model, mesh, tokens)
        programs[dtype] = jax.jit(differ, out_shardings=experiment.model.whole)
    return programs


def _differences(attention, model, mesh, tokens):
    """Returns the largest differences of outputs, gradients, prompts and decoding, each over the largest value.

    Rows are alone, and, if the kernel takes it, after a prompt of which each row sees another part.
    """
    count, heads = ROWS * shard_count(mesh), (model.heads, model.kv_heads, model.kv_heads)
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(count, tokens, number, model.head_size) for number in (*heads, model.heads)]
    *operands, mix = (jax.random.normal(key, shape, model.dtype) for key, shape in zip(keys, shapes, strict=True))
    place_T, row_B = jnp.arange(tokens), jnp.arange(count)[:, None]
    # A token, three segments and padding, with other ends in each row; then one segment and padding.
    ends = 1, tokens // 4 - row_B % 16, tokens // 2, tokens * 3 // 4 - row_B % 16
    packed_BT = sum((place_T[None] >= end).astype(jnp.int32) for end in ends)
    packed_BT = jnp.where(packed_BT < len(ends), packed_BT, -1)
    prompt_BT = jnp.where(place_T[None] < tokens - 1 - row_B % 16, 0, -1).astype(jnp.int32)
    by_rows = PartitionSpec(SHARDS)
    placed = {"mesh": mesh, "axis_names": shard_axes(mesh), "in_specs": (by_rows,) * 4, "out_specs": by_rows}
    prompts = shard_map(lambda *operands: attention.prompts(*operands), **placed, check_vma=False)

    def rows(query, key, value, segment_BT, *prompt):
        return attention.rows(query, key, value, attention.describe(segment_BT), *prompt)

    def outputs(attend, segment_BT, *seen_B):
        def objective(*operands):
            # Every second key is the prompt's too, so that the gradient passes through both.
            prompt = [PromptKeys(*(x[:, ::2] for x in operands[1:]), seen) for seen in seen_B]
            out_BTNH = jnp.where(segment_BT[..., None, None] >= 0, attend(*operands, segment_BT, *prompt), 0)
            return jnp.sum(out_BTNH.astype(jnp.float32) * mix.astype(jnp.float32)), out_BTNH

        gradients, out_BTNH = jax.grad(objective, argnums=(0, 1, 2), has_aux=True)(*operands)
        return [out_BTNH, *gradients]

    def masked(out_BTNH):
        return jnp.where(prompt_BT[..., None, None] >= 0, out_BTNH, 0)

    with jax.default_matmul_precision("highest"):
        actual = [*outputs(rows, packed_BT), masked(prompts(*operands, prompt_BT))]
        expected = [*outputs(packed_attention, packed_BT), masked(packed_attention(*operands, prompt_BT))]
        if not attention.takes_no_prompts:
            seen_B = row_B[:, 0] * 40 % (tokens // 2 + 1)
            for outs, attend in ((actual, rows), (expected, packed_attention)):
                outs.extend(outputs(attend, packed_BT, seen_B))
        for outs, attend in ((actual, attention.decode), (expected, decode_attention)):
            outs.append(_decode(attend, model, mesh, (1, math.prod(BLOCKS)) if attention.token_major else BLOCKS))
    pairs = [tuple(x.astype(jnp.float32) for x in pair) for pair in zip(actual, expected, strict=True)]
    # Maxima over devices, and Python's, may leave NaN out.
    gaps = [(jnp.where(jnp.isnan(one), jnp.inf, jnp.abs(one - other)), jnp.abs(other)) for one, other in pairs]
    return [jnp.max(gap) / jnp.max(size) for gap, size in gaps]


def _decode(attend, model, mesh, blocks=BLOCKS):
    """Decodes one query a slot over a cache of one layer; slots have from one column to all of them."""
    S, (Y, W) = SLOTS * shard_count(mesh), blocks
    front, H = (1, Y, S, model.kv_heads), model.head_size
    shapes = (S, model.heads, H), (*front, H, W), (*front, W, H)
    keys = jax.random.split(jax.random.key(1), len(shapes))
    query_SNH, key, value = (
        jax.random.normal(key, shape, model.dtype) for key, shape in zip(keys, shapes, strict=True)
    )
    column_S = jnp.arange(S, dtype=jnp.int32) * (Y * W - 1) // (S - 1)
    slots, room, whole = PartitionSpec(SHARDS), PartitionSpec(None, None, SHARDS), PartitionSpec()
    of_shards = shard_map(
        lambda query, column, cache, layer: attend(query, column, cache, 0, layer),
        mesh=mesh,
        axis_names=shard_axes(mesh),
        in_specs=(slots, slots, room, whole),
        out_specs=slots,
        check_vma=False,
    )
    return of_shards(query_SNH, column_S, Cache((key,), (value,)), jnp.int32(0))
