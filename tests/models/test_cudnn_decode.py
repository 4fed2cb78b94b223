"""The decode loop's attention by cuDNN against XLA's, in emulation: alone, on a mesh, in an engine; its lowering."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import engines
from helpers.decoding import decode_on_shards
from helpers.small_parts import MODEL, VOCABULARY, one_device
from nft_jax.models import attention_backends, cudnn_decode, transformer
from nft_jax.models.attention import decode_attention
from nft_jax.models.cache import Cache, block_columns
from nft_jax.parallel.mesh import make_mesh

# Layers, slots, key-value heads, head size, columns, query heads.
SHAPES = {
    "seven queries a head": (1, 5, 2, 64, 96, 14),
    "one query a head": (1, 4, 3, 8, 40, 3),
    "one head of keys, layers stacked": (3, 4, 1, 128, 72, 6),
}


def operands(layers, slots, kv_heads, head_size, columns, heads, dtype="bfloat16"):
    """Slots with one live column, as free ones have, with all, and with any number."""
    random = np.random.default_rng(0)
    front = layers, 1, slots, kv_heads
    shapes = (slots, heads, head_size), (*front, head_size, columns), (*front, columns, head_size)
    query, key, value = (jnp.asarray(random.normal(size=shape), dtype) for shape in shapes)
    column_S = jnp.asarray([0, columns - 1, *random.integers(0, columns, slots - 2)], jnp.int32)
    return query, column_S, Cache((key,), (value,)), 0, jnp.int32(layers - 1)


def gap(found, expected):
    """The largest difference over the largest value."""
    found, expected = (np.asarray(x, np.float32) for x in (found, expected))
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.fixture(autouse=True)
def _promote():
    """Inside jax.nn, what stands in for cuDNN promotes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 1e-2), ("float32", 1e-5)])
@pytest.mark.parametrize("name", SHAPES)
def test_decode_attention_by_cudnn_agrees_with_xla(name, dtype, most):
    given = operands(*SHAPES[name], dtype)
    with jax.default_matmul_precision("highest"):
        found = cudnn_decode.decode_attention(*given, interpret=True)
        assert gap(found, decode_attention(*given)) < most
    assert found.dtype == dtype
    assert found.shape == given[0].shape


def test_decode_attention_by_cudnn_ignores_columns_after_the_slots_own():
    query, column_S, cache, stack, layer = operands(*SHAPES["seven queries a head"])
    dead_SW = np.arange(cache.columns)[None] > np.asarray(column_S)[:, None]
    key = jnp.where(dead_SW[None, None, :, None, None, :], 7, cache.key_ZLYSGHW[0])
    value = jnp.where(dead_SW[None, None, :, None, :, None], 7, cache.value_ZLYSGWH[0])
    changed = Cache((key.astype("bfloat16"),), (value.astype("bfloat16"),))
    first, second = (
        cudnn_decode.decode_attention(query, column_S, one, stack, layer, interpret=True) for one in (cache, changed)
    )
    np.testing.assert_array_equal(first.astype(jnp.float32), second.astype(jnp.float32))


def select(mesh, **settings):
    config = dataclasses.replace(MODEL, attention="cudnn_only", dtype="bfloat16", **settings)
    return attention_backends.select_attention(config, mesh, interpret=True)


def test_decode_attention_by_cudnn_inside_a_data_shard_with_heads_over_tensor():
    mesh = make_mesh(data=4, tensor=2)
    query, column_S, cache, stack, layer = operands(1, 4, 2, 64, 96, 14)
    attend = select(mesh, heads=14, kv_heads=2, head_size=64).decode
    expected = decode_attention(query, column_S, cache, stack, layer)
    assert gap(decode_on_shards(attend, mesh, query, column_S, cache, stack, layer), expected) < 1e-2


@pytest.mark.parametrize("slots", [4, 23])
def test_answers_by_cudnn_are_those_of_xla(slots, monkeypatch):
    """An engine in float32: prompts of other lengths, slots that are free, filled again and halved."""
    # A backend's decode alone, so that answers stay equal to those of another.
    by_cudnn = dataclasses.replace(
        attention_backends.XLA,
        decode=lambda *operands: cudnn_decode.decode_attention(*operands, interpret=True),
        token_major=True,
    )
    settings = {"slots": slots, "max_halvings": 2}
    expected = engines.sampler(one_device(), **settings)(engines.WEIGHTS, engines.requests())
    abstract = transformer.abstract_model
    monkeypatch.setattr(transformer, "abstract_model", lambda *given: abstract(*given, by_cudnn))
    # Several blocks in the cache of another attention, one in this one's.
    monkeypatch.setattr("nft_jax.models.cache.MIN_COLUMNS", 4)
    found = engines.sampler(one_device(), **settings)(engines.WEIGHTS, engines.requests())
    np.testing.assert_array_equal(found.token_BT, expected.token_BT)
    np.testing.assert_allclose(found.logp_BT, expected.logp_BT, rtol=0, atol=1e-5)


def test_the_cache_is_one_block_of_as_many_columns_as_tokens():
    model = transformer.bind(*transformer.abstract_model(MODEL, VOCABULARY, select(one_device()))[:2])
    assert model.block_columns(1000) == 1000
    assert block_columns(1000) < 1000


def test_decode_attention_by_cudnn_lowers_for_cuda_with_keys_as_they_are(monkeypatch):
    # Lowering, unlike compiling, needs neither a GPU nor cuDNN.
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    query, column_S, cache, _, layer = operands(*SHAPES["seven queries a head"])
    attend = jax.jit(lambda *given: cudnn_decode.decode_attention(*given[:3], 0, given[3]))
    text = attend.trace(query, column_S, cache, layer).lower(lowering_platforms=("cuda",)).as_text()
    (types,) = re.findall(r"custom_call @__cudnn\$fmhaSoftmax\(.*?: \((.*?)\) ->", text)
    lengths = ["tensor<5xi32>"] * 2
    assert types.split(", ") == ["tensor<5x1x14x64xbf16>", *["tensor<5x96x2x64xbf16>"] * 2, *lengths]
    assert r"mask_type\22: \22PADDING\22" in text
