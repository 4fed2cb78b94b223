"""Forms for CPUs against the plain ones; what XLA makes of them, read from the compiled program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import MODEL, VOCABULARY, assert_close, lively_weights
from nft_jax.models import transformer
from nft_jax.models.on_cpus import multiply
from nft_jax.types import Tokens

M, D, F = 64, 32, 48
on_cpus = pytest.mark.skipif(jax.default_backend() != "cpu", reason="the forms are for CPUs")


def gradients(product, x_MD, weight_DF):
    return jax.grad(lambda *operands: jnp.sum(jnp.sin(product(*operands))), argnums=(0, 1))(x_MD, weight_DF)


def operands():
    random = np.random.default_rng(0)
    return tuple(jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((M, D), (D, F)))


def test_multiply_is_the_product_with_its_gradients():
    np.testing.assert_array_equal(jax.jit(multiply)(*operands()), jax.jit(jnp.matmul)(*operands()))
    assert_close(gradients(multiply, *operands()), gradients(jnp.matmul, *operands()), 1e-5)


@on_cpus
def test_no_product_of_the_backward_pass_sums_over_rows_of_its_left_side():
    def program(product):
        return jax.jit(lambda *operands: gradients(product, *operands)).lower(*operands()).compile().as_text()

    slow = "lhs_contracting_dims={0}"
    assert slow in program(jnp.matmul)
    assert slow not in program(multiply)


@on_cpus
def test_rotary_positions_are_computed_once_for_all_layers():
    config = dataclasses.replace(MODEL, unrolled_layers=MODEL.layers, remat="none")
    graph, _, _ = transformer.abstract_model(config, VOCABULARY)

    def objective(weights, tokens):
        return jnp.sum(transformer.bind(graph, weights)(tokens) ** 2)

    tokens = Tokens(*[np.zeros((2, 12), np.int32)] * 3)
    program = jax.jit(jax.grad(objective)).lower(lively_weights(config), tokens).compile().as_text()
    assert config.layers > 1
    assert program.count(" cosine(") == 1
