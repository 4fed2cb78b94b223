"""The blocks of the GPU kernels: what they need, what is chosen for a GPU, and that each computes what XLA computes."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import assert_close
from nft_jax.models import attention_kernels, decode_kernel, kernel_blocks
from nft_jax.models.attention import decode_attention, packed_attention
from nft_jax.models.cache import Cache
from nft_jax.models.kernel_blocks import Blocks, DecodeBlocks, Gpu

GPUS = [Gpu(int(name.partition(".")[0]), kib * 1024) for name, kib in kernel_blocks.SHARED_KIB.items()]
HEADS = (8, 16, 24, 32, 64, 80, 96, 128, 192, 256, 512, 1024)


@pytest.mark.parametrize("gpu", sorted({*GPUS, Gpu(8, 48 * 1024)}), ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_chosen_blocks_fit_and_divide_the_tile(gpu, dtype):
    for head_size in HEADS:
        blocks = kernel_blocks.choose_blocks(head_size, dtype, gpu)
        if blocks is None:
            smallest = kernel_blocks.FORWARD[-1], kernel_blocks.BACKWARD[-1]
            needs = (
                kernel_blocks.forward_bytes(*smallest[0], head_size, dtype, gpu.generation),
                kernel_blocks.backward_bytes(smallest[1], head_size, dtype, gpu.generation),
            )
            too_wide = smallest[1] * head_size > kernel_blocks.LARGEST_SUM
            assert max(needs) > gpu.shared or too_wide
            continue
        queries, keys, backward = blocks
        assert kernel_blocks.forward_bytes(queries, keys, head_size, dtype, gpu.generation) <= gpu.shared
        assert kernel_blocks.backward_bytes(backward, head_size, dtype, gpu.generation) <= gpu.shared
        assert all(attention_kernels.TRITON_TILE % size == 0 for size in blocks)
        assert min(blocks) >= kernel_blocks.MIN_ROWS
        assert backward * head_size <= kernel_blocks.LARGEST_SUM


@pytest.mark.parametrize("gpu", GPUS, ids=str)
@pytest.mark.parametrize("group", [1, 7, 16, 48, 128])
def test_chosen_blocks_of_decoding_fit(gpu, group):
    rows = max(kernel_blocks.MIN_ROWS, 1 << (group - 1).bit_length())
    for head_size in (16, 32, 64, 128, 256, 512):
        blocks = kernel_blocks.choose_decode_blocks(head_size, group, gpu)
        needs = kernel_blocks.decode_bytes(*(blocks or kernel_blocks.DECODE[-1]), rows, head_size, gpu.generation)
        assert (needs <= gpu.shared) == (blocks is not None)


def test_every_gpu_holds_blocks_of_published_heads_in_16_bits():
    for gpu in GPUS:
        for head_size in (16, 32, 64, 96, 128, 256):
            assert kernel_blocks.choose_blocks(head_size, "bfloat16", gpu)
            assert kernel_blocks.choose_decode_blocks(head_size, 16, gpu)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("head_size", [64, 128])
@pytest.mark.parametrize("capability", ["8.0", "9.0"])
def test_blocks_that_were_measured_are_kept(capability, head_size, dtype):
    gpu = kernel_blocks.describe_gpu(types.SimpleNamespace(compute_capability=capability))
    assert kernel_blocks.choose_blocks(head_size, dtype, gpu) == Blocks(128, 128, 64)
    assert kernel_blocks.choose_decode_blocks(head_size, 7, gpu) == DecodeBlocks(64, 4)


def test_describe_gpu_prefers_what_jax_states():
    stated = types.SimpleNamespace(compute_capability="8.0", shared_memory_per_block_optin=5000)
    assert kernel_blocks.describe_gpu(stated) == Gpu(8, 5000)
    for capability, expected in (
        ("8.0", Gpu(8, 163 * 1024)),
        ("12.0", Gpu(12, 99 * 1024)),
        ("13.7", Gpu(13, 99 * 1024)),
    ):
        assert kernel_blocks.describe_gpu(types.SimpleNamespace(compute_capability=capability)) == expected


@pytest.mark.parametrize(
    ("pair", "backward"), list(zip(kernel_blocks.FORWARD, [64, 32, 64, 32, 64], strict=True)), ids=str
)
def test_attention_in_each_block_size_agrees_with_xla(pair, backward):
    B, T, N, G, H = 1, 256, 2, 1, 16
    keys = jax.random.split(jax.random.key(0), 4)
    operands = [jax.random.normal(key, (B, T, heads, H)) for key, heads in zip(keys, (N, G, G), strict=False)]
    mix_BTNH = jax.random.normal(keys[3], (B, T, N, H))
    segment_BT = np.repeat([0, 1, -1], [90, 150, 16])[None].astype(np.int32)

    def value_and_gradients(attend):
        def objective(*operands):
            out_BTNH = jnp.where(segment_BT[..., None, None] >= 0, attend(*operands, segment_BT), 0)
            return jnp.sum(out_BTNH * mix_BTNH), out_BTNH

        with jax.default_matmul_precision("highest"):
            gradients, out_BTNH = jax.jit(jax.grad(objective, argnums=(0, 1, 2), has_aux=True))(*operands)
        return [out_BTNH, *gradients]

    blocks = Blocks(*pair, backward)
    found = value_and_gradients(lambda *given: attention_kernels.triton(*given, blocks, interpret=True))
    assert_close(found, value_and_gradients(packed_attention), 1e-5)


# Emulation has no stages.
@pytest.mark.parametrize("blocks", [*{columns: (columns, stages) for columns, stages in kernel_blocks.DECODE}.values()])
def test_decoding_in_each_block_size_agrees_with_xla(blocks):
    layers, places, slots, kv_heads, head_size, columns, heads = 1, 2, 4, 1, 16, 64, 3
    keys = jax.random.split(jax.random.key(0), 3)
    front = layers, places, slots, kv_heads
    key = jax.random.normal(keys[0], (*front, head_size, columns), jnp.bfloat16)
    value = jax.random.normal(keys[1], (*front, columns, head_size), jnp.bfloat16)
    query = jax.random.normal(keys[2], (slots, heads, head_size), jnp.bfloat16)
    given = query, jnp.asarray([0, 40, 64, 127]), Cache((key,), (value,)), 0, jnp.int32(0)
    found = decode_kernel.decode_attention(*given, DecodeBlocks(*blocks), interpret=True)
    expected = np.asarray(decode_attention(*given), np.float32)
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=1e-2 * np.abs(expected).max())
