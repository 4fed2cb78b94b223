"""The decoder against its twin; causality by gradient; padded vocabulary; remat; initial weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from helpers import decoder_twin
from helpers.small_parts import MIXED, MODEL, ROWS, VOCABULARY, assert_close, at_tokens, lively_weights
from nft_jax.config import ModelConfig, settings_of
from nft_jax.models import transformer
from nft_jax.models.logprobs import scaled_log_softmax
from nft_jax.models.scan import scan_in_place
from nft_jax.models.transformer import Transformer
from nft_jax.precision import in_float64, to_float64
from nft_jax.types import Tokens

TIED_WITHOUT_BIAS = dataclasses.replace(MODEL, tied_embedding=True, qkv_bias=False)
NORMS_AFTER = dataclasses.replace(TIED_WITHOUT_BIAS, norms="after", qk_norm="head")
# Row 0: two sequences, then padding. Row 1: padding, then one sequence.
SEGMENT_BT = np.array([[0] * 5 + [1] * 4 + [-1] * 3, [-1] * 2 + [3] * 10], np.int32)
POSITION_BT = np.array([[*range(5), *range(4), 0, 0, 0], [0, 0, *range(10)]], np.int32)
TOKEN_BT = np.random.default_rng(0).integers(1, VOCABULARY, SEGMENT_BT.shape).astype(np.int32) * (SEGMENT_BT >= 0)
TOKENS = Tokens(TOKEN_BT, SEGMENT_BT, POSITION_BT)


def logits_of(config):
    graph, _, _ = transformer.abstract_model(config, VOCABULARY)

    def logits(weights, tokens):
        model = transformer.bind(graph, weights)
        hidden_BTD = model(tokens)
        return model.logits(hidden_BTD.reshape(-1, config.width)).reshape(*tokens.token_BT.shape, config.vocab)

    return logits


def assert_twins_logits(config, weights, logits_BTV, tolerance):
    for b in range(len(TOKEN_BT)):
        real = SEGMENT_BT[b] >= 0
        expected = decoder_twin.forward(weights, config, TOKEN_BT[b], SEGMENT_BT[b], POSITION_BT[b])
        np.testing.assert_allclose(
            logits_BTV[b, real, :VOCABULARY], expected[real, :VOCABULARY], rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize(
    "config", [MODEL, TIED_WITHOUT_BIAS, MIXED, NORMS_AFTER], ids=["untied", "tied-no-bias", "mixed", "norms-after"]
)
def test_transformer_matches_its_twin_to_float64_rounding(config):
    weights = to_float64(lively_weights(config))
    with in_float64():
        logits = jax.jit(logits_of(dataclasses.replace(config, dtype="float64")))(weights, TOKENS)
        assert logits.dtype == np.float64
        assert_twins_logits(config, weights, np.asarray(logits), 1e-11)


def test_transformer_logits_match_the_twin_to_float32_rounding():
    weights = lively_weights(MODEL)
    assert_twins_logits(MODEL, weights, np.asarray(jax.jit(logits_of(MODEL))(weights, TOKENS)), 5e-5)


def test_transformer_log_prob_sees_only_predecessors_in_its_sequence(monkeypatch):
    embed = Transformer._embed
    graph, _, _ = transformer.abstract_model(MODEL, VOCABULARY)

    def logp_BT(push_MD, weights):
        monkeypatch.setattr(Transformer, "_embed", lambda self, token_M: embed(self, token_M) + push_MD)
        return at_tokens(transformer.bind(graph, weights), TOKENS, 1.0, 5)[0]

    none_MD = np.zeros((TOKEN_BT.size, MODEL.width), np.float32)
    jacobian_BTMD = jax.jit(jax.jacrev(logp_BT))(none_MD, lively_weights(MODEL))
    (B, T) = TOKEN_BT.shape
    influence_BTBT = np.abs(jacobian_BTMD).max(axis=-1).reshape(B, T, B, T)
    for b, t in np.argwhere((SEGMENT_BT >= 0) & (POSITION_BT > 0)):
        allowed_BT = np.zeros((B, T), bool)
        allowed_BT[b, :t] = SEGMENT_BT[b, :t] == SEGMENT_BT[b, t]
        assert np.all(influence_BTBT[b, t][~allowed_BT] == 0), (b, t)
        assert np.all(influence_BTBT[b, t][allowed_BT] > 0), (b, t)


@pytest.mark.parametrize("config", [MODEL, TIED_WITHOUT_BIAS], ids=["untied", "tied"])
def test_transformer_logits_of_padded_rows_have_no_probability_or_gradient(config):
    graph, _, _ = transformer.abstract_model(config, VOCABULARY)

    def objective(weights):
        logp_BT, entropy_BT = at_tokens(transformer.bind(graph, weights), TOKENS, 1.0, 128)
        share_MV = jnp.exp(scaled_log_softmax(logits_of(config)(weights, TOKENS).reshape(-1, ROWS), 1.0))
        return jnp.sum(logp_BT) + jnp.sum(entropy_BT), (share_MV, entropy_BT)

    gradient, (share_MV, entropy_BT) = jax.jit(jax.grad(objective, has_aux=True))(lively_weights(config))
    assert VOCABULARY < ROWS
    assert np.all(share_MV[:, VOCABULARY:] == 0)
    np.testing.assert_allclose(share_MV.sum(axis=-1), 1, rtol=1e-5)
    assert np.all(entropy_BT < np.log(VOCABULARY))
    table = gradient["embedding" if config.tied_embedding else "head"]
    assert np.all(table[VOCABULARY:] == 0)
    assert np.all(np.abs(table[1:VOCABULARY]).max(axis=1) > 0)


def equations(jaxpr):
    """Yields all equations of a jaxpr, inner jaxprs included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def keep(remat, bitwise=False):
    """Returns the gradient of the layers as a function of the weights, and what its layers keep, in numbers."""
    graph, _, _ = transformer.abstract_model(dataclasses.replace(MODEL, remat=remat, bitwise=bitwise), VOCABULARY)
    mix_BTD = np.random.default_rng(1).normal(size=(*TOKEN_BT.shape, MODEL.width)).astype(np.float32)

    def objective(weights):
        return jnp.sum(transformer.bind(graph, weights)(TOKENS) * mix_BTD)

    differentiate = jax.grad(objective)
    # The first scan is the forward one; its outputs are what the backward scan reads, stacked over layers.
    jaxpr = jax.make_jaxpr(differentiate)(lively_weights(MODEL)).jaxpr
    outputs = [out.aval for out in next(e for e in equations(jaxpr) if e.primitive.name == "scan").outvars]
    assert (remat == "offload") == any(out.memory_space == jax.memory.Space.Host for out in outputs)
    return differentiate, sum(out.size for out in outputs if out.memory_space == jax.memory.Space.Device)


