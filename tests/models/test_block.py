"""The projections of a decoder layer against plain NumPy."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

from helpers.small_parts import MODEL
from nft_jax.models.block import Block

M = 5
RANDOM = np.random.default_rng(0)


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
