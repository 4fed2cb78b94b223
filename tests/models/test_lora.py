"""Adapters: what they add, what they start from, their gradient, and the weights that they are merged into."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import MIXED, MODEL, VOCABULARY, assert_close, lively_weights
from nft_jax.config import LoraConfig, ModelConfig
from nft_jax.models import transformer
from nft_jax.models.int8 import quantize_layers
from nft_jax.models.lora import SUFFIX, initial_adapters, join_weights, merge_adapters, split_weights
from nft_jax.types import Tokens

LORA = LoraConfig(rank=3, alpha=7.0)
BASE = lively_weights(MODEL)
TOKENS = Tokens(
    np.random.default_rng(0).integers(1, VOCABULARY, (3, 9)).astype(np.int32),
    np.array([[0] * 9, [0] * 4 + [1] * 5, [0] * 7 + [-1] * 2], np.int32),
    np.array([range(9), [*range(4), *range(5)], [*range(7), 0, 0]], np.int32),
)
HEAD_NORMS = dataclasses.replace(MODEL, qk_norm="head")
SHAPES = transformer.abstract_model(MODEL, VOCABULARY, lora=LORA).shapes


def lively_adapters(seed):
    """Adapters whose terms are as large as the weights' own."""
    random = np.random.default_rng(seed)

    def draw(leaf):
        return (random.normal(size=leaf.shape) * leaf.shape[1] ** -0.5 / LORA.scale**0.5).astype(np.float32)

    return jax.tree.map(draw, split_weights(SHAPES)[0])


@functools.cache
def graph_of(rank, config):
    return transformer.abstract_model(config, VOCABULARY, lora=LORA if rank else LoraConfig()).graph


@functools.partial(jax.jit, static_argnums=(0, 2))
def logits(rank, weights, config=MODEL):
    with jax.default_matmul_precision("highest"):
        model = transformer.bind(graph_of(rank, config), weights)
        return model.logits(model(TOKENS).reshape(-1, MODEL.width))


@functools.partial(jax.jit, static_argnums=0)
def gradient(rank, weights):
    def objective(weights):
        return jnp.sum(jnp.sin(jax.nn.log_softmax(logits(rank, weights)[:, :VOCABULARY])))

    return jax.grad(objective)(weights)


def test_initial_adapters_change_no_bit_of_the_logits():
    adapters = initial_adapters(split_weights(SHAPES)[0], jax.random.key(1))
    np.testing.assert_array_equal(logits(3, join_weights(adapters, BASE)), logits(0, BASE))


def test_initial_adapters_are_uniform_and_differ():
    wide = transformer.abstract_model(ModelConfig(width=256, layers=2, vocab=32), VOCABULARY, lora=LoraConfig(rank=32))
    blocks = initial_adapters(split_weights(wide.shapes)[0], jax.random.key(2))["blocks"]
    assert len(blocks) == 7
    for adapter in blocks.values():
        a, bound = np.asarray(adapter["a"]), adapter["a"].shape[1] ** -0.5
        assert np.abs(a).max() <= bound
        assert np.abs(a).max() > 0.98 * bound
        np.testing.assert_allclose(a.std(), bound / 3**0.5, rtol=0.03)
        assert not np.asarray(adapter["b"]).any()
    firsts = [float(adapter["a"][layer, 0, 0]) for adapter in blocks.values() for layer in range(2)]
    assert len(set(firsts)) == len(firsts)


@pytest.mark.parametrize(("seed", "config"), [(0, MODEL), (1, HEAD_NORMS), (2, MIXED)])
def test_merge_adapters_gives_the_same_model(seed, config):
    base = lively_weights(config)
    weights = join_weights(lively_adapters(seed), base)
    merged = merge_adapters(weights, LORA.scale, "float32")
    assert jax.tree.structure(merged) == jax.tree.structure(base)
    found, expected = logits(0, merged, config), logits(3, weights, config)
    real = np.asarray(expected)[:, :VOCABULARY]
    assert np.abs(real - np.asarray(logits(0, base, config))[:, :VOCABULARY]).max() > 1
    np.testing.assert_allclose(np.asarray(found)[:, :VOCABULARY], real, atol=2e-4)


