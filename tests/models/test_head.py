"""The head's product: in float32 its gradient equals JAX's, in 16 bits it is in the operands' dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nft_jax.models.head import head_logits


def plain(hidden_MD, table_VD):
    return jnp.einsum("md,vd->mv", hidden_MD, table_VD, preferred_element_type=jnp.float32)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_head_logits_gradients_match_the_product(dtype, tolerance):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(8, 16), (24, 16), (8, 24)]
    hidden_MD, table_VD, mix_MV = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))
    operands = hidden_MD.astype(dtype), table_VD.astype(dtype)

    def gradients(product):
        return jax.grad(lambda *given: jnp.sum(mix_MV * jnp.sin(product(*given))), argnums=(0, 1))(*operands)

    assert head_logits(*operands).dtype == jnp.float32
    for found, expected in zip(gradients(head_logits), gradients(plain), strict=True):
        assert found.dtype == dtype
        found, expected = (np.asarray(x, np.float32) for x in (found, expected))
        np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


def test_head_logits_backward_multiplies_in_the_operands_dtype():
    operands = jnp.ones((8, 16), jnp.bfloat16), jnp.ones((24, 16), jnp.bfloat16)

    def products(product):
        gradient = jax.make_jaxpr(jax.grad(lambda *given: jnp.sum(jnp.sin(product(*given))), argnums=(0, 1)))
        lines = [line for line in str(gradient(*operands)).splitlines() if "dot_general" in line]
        return len(lines), sum("f32[" in line.split("=")[0] for line in lines)

    # Only the logits are float32.
    assert products(head_logits) == (3, 1)
