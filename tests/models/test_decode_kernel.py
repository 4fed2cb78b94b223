"""The decode loop's attention kernel for GPUs against plain XLA, in emulation; where it is selected; its lowering."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.decoding import decode_on_shards
from nft_jax.config import ModelConfig
from nft_jax.models import attention_backends, decode_kernel
from nft_jax.models.attention import decode_attention
from nft_jax.models.cache import Cache
from nft_jax.parallel.mesh import make_mesh

# Layers, blocks, slots, key-value heads, head size, columns of a block, query heads.
SHAPES = {
    "several blocks": (2, 3, 4, 2, 64, 96, 14),
    "one block": (1, 1, 4, 2, 128, 64, 12),
    "columns that no tile divides": (3, 1, 4, 1, 32, 72, 5),
}


def operands(layers, blocks, slots, kv_heads, head_size, columns, heads):
    keys = jax.random.split(jax.random.key(0), 4)
    front = layers, blocks, slots, kv_heads
    key = jax.random.normal(keys[0], (*front, head_size, columns), jnp.bfloat16)
    value = jax.random.normal(keys[1], (*front, columns, head_size), jnp.bfloat16)
    query = jax.random.normal(keys[2], (slots, heads, head_size), jnp.bfloat16)
    column = jax.random.randint(keys[3], (slots,), 0, blocks * columns).at[0].set(0).at[1].set(blocks * columns - 1)
    return query, column, Cache((key,), (value,)), 0, jnp.int32(layers - 1)


def close(found, expected):
    found, expected = (np.asarray(x, np.float32) for x in (found, expected))
    np.testing.assert_allclose(found, expected, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("name", SHAPES)
def test_decode_attention_kernel_agrees_with_xla(name):
    given = operands(*SHAPES[name])
    close(decode_kernel.decode_attention(*given, interpret=True), decode_attention(*given))


def test_decode_attention_ignores_columns_after_the_slots_own():
    query, column, cache, stack, layer = operands(*SHAPES["several blocks"])
    place = np.arange(3)[:, None] * 96 + np.arange(96)
    dead = place[:, None] > np.asarray(column)[None, :, None]
    key = jnp.where(dead[None, :, :, None, None, :], 7.0, cache.key_ZLYSGHW[0]).astype(jnp.bfloat16)
    value = jnp.where(dead[None, :, :, None, :, None], 7.0, cache.value_ZLYSGWH[0]).astype(jnp.bfloat16)
    attend = functools.partial(decode_kernel.decode_attention, query, column, interpret=True)
    changed = attend(Cache((key,), (value,)), stack, layer)
    np.testing.assert_array_equal(attend(cache, stack, layer).astype(jnp.float32), changed.astype(jnp.float32))


def test_decode_attention_inside_a_data_shard_with_heads_over_tensor():
    mesh = make_mesh(data=4, tensor=2)
    query, column, cache, stack, layer = operands(*SHAPES["several blocks"])
    attend = attention_backends.select_attention(
        ModelConfig(head_size=64, attention="triton", dtype="bfloat16"), mesh, interpret=True
    ).decode
    assert attend is not decode_attention
    found = decode_on_shards(attend, mesh, query, column, cache, stack, layer)
    close(found, decode_attention(query, column, cache, stack, layer))


@pytest.mark.parametrize(
    ("attention", "dtype", "head_size", "taken"),
    [
        ("cudnn", "bfloat16", 64, True),
        ("triton", "float16", 128, True),
        ("triton", "float32", 64, False),
        ("triton", "bfloat16", 80, False),
        ("xla", "bfloat16", 64, False),
        ("splash", "bfloat16", 64, False),
    ],
)
def test_select_attention_takes_the_decode_kernel_where_supported(attention, dtype, head_size, taken):
    config = ModelConfig(attention=attention, dtype=dtype, head_size=head_size)
    picked = attention_backends.select_attention(config, make_mesh(data=1, devices=jax.devices()[:1]), interpret=True)
    assert (picked.decode is not decode_attention) == taken


@pytest.mark.parametrize("name", SHAPES)
def test_decode_attention_lowers_for_cuda(h100, name):
    query, column, cache, _, layer = operands(*SHAPES[name])
    attend = jax.jit(lambda *given: decode_kernel.decode_attention(*given[:3], 0, given[3]))
    text = attend.trace(query, column, cache, layer).lower(lowering_platforms=("cuda",)).as_text()
    assert "__gpu$xla.gpu.triton" in text
