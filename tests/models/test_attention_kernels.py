"""The attention kernels against plain XLA, in emulation, and what they are lowered to."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from helpers.small_parts import EOS_IDS, MODEL, VOCABULARY, assert_close, lively_weights, random_prompts
from nft_jax.compat import shard_map
from nft_jax.config import RolloutConfig
from nft_jax.models import attention_backends, attention_kernels, transformer
from nft_jax.models.attention import packed_attention
from nft_jax.parallel.mesh import DATA, make_mesh, shard_axes
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.state import Requests
from nft_jax.types import Tokens

# The head size is not a power of two, and no tile divides the rows.
B, T, N, G, H = 4, 150, 4, 2, 24
MIX_BTNH = np.random.default_rng(1).normal(size=(B, T, N, H)).astype(np.float32)


def rows(*lengths):
    """Segments 0, 1, … of these lengths, then padding."""
    return np.repeat([*range(len(lengths)), -1], [*lengths, T - sum(lengths)]).astype(np.int32)


PACKED_BT = np.stack([rows(70, 1, 60), rows(150), rows(40, 40, 70), rows(129)])
PROMPT_BT = np.stack([rows(1), rows(150), rows(128), rows(77)])


def inputs(dtype="float32"):
    random = np.random.default_rng(0)
    return [jnp.asarray(random.normal(size=(B, T, heads, H)), dtype) for heads in (N, G, G)]


def mesh(data=2, tensor=2):
    return make_mesh(data, tensor, jax.devices()[: data * tensor])


def model(attention, dtype="float32", **changes):
    return dataclasses.replace(MODEL, attention=attention, dtype=dtype, heads=N, kv_heads=G, **changes)


def emulated(name, over, dtype="float32"):
    return attention_backends.select_attention(model(name, dtype, head_size=H), over, interpret=True)


def value_and_gradients(attend, segment_BT, operands):
    real_BT = segment_BT >= 0

    def objective(*operands):
        out_BTNH = attend(*operands, segment_BT)
        weighted = jnp.where(real_BT[..., None, None], out_BTNH.astype(jnp.float32) * MIX_BTNH, 0)
        return jnp.sum(weighted), jnp.where(real_BT[..., None, None], out_BTNH, 0)

    with jax.default_matmul_precision("highest"):
        gradients, out_BTNH = jax.jit(jax.grad(objective, argnums=(0, 1, 2), has_aux=True))(*operands)
    return [np.asarray(x, np.float32) for x in (out_BTNH, *gradients)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("name", ["splash", "triton"])
def test_attention_kernels_over_the_mesh_match_packed_attention(name, dtype, tolerance):
    found = value_and_gradients(emulated(name, mesh(), dtype).rows, PACKED_BT, inputs(dtype))
    expected = value_and_gradients(packed_attention, PACKED_BT, inputs(dtype))
    assert_close(found, expected, tolerance)


def of_shards(attend, over):
    by_rows = PartitionSpec(DATA)
    placed = {"in_specs": (by_rows,) * 4, "out_specs": by_rows, "check_vma": False}
    return jax.jit(shard_map(lambda *operands: attend(*operands), mesh=over, axis_names=shard_axes(over), **placed))


@pytest.mark.parametrize(("data", "tensor"), [(2, 2), (4, 1)])
@pytest.mark.parametrize("name", ["splash", "triton", "cudnn"])
def test_attention_kernels_inside_a_data_shard_match_packed_attention(name, data, tensor):
    over, real_BT, operands = mesh(data, tensor), PROMPT_BT >= 0, inputs("bfloat16")
    with jax.numpy_dtype_promotion("standard"):  # inside jax.nn, where it stands in for cuDNN
        found = of_shards(emulated(name, over, "bfloat16").prompts, over)(*operands, PROMPT_BT)
    found = np.asarray(found, np.float32)
    expected = np.asarray(packed_attention(*operands, PROMPT_BT), np.float32)
    np.testing.assert_allclose(found[real_BT], expected[real_BT], rtol=2e-2, atol=2e-2)
    assert np.all(np.isfinite(found)), "what lies behind a prompt is read again in the next layer"


def test_engine_reads_prompts_with_splash():
    over, Q, K = mesh(), 4, 2
    number_QK = np.arange(Q * K, dtype=np.uint32).reshape(Q, K)
    requests = Requests(
        random_prompts(0, Q),
        np.arange(Q, dtype=np.int32),
        number_QK,
        np.full((Q, K), 2, np.int32),
        np.ones((Q, K), bool),
    )
    _, _, axes = transformer.abstract_model(MODEL, VOCABULARY)

    def logp_BT(attention):
        graph, _, _ = transformer.abstract_model(MODEL, VOCABULARY, attention)
        engine = Engine(graph, axes, over, RolloutConfig(2), EOS_IDS, "float32", False)
        sample = jax.jit(lambda weights: engine(engine.sampling_weights(weights), requests, jax.random.key(0)).rollout)
        return sample(lively_weights(MODEL)).logp_BT

    splash = attention_backends.select_attention(dataclasses.replace(MODEL, attention="splash"), over, interpret=True)
    np.testing.assert_allclose(logp_BT(splash), logp_BT(attention_backends.XLA), atol=1e-5)


def test_cudnn_output_after_a_prompt_is_zero(monkeypatch):
    garbage_BTNH = np.where(PROMPT_BT[..., None, None] >= 0, 1, np.full((B, T, N, H), np.nan))
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *_, **__: jnp.asarray(garbage_BTNH, jnp.float32))
    assert np.all(attention_kernels.cudnn(*inputs(), PROMPT_BT)[PROMPT_BT < 0] == 0)


@pytest.mark.parametrize(
    ("name", "platform", "target"), [("splash", "tpu", "tpu_custom_call"), ("triton", "cuda", "triton")]
)
def test_attention_kernels_lower_for_their_platform_without_a_square_array(monkeypatch, h100, name, platform, target):
    # Lowering, unlike compiling, needs no device of the platform.
    monkeypatch.setitem(attention_backends.PLATFORM, name, "cpu")
    attend, length = attention_backends.select_attention(model(name, "bfloat16", head_size=H), mesh()).rows, 1024
    shapes = [jax.ShapeDtypeStruct((B, length, heads, H), jnp.bfloat16) for heads in (N, G, G)]

    def objective(query, key, value, segment_BT):
        return jnp.sum(attend(query, key, value, segment_BT).astype(jnp.float32))

    def lowered(attend):
        gradient = jax.jit(jax.grad(objective, argnums=(0, 1, 2)))
        traced = gradient.trace(*shapes, jax.ShapeDtypeStruct((B, length), jnp.int32))
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert target in lowered(attend)
    assert f"{length}x{length}x" not in lowered(attend)
    attend = packed_attention
    assert f"{length}x{length}x" in lowered(attend)


@pytest.mark.parametrize(("remat", "runs"), [("none", 1), ("attention", 1), ("full", 2), ("offload", 2)])
def test_remat_does_not_rerun_a_kept_attention(monkeypatch, remat, runs):
    monkeypatch.setitem(attention_backends.PLATFORM, "splash", "cpu")
    config = dataclasses.replace(MODEL, attention="splash", remat=remat)
    graph, weights, _ = transformer.abstract_model(
        config, VOCABULARY, attention_backends.select_attention(config, mesh())
    )
    tokens = Tokens(*[jax.ShapeDtypeStruct((B, T), jnp.int32)] * 3)
    gradient = jax.jit(jax.grad(lambda weights, tokens: jnp.sum(transformer.bind(graph, weights)(tokens))))
    text = gradient.trace(weights, tokens).lower(lowering_platforms=("tpu",)).as_text()
    assert len(re.findall('kernel_name = "splash_mha_fwd', text)) == runs