def test_remat_changes_what_is_kept_but_no_gradient():
    (choices,) = (setting.limits.choices for setting in settings_of(ModelConfig) if setting.name == "remat")
    differentiate, kept = zip(*map(keep, choices), strict=True)
    kept = dict(zip(choices, kept, strict=True))
    assert kept["offload"] < kept["full"] < kept["attention"] < kept["dots"] < kept["none"]
    gradients = [jax.jit(each)(lively_weights(MODEL))["blocks"] for each in differentiate]
    for gradient in gradients:
        assert_close(gradient, gradients[choices.index("none")], 1e-5)


def test_remat_keeps_the_output_of_bitwise_attention():
    full, attention, everything = (keep(remat, bitwise=True)[1] for remat in ("full", "attention", "none"))
    assert attention - full == MODEL.layers * TOKEN_BT.size * MODEL.heads * MODEL.head_size
    assert attention < everything


def test_initial_weights_are_as_declared_and_differ_from_layer_to_layer():
    _, abstract, _ = transformer.abstract_model(MODEL, VOCABULARY)
    weights = jax.jit(lambda key: transformer.initial_weights(MODEL, VOCABULARY, key))(jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), weights) == jax.tree.map(lambda x: (x.shape, x.dtype), abstract)
    blocks = weights["blocks"]
    for name, value in blocks.items():
        assert value.dtype == np.float32
        if name.endswith("norm"):
            assert np.all(value == 1)
        elif name.endswith("bias"):
            assert np.all(value == 0)
        else:
            residual = (2 * MODEL.layers) ** -0.5 if name in ("output", "down") else 1
            np.testing.assert_allclose(np.std(value), residual * value.shape[1] ** -0.5, rtol=0.1)
            assert abs(np.corrcoef(value[0].ravel(), value[1].ravel())[0, 1]) < 0.15
    assert abs(np.corrcoef(weights["embedding"].ravel(), weights["head"].ravel())[0, 1]) < 0.15


@pytest.mark.parametrize("unroll", [1, 2, 3, 4])
def test_scan_in_place_is_a_scan_whose_body_is_in_no_function_that_is_called_twice(unroll):
    def body(carry, x_D):
        carry = carry / 2 + x_D
        return carry, (carry, None)

    def run(scan):
        return jax.jit(lambda inputs: scan(body, jnp.zeros(3), inputs, unroll=unroll)).lower(jnp.eye(4, 3))

    own, plain = run(scan_in_place), run(jax.lax.scan)
    jax.tree.map(np.testing.assert_array_equal, *(one.compile()(jnp.eye(4, 3)) for one in (own, plain)))
    assert own.as_text().count("call @closed_call") <= 1