@pytest.mark.parametrize("seed", range(3))
def test_adapter_gradient_is_the_contracted_gradient_of_the_merged_weight(seed):
    """d/dA = scale · (d/dW) Bᵀ and d/dB = scale · Aᵀ (d/dW), at W + scale · A B."""
    adapters = lively_adapters(seed)
    weights = join_weights(adapters, BASE)
    by_weight = gradient(0, merge_adapters(weights, LORA.scale, "float32"))["blocks"]
    found = split_weights(gradient(3, weights))[0]
    expected = {
        name: {
            "a": LORA.scale * np.einsum("lio,lro->lir", by_weight[name.removesuffix(SUFFIX)], adapter["b"]),
            "b": LORA.scale * np.einsum("lir,lio->lro", adapter["a"], by_weight[name.removesuffix(SUFFIX)]),
        }
        for name, adapter in adapters["blocks"].items()
    }
    assert_close(found["blocks"], expected, 1e-4)


@pytest.mark.parametrize(("seed", "config"), [(0, MODEL), (1, MIXED)])
def test_adapters_on_an_int8_base_are_those_on_its_values(seed, config):
    """Logits, the adapters' gradient and merged weights are those of a base that holds the rounded numbers."""
    adapters, quantized = lively_adapters(seed), quantize_layers(lively_weights(config))
    values = merge_adapters(join_weights(jax.tree.map(np.zeros_like, adapters), quantized), LORA.scale, "float32")
    assert np.abs(values["blocks"]["down"] - lively_weights(config)["blocks"]["down"]).max() > 1e-3

    def objective(adapters, frozen):
        found = logits(3, join_weights(adapters, frozen), config)
        return jnp.sum(jnp.sin(jax.nn.log_softmax(found[:, :VOCABULARY]))), found

    found, expected = (jax.jit(jax.grad(objective, has_aux=True))(adapters, frozen) for frozen in (quantized, values))
    assert_close(found, expected, 1e-4)
    merged = (merge_adapters(join_weights(adapters, frozen), LORA.scale, "float32") for frozen in (quantized, values))
    jax.tree.map(np.testing.assert_array_equal, *merged)


def test_merge_adapters_leaves_no_int8_matrix():
    adapters, frozen = lively_adapters(0), quantize_layers(BASE)
    one = {"blocks": {"up_adapter": adapters["blocks"]["up_adapter"]}}
    merged = merge_adapters(join_weights(one, frozen), LORA.scale, "bfloat16")
    assert jax.tree.structure(merged) == jax.tree.structure(BASE)
    assert {str(leaf.dtype) for name, leaf in merged["blocks"].items() if leaf.ndim == 3} == {"bfloat16"}


def test_merge_adapters_rounds_once():
    weights = join_weights(lively_adapters(0), jax.tree.map(lambda x: x.astype(jnp.bfloat16), BASE))
    merged = merge_adapters(weights, LORA.scale, "bfloat16")["blocks"]
    for name, adapter in split_weights(weights)[0]["blocks"].items():
        name = name.removesuffix(SUFFIX)
        exact = np.asarray(weights["blocks"][name], np.float64)
        exact = exact + LORA.scale * np.einsum("lir,lro->lio", *(np.float64(adapter[part]) for part in "ab"))
        assert merged[name].dtype == jnp.bfloat16
        assert (np.abs(np.asarray(merged[name], np.float64) - exact) <= np.abs(exact) * 2.0**-8 + 1e-5).all()


@pytest.mark.parametrize("targets", ["query", "down", "key, up"])
def test_split_weights_and_join_weights_are_inverse(targets):
    shapes = transformer.abstract_model(MODEL, VOCABULARY, lora=LoraConfig(rank=1, targets=targets)).shapes
    trained, frozen = split_weights(shapes)
    assert set(trained["blocks"]) == {name.strip() + SUFFIX for name in targets.split(",")}
    assert join_weights(trained, frozen) == shapes
    assert split_weights(frozen) == (frozen, None)
    assert join_weights(*split_weights(frozen)) is frozen


def test_add_adapters_refuses_a_weight_that_the_layers_lack():
    with pytest.raises(ValueError, match=r"unknown matrix 'querry' of a layer: known are .*; did you mean 'query'\?"):
        transformer.abstract_model(MODEL, VOCABULARY, lora=LoraConfig(rank=1, targets="up, querry"))
