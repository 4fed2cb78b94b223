"""Wrappers of the attention kernels that ship with JAX, for the rows and heads of one device.

Each function takes `(query_BTNH, key_BTGH, value_BTGH, segment_BT)` and returns `[B, T, N, H]` like `packed_attention`.
`splash` and `cudnn_packed` take the rows' prompts too, and `cudnn_packed` what `cudnn_spans` makes of the segments.
`interpret=True` emulates the kernel on any platform, slowly. `attention_backends.py` selects and distributes them.
"""

import functools
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from nft_jax import compat
from nft_jax.config.sizes import PACKED_SEQUENCES
from nft_jax.models import cudnn_attention, cudnn_emulation
from nft_jax.models.attention import PromptKeys
from nft_jax.models.kernel_blocks import Blocks, choose_blocks
from nft_jax.models.merged_attention import Part, merged_attention
from nft_jax.rounding import round_up
from nft_jax.types import Array

# Rows are padded to a multiple of the tile. A row shorter than a tile is padded to a multiple of the lanes instead.
SPLASH_TILE, SPLASH_LANES = 512, 128
TRITON_TILE = 128
# The checkpoint name of an attention's output, and of the softmax sums that splash needs in the backward pass.
CHECKPOINT_NAME = "attention"


def splash(
    query_BTNH: Array,
    key_BTGH: Array,
    value_BTGH: Array,
    segment_BT: Array,
    prompt: PromptKeys | None = None,
    *,
    interpret: bool = False,
) -> Array:
    """Attends over packed rows on TPUs by `jax.experimental.pallas.ops.tpu.splash_attention`; skips future blocks.

    All segments of a row see its `prompt`, which segment numbers cannot express: a second call reads it.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention

    def kernel(query_BTNH, key_BTGH, value_BTGH, segment_BT, prompt):
        length, N, H = query_BTNH.shape[1:]
        query_BTNH = query_BTNH * jnp.asarray(H**-0.5, query_BTNH.dtype)
        query_BNTH, *keys = (jnp.swapaxes(x, 1, 2) for x in (query_BTNH, key_BTGH, value_BTGH))
        own = Part(*keys, splash_attention.SegmentIds(segment_BT, segment_BT))
        if prompt is None:
            out_BNTH = jax.vmap(_make_splash_kernel(length, length, N, interpret))(query_BNTH, *own)
        else:
            parts = own, _prompt_part(prompt, length)
            kernels = [
                _make_splash_kernel(length, part.key_BGCH.shape[2], N, interpret, causal=part is own, merged=True)
                for part in parts
            ]
            out_BNTH = merged_attention(kernels, query_BNTH, parts, CHECKPOINT_NAME)
        return jnp.swapaxes(out_BNTH, 1, 2)

    tile = _splash_tile(query_BTNH.shape[1])
    return _pad_to_tiles(kernel, tile)(query_BTNH, key_BTGH, value_BTGH, segment_BT, prompt)


def _prompt_part(prompt, queries):
    """Returns the keys of the rows' prompts, padded to tiles, in the form that `merged_attention` takes."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    B, P = prompt.key_BPGH.shape[:2]
    tail = ((0, 0), (0, 0), (0, -P % _splash_tile(P)), (0, 0))
    key, value = (jnp.pad(jnp.swapaxes(x, 1, 2), tail) for x in (prompt.key_BPGH, prompt.value_BPGH))
    hidden_BC = (jnp.arange(key.shape[2])[None] >= prompt.length_B[:, None]).astype(jnp.int32)
    return Part(key, value, splash_attention.SegmentIds(jnp.zeros((B, queries), jnp.int32), hidden_BC))


def _splash_tile(tokens):
    return min(SPLASH_TILE, round_up(tokens, SPLASH_LANES))


