"""SwiGLU's and GeGLU's hand-written backward pass against differentiation of the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import assert_close
from nft_jax.models.swiglu import swiglu_down

M, F, D = 6, 10, 4


FORMULAS = {
    "silu": lambda gate: gate / (1 + jnp.exp(-gate)),
    "gelu_tanh": lambda gate: gate * (1 + jnp.tanh((2 / jnp.pi) ** 0.5 * (gate + 0.044715 * gate**3))) / 2,
}


@pytest.mark.parametrize("activation", FORMULAS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2**-6)])
def test_swiglu_down_value_and_gradients_match_the_formula(dtype, tolerance, activation):
    random = np.random.default_rng(0)
    gate, up, down, mix = (
        jnp.asarray(scale * random.normal(size=shape), jnp.float32)
        for scale, shape in ((3, (M, F)), (1, (M, F)), (1, (F, D)), (1, (M, D)))
    )

    def value_and_gradients(function, *operands):
        def objective(*operands):
            out = function(*operands)
            return jnp.sum(out.astype(jnp.float32) * mix), out

        return jax.jit(jax.grad(objective, argnums=(0, 1, 2), has_aux=True))(*operands)

    half = (x.astype(dtype) for x in (gate, up, down))
    found = value_and_gradients(lambda *operands: swiglu_down(*operands, activation), *half)
    assert all(x.dtype == dtype for x in jax.tree.leaves(found))
    expected = value_and_gradients(lambda gate, up, down: (FORMULAS[activation](gate) * up) @ down, gate, up, down)
    assert_close(jax.tree.map(lambda x: np.asarray(x, np.float32), found), expected, tolerance)
