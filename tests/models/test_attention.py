"""Attention over packed rows: the definition, and rows longer than a query block without a T × T array."""

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


def prompt_keys():
    """Keys and values of five columns, of which row 0 sees two and row 1 all."""
    random = np.random.default_rng(2)
    return [random.normal(size=(B, 5, G, H)).astype(np.float32) for _ in range(2)], np.array([2, 5], np.int32)


def window(tokens=3):
    """Positions of the tokens, and the first that each sees; row 0 sees all."""
    seen_B = prompt_keys()[1]
    starts = [np.flatnonzero(SEGMENT_BT[b] == SEGMENT_BT[b, t])[0] for b, t in np.ndindex(B, T)]
    position_BT = seen_B[:, None] + np.arange(T) - np.reshape(starts, (B, T))
    first_BT = position_BT + 1 - np.array([[99], [tokens]])
    return attention.Window(position_BT.astype(np.int32), first_BT.astype(np.int32))


def value_and_gradients(query, key, value, *prompt, window=None):
    mix = np.random.default_rng(1).normal(size=(B, T, N, H)).astype(np.float32)

    def objective(query, key, value, *prompt):
        prompt = attention.PromptKeys(*prompt, prompt_keys()[1]) if prompt else None
        out = attention.packed_attention(query, key, value, SEGMENT_BT, prompt, window)
        return jnp.sum(out * mix), out

    operands = (query, key, value, *prompt)
    return jax.grad(objective, argnums=tuple(range(len(operands))), has_aux=True)(*operands)


def by_definition(query, key, value, prompt_key, prompt_value, window=None):
    """Computes the softmax of one query and head at a time, over the keys that it may see, in order."""
    out = np.zeros((B, T, N, H))
    for b, t, n in np.ndindex(B, T, N):
        g, seen = n // (N // G), prompt_keys()[1][b]
        own = [s for s in range(t + 1) if SEGMENT_BT[b, s] == SEGMENT_BT[b, t]]
        keys = np.concatenate([prompt_key[b, :seen, g], key[b, own, g]]).astype(np.float64)
        values = np.concatenate([prompt_value[b, :seen, g], value[b, own, g]])
        if window is not None:
            first = max(window.first_BT[b, t], 0)
            keys, values = keys[first:], values[first:]
        weight = np.exp(keys @ query[b, t, n] / np.sqrt(H))
        out[b, t, n] = weight @ values / weight.sum()
    return out


@pytest.mark.parametrize("tokens", [0, 3, 9])
def test_packed_attention_sees_the_prompt_and_its_own_segment(tokens):
    """Without a window, with one that ends inside the row, and with one that reaches into the prompt."""
    operands, seen = (*inputs(), *prompt_keys()[0]), window(tokens) if tokens else None
    gradients, out = jax.jit(value_and_gradients)(*operands, window=seen)
    real = SEGMENT_BT >= 0
    np.testing.assert_allclose(out[real], by_definition(*operands, seen)[real], rtol=1e-5, atol=1e-6)
    # Columns of the prompt that a row does not see have no gradient.
    assert not gradients[3][0, 2:].any()
    assert np.abs(gradients[3][0, :2]).min() > 0


@pytest.mark.parametrize("block", [BLOCK, 5, 11], ids=["dividing", "not-dividing", "nearly-all"])
@pytest.mark.parametrize("prompt", [[], prompt_keys()[0]], ids=["alone", "after-a-prompt"])
@pytest.mark.parametrize("seen", [None, window()], ids=["all", "window"])
def test_packed_attention_in_blocks_of_queries_changes_nothing(monkeypatch, block, prompt, seen):
    operands = (*inputs(), *prompt)
    whole = jax.jit(lambda *operands: value_and_gradients(*operands, window=seen))(*operands)
    monkeypatch.setattr(attention, "QUERY_BLOCK", block)
    blocks = jax.jit(lambda *operands: value_and_gradients(*operands, window=seen))(*operands)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, blocks)


@pytest.mark.parametrize("prompt", [[], prompt_keys()[0]], ids=["alone", "after-a-prompt"])
def test_packed_attention_of_long_rows_makes_no_square_array(monkeypatch, prompt):
    def squares():
        text = str(jax.make_jaxpr(lambda *operands: value_and_gradients(*operands))(*inputs(), *prompt))
        return f"{T},{T + 5 * bool(prompt)}]" in text

    assert squares()
    monkeypatch.setattr(attention, "QUERY_BLOCK", BLOCK)
    assert not squares()
