"""Log-probs in chunks: the same values and gradients as from all logits at once, without holding them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from helpers.small_parts import MODEL, TEMPERATURE, VOCABULARY, assert_close, lively_weights
from nft_jax.models import transformer
from nft_jax.models.logprobs import logp_and_entropy
from nft_jax.types import Tokens

B, T = 2, 40
GRAPH, _, _ = transformer.abstract_model(MODEL, VOCABULARY)
TOKENS = Tokens(
    np.random.default_rng(0).integers(1, VOCABULARY, (B, T)).astype(np.int32),
    np.zeros((B, T), np.int32),
    np.tile(np.arange(T, dtype=np.int32), (B, 1)),
)
TARGET_BT = np.random.default_rng(2).integers(1, VOCABULARY, (B, T)).astype(np.int32)
MIX_BT = np.random.default_rng(1).normal(size=(2, B, T)).astype(np.float32)


def in_chunks(chunk):
    return lambda model: logp_and_entropy(model, TOKENS, TARGET_BT, TEMPERATURE, chunk)


def at_once(model):
    """Computes the definition, a log-softmax of all logits at once."""
    logits_BTV = model.logits(model(TOKENS).reshape(B * T, -1)).reshape(B, T, -1)
    logp_BTV = jax.nn.log_softmax(logits_BTV / TEMPERATURE, axis=-1)
    chosen_BT = jnp.take_along_axis(logp_BTV, TARGET_BT[..., None], axis=-1)[..., 0]
    return chosen_BT, -jnp.sum(jnp.exp(logp_BTV) * logp_BTV, axis=-1)


def gradient_and_values(method):
    def objective(weights):
        values = method(transformer.bind(GRAPH, weights))
        return sum(jnp.sum(value * mix) for value, mix in zip(values, MIX_BT, strict=True)), values

    return jax.grad(objective, has_aux=True)


@pytest.fixture(scope="module")
def expected():
    return jax.jit(gradient_and_values(at_once))(lively_weights(MODEL))


@pytest.mark.parametrize("chunk", [7, 128], ids=["not-dividing", "longer-than-the-row"])
def test_logp_and_entropy_in_chunks_changes_neither_values_nor_gradients(chunk, expected):
    found = jax.jit(gradient_and_values(in_chunks(chunk)))(lively_weights(MODEL))
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 1e-5)


def shapes(jaxpr):
    """Yields the shapes of everything that a jaxpr computes, inner jaxprs included."""
    for equation in jaxpr.eqns:
        yield from (out.aval.shape for out in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from shapes(inner)


def test_logp_and_entropy_never_holds_the_logits_of_all_tokens():
    def largest(method):
        """Elements of the largest array with a vocabulary axis, over the vocabulary."""
        found = shapes(jax.make_jaxpr(gradient_and_values(method))(lively_weights(MODEL)).jaxpr)
        return max(np.prod(shape, dtype=int) // MODEL.vocab for shape in found if MODEL.vocab in shape)

    assert largest(at_once) == B * T
    # The embedding table has `width` elements a token id.
    assert largest(in_chunks(8)) == MODEL.width < B * T