@functools.lru_cache
def _make_splash_kernel(T, C, N, interpret, *, causal=True, merged=False):
    """Makes the kernel of one row, from T queries to C keys; with its log-sum-exp, to be `merged` with another's.

    Cached, as arrays and not tracers, because listing the blocks takes seconds.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention

    mask = (splash_attention.CausalMask if causal else splash_attention.FullMask)((T, C))
    rows, columns = _splash_tile(T), _splash_tile(C)
    with jax.ensure_compile_time_eval():
        return splash_attention.make_splash_mha(
            splash_attention.MultiHeadMask([mask] * N),
            # Queries and keys of the forward pass, of that for keys and values, and of that for queries.
            block_sizes=splash_attention.BlockSizes(*[rows, columns, columns] * 2, rows, columns),
            head_shards=1,
            q_seq_shards=1,
            save_residuals=merged,
            residual_checkpoint_name=None if merged else CHECKPOINT_NAME,
            interpret=interpret,
        )


def triton(
    query_BTNH: Array,
    key_BTGH: Array,
    value_BTGH: Array,
    segment_BT: Array,
    blocks: Blocks | None = None,
    *,
    interpret: bool = False,
) -> Array:
    """Attends over packed rows on GPUs by `jax.experimental.pallas.ops.gpu.attention.mha`, which needs N key heads.

    Without `blocks` it takes the largest, which not every GPU holds.
    """
    with warnings.catch_warnings():
        # Later versions of JAX deprecate the module in favor of another library.
        warnings.simplefilter("ignore", DeprecationWarning)
        from jax.experimental.pallas.ops.gpu.attention import BlockSizes, mha

    queries, keys, backward = blocks or choose_blocks(query_BTNH.shape[-1], query_BTNH.dtype.name)
    sizes = BlockSizes(queries, keys, *[backward] * 4)

    def kernel(query_BTNH, key_BTGH, value_BTGH, segment_BT):
        N, H = query_BTNH.shape[2:]
        key_BTNH, value_BTNH = (jnp.repeat(x, N // x.shape[2], axis=2) for x in (key_BTGH, value_BTGH))
        options = {"sm_scale": H**-0.5, "causal": True, "block_sizes": sizes, "interpret": interpret}
        return checkpoint_name(mha(query_BTNH, key_BTNH, value_BTNH, segment_BT, **options), CHECKPOINT_NAME)

    return _pad_to_tiles(kernel, TRITON_TILE)(query_BTNH, key_BTGH, value_BTGH, segment_BT)


def cudnn(
    query_BTNH: Array, key_BTGH: Array, value_BTGH: Array, segment_BT: Array, *, interpret: bool = False
) -> Array:
    """Attends by cuDNN's flash attention on GPUs; each row is one sequence, then padding (segment −1), which gets 0."""
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


def cudnn_spans(segment_BT: Array) -> cudnn_attention.Spans:
    """Finds the segments of rows that hold `PACKED_SEQUENCES` each at most; `update.minibatches` packs no more."""
    return cudnn_attention.find_spans(segment_BT, segment_BT.shape[0] * PACKED_SEQUENCES)


def cudnn_packed(
    query_BTNH: Array,
    key_BTGH: Array,
    value_BTGH: Array,
    spans: cudnn_attention.Spans,
    prompt: PromptKeys | None = None,
    *,
    interpret: bool = False,
) -> Array:
    """Attends over packed rows by cuDNN, without repeated keys; needs a GPU of Hopper's generation or newer."""
    calls = cudnn_emulation if interpret else compat
    kernels = cudnn_attention.Kernels(calls.cudnn_attention, calls.cudnn_gradient)
    return cudnn_attention.attend_rows(query_BTNH, key_BTGH, value_BTGH, spans, prompt, kernels, CHECKPOINT_NAME)


def _pad_to_tiles(kernel: Callable, tile: int) -> Callable:
    """Extends a kernel to rows of any length, by padding to a multiple of `tile` that no real token sees."""

    def call(query_BTNH, key_BTGH, value_BTGH, segment_BT, *rest):
        T = query_BTNH.shape[1]
        tail = ((0, 0), (0, -T % tile))
        arrays = (jnp.pad(x, (*tail, (0, 0), (0, 0))) for x in (query_BTNH, key_BTGH, value_BTGH))
        run = kernel if query_BTNH.dtype == jnp.float32 else _use_one_pass(kernel)
        return run(*arrays, jnp.pad(segment_BT, tail, constant_values=-2), *rest)[:, :T]

    return call


def _use_one_pass(kernel: Callable) -> Callable:
    """Runs a kernel's products in one pass of 16-bit operands; Mosaic supports no other precision for them.

    The gradient has its own rule because the backward pass is traced under the caller's precision.
    """
    one_pass = functools.partial(jax.default_matmul_precision, "default")

    @jax.custom_vjp
    def call(*operands):
        with one_pass():
            return kernel(*operands)

    def forward(*operands):
        with one_pass():
            return jax.vjp(kernel, *operands)

    def backward(pull, gradient):
        with one_pass():
            return pull(gradient)

    call.defvjp(forward, backward)
    return call
