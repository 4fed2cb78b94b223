"""Rows longer than a block: the same attention, and no T × T array."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nft_jax.models import attention

B, T, N, G, H, BLOCK = 2, 12, 4, 2, 8, 4
SEGMENT_BT = np.array([[0] * 5 + [1] * 6 + [-1], [0] * 12], np.int32)


def inputs():
    random = np.random.default_rng(0)
    return [random.normal(size=(B, T, heads, H)).astype(np.float32) for heads in (N, G, G)]


def value_and_gradients(query, key, value):
    mix = np.random.default_rng(1).normal(size=(B, T, N, H)).astype(np.float32)

    def objective(*operands):
        out = attention.packed_attention(*operands, SEGMENT_BT)
        return jnp.sum(out * mix), out

    return jax.grad(objective, argnums=(0, 1, 2), has_aux=True)(query, key, value)


@pytest.mark.parametrize("block", [BLOCK, 5, 11], ids=["dividing", "not-dividing", "nearly-all"])
def test_blocks_of_queries_change_nothing(monkeypatch, block):
    whole = jax.jit(value_and_gradients)(*inputs())
    monkeypatch.setattr(attention, "BLOCK", block)
    blocks = jax.jit(lambda *operands: value_and_gradients(*operands))(*inputs())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, blocks)


def test_long_rows_make_no_square_array(monkeypatch):
    def squares():
        text = str(jax.make_jaxpr(lambda *operands: value_and_gradients(*operands))(*inputs()))
        return f"{T},{T}]" in text

    assert squares()
    monkeypatch.setattr(attention, "BLOCK", BLOCK)
    assert not squares()
