"""Weights in int8: the error of a rounded matrix, its product, and which weights of a model are rounded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import MODEL, VOCABULARY, lively_weights
from nft_jax.models import transformer
from nft_jax.models.int8 import LARGEST, Int8Matrix, cast_weights, quantize_layers, quantize_matrix, quantize_specs
from nft_jax.parallel import layout


def random_matrix(seed):
    """A matrix whose channels differ in size by powers of ten; one is 0, one has an outlier."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(24, 16)) * 10.0 ** random.integers(-4, 3, 16)
    weight[:, 3], weight[5, 7] = 0.0, 100 * np.abs(weight[:, 7]).max()
    return weight.astype(np.float32)


def exact(matrix):
    return np.asarray(matrix.values, np.float64) * np.asarray(matrix.scale, np.float64)


@pytest.mark.parametrize("seed", range(4))
def test_quantize_matrix_is_off_by_at_most_half_a_scale(seed):
    weight = random_matrix(seed)
    found = quantize_matrix(weight)
    assert found.values.dtype == jnp.int8
    assert found.scale.dtype == jnp.float32
    largest = np.abs(weight).max(axis=0, keepdims=True)
    np.testing.assert_allclose(found.scale, largest / LARGEST, rtol=1e-6)
    assert (np.abs(exact(found) - weight) <= 0.5001 * largest / LARGEST).all()
    # The largest weight of each channel takes the largest integer, and signs and zeros stay.
    values = np.asarray(found.values)
    np.testing.assert_array_equal(np.abs(values).max(axis=0), np.where(largest[0] > 0, LARGEST, 0))
    assert (values * weight >= 0).all()
    np.testing.assert_array_equal(quantize_matrix(-weight).values, -values)


@pytest.mark.parametrize("seed", range(4))
def test_quantize_matrix_keeps_what_it_gave(seed):
    found = quantize_matrix(random_matrix(seed))
    again = quantize_matrix(exact(found).astype(np.float32))
    np.testing.assert_array_equal(again.values, found.values)
    np.testing.assert_allclose(again.scale, found.scale, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2**-8)])
def test_product_with_an_int8_matrix(dtype, tolerance):
    x_MD = jnp.asarray(np.random.default_rng(9).normal(size=(5, 24)), dtype)
    matrix = quantize_matrix(random_matrix(1))
    with jax.default_matmul_precision("highest"):
        found = jax.jit(lambda x, w: x @ w[...])(x_MD, matrix)
    assert found.dtype == dtype
    found, x_MD = np.asarray(found, np.float64), np.asarray(x_MD, np.float64)
    assert (np.abs(found - x_MD @ exact(matrix)) <= tolerance * np.abs(x_MD) @ np.abs(exact(matrix))).all()


def test_quantize_layers_takes_the_matrices_of_the_layers_alone():
    weights = lively_weights(MODEL)
    found = cast_weights(quantize_layers(weights), "bfloat16")
    matrices = {name for name, leaf in found["blocks"].items() if isinstance(leaf, Int8Matrix)}
    assert matrices == {name for name, leaf in weights["blocks"].items() if leaf.ndim == 3}
    assert len(matrices) == 7
    rest = [leaf for leaf in jax.tree.leaves(found) if leaf.dtype == jnp.bfloat16]
    assert len(jax.tree.leaves(found)) == 2 * len(matrices) + len(rest)
    for name in matrices:
        for layer in range(MODEL.layers):
            one, whole = quantize_matrix(weights["blocks"][name][layer]), found["blocks"][name][layer]
            jax.tree.map(np.testing.assert_array_equal, one, whole)


def test_quantize_specs_fit_the_quantized_weights():
    _, shapes, axes = transformer.abstract_model(MODEL, VOCABULARY)
    specs = quantize_specs(layout.specs(axes, layout.GENERATION))
    quantized = jax.eval_shape(quantize_layers, shapes)
    assert jax.tree.structure(specs, is_leaf=lambda x: isinstance(x, tuple)) == jax.tree.structure(quantized)
    gate, down = specs["blocks"]["gate"], specs["blocks"]["down"]
    assert gate.values[2] == gate.scale[2] == "tensor"
    assert (down.values[1], *down.scale) == ("tensor", None, None, None)
