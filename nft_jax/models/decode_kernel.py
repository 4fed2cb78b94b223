"""The decode loop's attention on GPUs: a Pallas kernel for Triton that reads only live columns, directly in the cache.

It computes the same as `attention.decode_attention`. XLA instead copies each block of a layer out of the cache before
it multiplies, which moves the bytes three times, and asks the host at every block of every layer whether the next one
is live. A cache of another dtype (`cache.py`) also needs its dequantization here, in `_kernel`.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from nft_jax.models.attention import MASK_VALUE
from nft_jax.models.cache import Cache
from nft_jax.models.kernel_blocks import MIN_ROWS, DecodeBlocks, choose_decode_blocks
from nft_jax.types import Array

WARPS = 4


def is_supported(dtype: str, head_size: int) -> bool:
    """Returns whether the kernel supports this cache dtype and head size."""
    return dtype in ("bfloat16", "float16") and head_size >= 16 and head_size.bit_count() == 1


def decode_attention(
    query_SNH: Array,
    column_S: Array,
    cache: Cache,
    stack: int,
    layer: Array,
    blocks: DecodeBlocks | None = None,
    *,
    interpret: bool = False,
) -> Array:
    """Computes `attention.decode_attention`, each slot over its live columns only.

    Without `blocks` it takes the largest, which not every GPU holds. `interpret` emulates the kernel on any platform.
    """
    key_LYSGHW, value_LYSGWH = cache.key_ZLYSGHW[stack], cache.value_ZLYSGWH[stack]
    S, N, H = query_SNH.shape
    G = key_LYSGHW.shape[3]
    blocks = blocks or choose_decode_blocks(H, N // G)
    query_SGRH = (query_SNH * jnp.asarray(H**-0.5, query_SNH.dtype)).reshape(S, G, N // G, H)
    of_program = pl.BlockSpec((None, None, N // G, H), lambda s, g: (s, g, 0, 0))
    whole = [pl.BlockSpec(x.shape, lambda s, g, rank=x.ndim: (0,) * rank) for x in (key_LYSGHW, value_LYSGWH)]
    call = pl.pallas_call(
        functools.partial(_kernel, blocks.columns),
        grid=(S, G),
        in_specs=[of_program, pl.BlockSpec((None,), lambda s, g: (s,)), pl.BlockSpec((), lambda s, g: ()), *whole],
        out_specs=of_program,
        out_shape=jax.ShapeDtypeStruct(query_SGRH.shape, query_SNH.dtype),
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=blocks.stages),
        interpret=interpret,
        name="decode_attention",
    )
    # The operands have 16 bits, so the precision that the caller sets for other products does not apply.
    with jax.default_matmul_precision("default"):
        return call(query_SGRH, column_S, layer, key_LYSGHW, value_LYSGWH).reshape(S, N, H)


def _kernel(columns, query_ref, column_ref, layer_ref, key_ref, value_ref, out_ref):
    """Attends from the queries of one slot that share keys to its columns, at most `columns` in one product."""
    (R, H), W = query_ref.shape, key_ref.shape[-1]
    slot, group, layer, column = pl.program_id(0), pl.program_id(1), layer_ref[()], column_ref[()]
    rows = max(MIN_ROWS, pl.next_power_of_2(R))
    row_RH = jnp.arange(rows)[:, None] < R
    # JAX 0.12 refuses a span that it can see is too long, although the mask leaves out what is too much.
    span_R = pl.ds(jnp.asarray(0), rows)
    query_RH = triton.load(query_ref.at[span_R, :], mask=row_RH, other=0.0)
    width = next((width for width in (columns, 32, 16) if W % width == 0), columns)
    tiles = pl.cdiv(W, width)  # of a block

    def load_columns(ref, place, mask):
        # A mask along the densest axis makes Triton load element by element, so dead columns are read too.
        return ref[place] if W % width == 0 else triton.load(ref.at[place], mask=mask, other=0.0)

    def add(tile, carry):
        out_RH, largest_R, total_R = carry
        block, start = jax.lax.div(tile, tiles), jax.lax.rem(tile, tiles) * width
        place_W, span, of_slot = start + jnp.arange(width), pl.ds(start, width), (layer, block, slot, group)
        inside_W, live_W = place_W < W, (place_W < W) & (block * W + place_W <= column)
        key_HW = load_columns(key_ref, (*of_slot, slice(None), span), inside_W[None])
        value_WH = load_columns(value_ref, (*of_slot, span, slice(None)), inside_W[:, None])
        score_RW = jnp.where(live_W[None], triton.dot(query_RH, key_HW), MASK_VALUE)
        new_largest_R = jnp.maximum(largest_R, jnp.max(score_RW, axis=1))
        shrink_R, weight_RW = jnp.exp(largest_R - new_largest_R), jnp.exp(score_RW - new_largest_R[:, None])
        out_RH = out_RH * shrink_R[:, None] + triton.dot(weight_RW.astype(value_WH.dtype), value_WH)
        return out_RH, new_largest_R, total_R * shrink_R + jnp.sum(weight_RW, axis=1)

    live_tiles = jax.lax.div(column, W) * tiles + jax.lax.div(jax.lax.rem(column, W), width) + 1
    nothing = jnp.zeros((rows, H), jnp.float32), jnp.full(rows, MASK_VALUE, jnp.float32), jnp.zeros(rows, jnp.float32)
    out_RH, _, total_R = jax.lax.fori_loop(0, live_tiles, add, nothing)
    out_RH = (out_RH / total_R[:, None]).astype(out_ref.dtype)
    triton.store(out_ref.at[span_R, :], out_RH, mask=row_RH)
