"""RMSNorm against plain NumPy."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from helpers import decoder_twin
from helpers.small_parts import MODEL
from nft_jax.models.norms import rms_norm

M, D = 5, 8
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rms_norm_matches_its_twin(offset):
    x_MD, scale_D = RANDOM.normal(size=(M, D)).astype(np.float32), RANDOM.normal(size=D).astype(np.float32)
    config = dataclasses.replace(MODEL, norm_epsilon=0.1, norm_offset=offset)
    expected = np.stack([decoder_twin.norm(x_D, scale_D, config) for x_D in x_MD])
    np.testing.assert_allclose(rms_norm(x_MD, scale_D, 0.1, offset), expected, rtol=1e-5, atol=1e-6)


def test_rms_norm_adds_the_offset_in_float32():
    """In bfloat16, 1 + 0.003 is 1 and would leave x as it is."""
    scale_D = jnp.full(D, 0.003, jnp.bfloat16)
    assert jnp.all(1 + scale_D == 1)
    x_MD = jnp.asarray(RANDOM.normal(size=(M, D)), jnp.bfloat16)
    found, plain = (np.asarray(rms_norm(x_MD, *each), np.float32) for each in ((scale_D, 0.0, 1.0), (1 + scale_D, 0.0)))
    exact = np.asarray(x_MD, np.float64)
    exact *= (1 + float(scale_D[0])) / np.sqrt(np.mean(exact**2, axis=-1, keepdims=True))
    assert np.abs(found - exact).mean() < np.abs(plain - exact).mean()
    np.testing.assert_allclose(found, exact, rtol=2**-8)
