"""Attention kernels that ship with JAX, on this device's rows and heads; `attention_backends.py` picks and places them.

Each takes `(query_BTNH, key_BTGH, value_BTGH, segment_BT)` and returns `[B, T, N, H]` like `packed_attention`. With
`interpret=True` it is emulated on any platform, slowly.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from nft_jax.types import Array

# Rows are padded to a multiple of its tiles, or to one tile, if shorter, of a multiple of the lanes.
SPLASH_TILE, SPLASH_LANES = 512, 128
TRITON_TILE = 128
# The name under which the backward pass may find an attention's output, and with splash the sums that it needs.
KEPT = "attention"


def splash(
    query_BTNH: Array, key_BTGH: Array, value_BTGH: Array, segment_BT: Array, *, interpret: bool = False
) -> Array:
    """Packed rows on TPUs: `jax.experimental.pallas.ops.tpu.splash_attention`; blocks after the query's are skipped."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    T = query_BTNH.shape[1]
    tile = min(SPLASH_TILE, -(-T // SPLASH_LANES) * SPLASH_LANES)

    def kernel(query_BTNH, key_BTGH, value_BTGH, segment_BT):
        length, N, H = query_BTNH.shape[1:]
        row = _splash_of_row(length, N, tile, interpret)
        query_BTNH = query_BTNH * jnp.asarray(H**-0.5, query_BTNH.dtype)
        arrays = (jnp.swapaxes(x, 1, 2) for x in (query_BTNH, key_BTGH, value_BTGH))
        out_BNTH = jax.vmap(row)(*arrays, splash_attention.SegmentIds(segment_BT, segment_BT))
        return jnp.swapaxes(out_BNTH, 1, 2)

    return _in_tiles(kernel, tile)(query_BTNH, key_BTGH, value_BTGH, segment_BT)


@functools.lru_cache
def _splash_of_row(T, N, tile, interpret):
    """Cached, with arrays rather than tracers: to list the blocks of a long row takes seconds."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    with jax.ensure_compile_time_eval():
        return splash_attention.make_splash_mha(
            splash_attention.MultiHeadMask([splash_attention.CausalMask((T, T))] * N),
            block_sizes=splash_attention.BlockSizes(*[tile] * 8),
            head_shards=1,
            q_seq_shards=1,
            residual_checkpoint_name=KEPT,
            interpret=interpret,
        )


def triton(
    query_BTNH: Array, key_BTGH: Array, value_BTGH: Array, segment_BT: Array, *, interpret: bool = False
) -> Array:
    """Packed rows on GPUs: `jax.experimental.pallas.ops.gpu.attention.mha`, which wants keys for each query head."""
    with warnings.catch_warnings():
        # Later versions of JAX deprecate the module in favour of another library.
        warnings.simplefilter("ignore", DeprecationWarning)
        from jax.experimental.pallas.ops.gpu.attention import BlockSizes, mha

    sizes = BlockSizes.get_default()
    if query_BTNH.dtype != jnp.float32:
        # Half again as fast on an H200 as with the default of 32; in float32 they may be more than it has room for.
        backward = ("block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")
        sizes = dataclasses.replace(sizes, **dict.fromkeys(backward, 64))

    def kernel(query_BTNH, key_BTGH, value_BTGH, segment_BT):
        N, H = query_BTNH.shape[2:]
        key_BTNH, value_BTNH = (jnp.repeat(x, N // x.shape[2], axis=2) for x in (key_BTGH, value_BTGH))
        how = {"sm_scale": H**-0.5, "causal": True, "block_sizes": sizes, "interpret": interpret}
        return checkpoint_name(mha(query_BTNH, key_BTNH, value_BTNH, segment_BT, **how), KEPT)

    return _in_tiles(kernel, TRITON_TILE)(query_BTNH, key_BTGH, value_BTGH, segment_BT)


def cudnn(
    query_BTNH: Array, key_BTGH: Array, value_BTGH: Array, segment_BT: Array, *, interpret: bool = False
) -> Array:
    """One sequence a row, then padding (segment −1), on GPUs: cuDNN's flash attention; 0 at the padding."""
    real_BT = segment_BT >= 0
    length_B = jnp.sum(real_BT.astype(jnp.int32), axis=1)
    out_BTNH = jax.nn.dot_product_attention(
        *(query_BTNH, key_BTGH, value_BTGH),
        is_causal=True,
        query_seq_lengths=length_B,
        key_value_seq_lengths=length_B,
        implementation="xla" if interpret else "cudnn",
    )
    return jnp.where(real_BT[:, :, None, None], out_BTNH, jnp.zeros((), out_BTNH.dtype))


def _in_tiles(kernel: Callable, tile: int) -> Callable:
    """The kernel for rows of any length: padded to a multiple of `tile` with a segment that no real token sees."""

    def padded(query_BTNH, key_BTGH, value_BTGH, segment_BT):
        T = query_BTNH.shape[1]
        tail = ((0, 0), (0, -T % tile))
        arrays = (jnp.pad(x, (*tail, (0, 0), (0, 0))) for x in (query_BTNH, key_BTGH, value_BTGH))
        call = kernel if query_BTNH.dtype == jnp.float32 else _in_one_pass(kernel)
        return call(*arrays, jnp.pad(segment_BT, tail, constant_values=-2))[:, :T]

    return padded


def _in_one_pass(kernel: Callable) -> Callable:
    """The kernel with products in one pass of 16-bit numbers, which Mosaic refuses to multiply in any other way.

    A rule for its gradient of our own, because the backward pass is traced where the caller's precision holds.
    """
    in_one_pass = functools.partial(jax.default_matmul_precision, "default")

    @jax.custom_vjp
    def call(*operands):
        with in_one_pass():
            return kernel(*operands)

    def forward(*operands):
        with in_one_pass():
            return jax.vjp(kernel, *operands)

    def backward(pull, gradient):
        with in_one_pass():
            return pull(gradient)

    call.defvjp(forward, backward)
    return call
