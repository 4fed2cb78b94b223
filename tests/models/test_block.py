"""The parts of a decoder layer: norm, rotary positions and projections, against plain NumPy."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from helpers import decoder_twin
from helpers.small_parts import MODEL
from nft_jax.models.block import Block, rms_norm, rotate

M, N, H = 5, 3, 8
RANDOM = np.random.default_rng(0)


def test_rms_norm_matches_its_twin():
    x_MD, scale_D = RANDOM.normal(size=(M, H)).astype(np.float32), RANDOM.normal(size=H).astype(np.float32)
    config = dataclasses.replace(MODEL, norm_epsilon=0.1)
    expected = np.stack([decoder_twin.norm(x_D, scale_D, config) for x_D in x_MD])
    np.testing.assert_allclose(rms_norm(x_MD, scale_D, 0.1), expected, rtol=1e-5)


def test_rotate_matches_its_twin():
    x_MNH, position_M = RANDOM.normal(size=(M, N, H)).astype(np.float32), np.array([0, 1, 2, 7, 100], np.int32)
    expected = [
        [decoder_twin.rotate(x_H, position, 1e4) for x_H in x_NH]
        for x_NH, position in zip(x_MNH, position_M, strict=True)
    ]
    np.testing.assert_allclose(rotate(x_MNH, position_M, 1e4), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_project_adds_the_bias_of_a_weight_that_has_one(qkv_bias):
    with nnx.use_eager_sharding(False):
        block = Block(dataclasses.replace(MODEL, qkv_bias=qkv_bias), nnx.Rngs(0))
    x_MD = RANDOM.normal(size=(M, MODEL.width)).astype(np.float32)
    if qkv_bias:
        block.query_bias[...] = np.arange(block.query_bias.shape[0], dtype=np.float32)
    for name in ("query", "gate"):
        bias = block.query_bias[...] if qkv_bias and name == "query" else np.zeros(1, np.float32)
        expected = x_MD @ np.asarray(getattr(block, name)[...]) + np.asarray(bias)
        np.testing.assert_allclose(block.project(name, x_MD), expected, rtol=1e-4, atol=1e-5)
