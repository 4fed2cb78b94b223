"""Rows that continue prompts, by two calls of the splash kernel that are merged, against plain XLA."""

import dataclasses
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel

from helpers.small_parts import MODEL, VOCABULARY, assert_close
from nft_jax import compat
from nft_jax.models import attention_backends, transformer
from nft_jax.models.attention import PromptKeys, packed_attention
from nft_jax.parallel.mesh import make_mesh
from nft_jax.types import Tokens


class Case(NamedTuple):
    """Sizes of rows and prompts; `segments` are the lengths of each row's segments, `seen` the columns it sees."""

    tokens: int
    columns: int
    heads: int
    key_heads: int
    head_size: int
    segments: list
    seen: list
    devices: tuple = (1, 1)


CASES = {
    # No tile divides rows or prompts. Row 1 sees no column, row 2 all, row 3 only the first; row 0 holds one answer.
    "mesh": Case(150, 70, 4, 2, 64, [[150], [70, 1, 60], [40, 40, 70], [1]], [33, 0, 70, 1], (2, 2)),
    # Several tiles of both, the second tile of the prompt hidden from row 0.
    "tiles": Case(520, 530, 2, 1, 128, [[500, 20], [17, 400]], [512, 529]),
    "heads": Case(128, 128, 7, 1, 128, [[100, 28], []], [128, 5]),
    "own": Case(64, 9, 2, 2, 64, [[30, 34], [64]], [0, 0]),
}


def operands(case, dtype="float32"):
    """Queries, keys and values of rows, and those of their prompts."""
    random, B = np.random.default_rng(0), len(case.seen)
    shapes = [(case.tokens, case.heads), *[(case.tokens, case.key_heads)] * 2, *[(case.columns, case.key_heads)] * 2]
    return [jnp.asarray(random.normal(size=(B, *shape, case.head_size)), dtype) for shape in shapes]


def segments(case):
    rows = [[*range(len(row)), -1] for row in case.segments]
    lengths = [[*row, case.tokens - sum(row)] for row in case.segments]
    return np.stack([np.repeat(*row) for row in zip(rows, lengths, strict=True)]).astype(np.int32)


def select(case, name="splash", dtype="float32", *, interpret=True):
    sizes = {"heads": case.heads, "kv_heads": case.key_heads, "head_size": case.head_size}
    config = dataclasses.replace(MODEL, attention=name, dtype=dtype, **sizes)
    data, tensor = case.devices
    over = make_mesh(data, tensor, jax.devices()[: data * tensor])
    return attention_backends.select_attention(config, over, interpret=interpret)


def value_and_gradients(attend, case, operands):
    segment_BT, seen_B = segments(case), np.array(case.seen, np.int32)
    real_BTNH = (segment_BT >= 0)[..., None, None]
    mix = np.random.default_rng(1).normal(size=operands[0].shape).astype(np.float32)

    def objective(query, key, value, *prompt):
        out = attend(query, key, value, segment_BT, PromptKeys(*prompt, seen_B))
        out = jnp.where(real_BTNH, out, 0)
        return jnp.sum(out.astype(jnp.float32) * mix), out

    with jax.default_matmul_precision("highest"):
        gradients, out = jax.jit(jax.grad(objective, argnums=(0, 1, 2, 3, 4), has_aux=True))(*operands)
    return [np.asarray(x, np.float32) for x in (out, *gradients)]


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"), [*[(name, "float32", 1e-5) for name in CASES], ("mesh", "bfloat16", 2e-2)]
)
def test_splash_sees_the_prompt_and_its_own_segment_as_xla(name, dtype, tolerance):
    case = CASES[name]
    found = value_and_gradients(select(case, dtype=dtype).rows, case, operands(case, dtype))
    expected = value_and_gradients(packed_attention, case, operands(case, dtype))
    assert all(np.isfinite(x).all() for x in found)
    hidden_BP = np.arange(case.columns) >= np.array(case.seen)[:, None]
    assert not any(x[hidden_BP].any() for x in found[4:])
    count = len(found) if any(case.seen) else 4
    assert_close(found[:count], expected[:count], tolerance)


def test_splash_over_rows_and_prompts_makes_no_array_of_queries_by_keys(monkeypatch):
    # Lowering, unlike compiling, needs no TPU.
    monkeypatch.setitem(attention_backends.PLATFORM, "splash", "cpu")
    case = CASES["tiles"]._replace(tokens=1024, columns=640)
    attend = select(case, interpret=False).rows
    segment_BT, seen_B = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((2, 1024), (2,)))

    def lowered(attend, platform):
        def objective(query, key, value, segment_BT, seen_B, *prompt):
            return jnp.sum(attend(query, key, value, segment_BT, PromptKeys(*prompt, seen_B)))

        shapes = jax.eval_shape(lambda: operands(case))
        traced = jax.jit(jax.grad(objective, argnums=(0, 1, 2, 5, 6))).trace(
            *shapes[:3], segment_BT, seen_B, *shapes[3:]
        )
        return traced.lower(lowering_platforms=(platform,)).as_text()

    squares = re.compile(r"1024x(?:640|1024|1664)x")
    assert squares.search(lowered(packed_attention, "cpu"))
    text = lowered(attend, "tpu")
    assert not squares.search(text)
    assert len(re.findall('kernel_name = "splash_mha_fwd', text)) == 2


@pytest.mark.parametrize(("remat", "runs"), [("attention", 2), ("full", 4)])
def test_remat_does_not_rerun_the_kept_attention_of_rows_and_prompts(monkeypatch, remat, runs):
    monkeypatch.setitem(attention_backends.PLATFORM, "splash", "cpu")
    config = dataclasses.replace(MODEL, attention="splash", remat=remat)
    over = make_mesh(1, 1, jax.devices()[:1])
    graph, weights, _ = transformer.abstract_model(
        config, VOCABULARY, attention_backends.select_attention(config, over)
    )
    B, T, P = 2, 150, 70
    tokens = Tokens(*[jax.ShapeDtypeStruct((B, T), jnp.int32)] * 3)
    keys = jax.ShapeDtypeStruct((config.layers, B, P, config.kv_heads, config.head_size), config.dtype)
    prompt = PromptKeys(keys, keys, jax.ShapeDtypeStruct((B,), jnp.int32))

    def objective(weights, keys, tokens, length_B):
        return jnp.sum(transformer.bind(graph, weights)(tokens, prompt=PromptKeys(*keys, length_B)))

    gradient = jax.jit(jax.grad(objective, argnums=(0, 1)))
    traced = gradient.trace(weights, tuple(prompt[:2]), tokens, prompt.length_B)
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert len(re.findall('kernel_name = "splash_mha_fwd', text)) == runs


def test_backends_that_take_no_prompts_say_why(monkeypatch):
    case = CASES["own"]
    assert not select(case).takes_no_prompts
    assert not attention_backends.XLA.takes_no_prompts
    for name in ("triton", "cudnn"):
        assert "Triton" in select(case, name, "bfloat16").takes_no_prompts
    monkeypatch.delattr(splash_attention_kernel, "_splash_attention_bwd")
    assert not compat.has_splash_gradient()
    assert f"jax {jax.__version__} has no" in select(case).takes_no_prompts
