"""RMSNorm against plain NumPy."""

import dataclasses

import numpy as np

from helpers import decoder_twin
from helpers.small_parts import MODEL
from nft_jax.models.norms import rms_norm

M, D = 5, 8
RANDOM = np.random.default_rng(0)


def test_rms_norm_matches_its_twin():
    x_MD, scale_D = RANDOM.normal(size=(M, D)).astype(np.float32), RANDOM.normal(size=D).astype(np.float32)
    config = dataclasses.replace(MODEL, norm_epsilon=0.1)
    expected = np.stack([decoder_twin.norm(x_D, scale_D, config) for x_D in x_MD])
    np.testing.assert_allclose(rms_norm(x_MD, scale_D, 0.1), expected, rtol=1e-5)
