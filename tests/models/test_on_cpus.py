"""Forms for CPUs against the plain ones; what XLA makes of them, read from the compiled program."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import MODEL, VOCABULARY, assert_close, lively_weights
from nft_jax.models import transformer
from nft_jax.models.on_cpus import first_largest, multiply
from nft_jax.rollout.sampling import draw, request_keys
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


def test_first_largest_is_argmax_with_ties_and_infinities():
    x_BV = np.random.default_rng(0).integers(0, 4, size=(200, 16)).astype(np.float32)
    x_BV[:3] = [[-np.inf], [0], [np.inf]]
    np.testing.assert_array_equal(jax.jit(first_largest)(x_BV), np.argmax(x_BV, axis=-1))


def test_first_largest_is_a_place_even_without_a_number():
    (place,) = jax.jit(first_largest)(np.full((1, 5), np.nan, np.float32))
    assert 0 <= place < 5


@on_cpus
def test_the_draw_reduces_no_pairs():
    """XLA computes a reduction of pairs, and the noise that it fuses with it, one element at a time."""

    def noisy(logits_BV, column_B, greedy_B):
        keys = request_keys(jax.random.key(0), jnp.arange(4, dtype=jnp.uint32))
        return draw(logits_BV, keys, column_B, greedy_B, 1.0)

    sizes = np.zeros((4, 64), np.float32), np.zeros(4, np.int32), np.zeros(4, bool)
    program = jax.jit(noisy).lower(*sizes).compile().as_text()
    assert " reduce(" in program
    assert not re.search(r"= \([^)]*\) reduce\(", program)
