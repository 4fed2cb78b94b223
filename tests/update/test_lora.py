"""Updates of adapters: the gradient is that of the whole model, contracted, on any mesh; nothing else is stored."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import (
    MODEL,
    VOCABULARY,
    assert_close,
    eight_devices,
    lively_weights,
    one_device,
    random_groups,
    random_prompts,
    small_config,
    training_step,
)
from helpers.update_twin import Reference
from nft_jax.config import LoraConfig
from nft_jax.models import transformer
from nft_jax.models.lora import SUFFIX, join_weights, merge_adapters, split_weights
from nft_jax.parallel.mesh import make_mesh

Q = 8
LORA = LoraConfig(rank=2, alpha=3.0)
BASE, PROMPTS = lively_weights(MODEL), random_prompts(0, 64)
ADAPTERS = jax.tree.map(
    lambda leaf: np.random.default_rng(leaf.size).normal(size=leaf.shape).astype(np.float32) * leaf.shape[1] ** -0.5,
    split_weights(transformer.abstract_model(MODEL, VOCABULARY, lora=LORA).shapes)[0],
)
MERGED = jax.tree.map(np.asarray, merge_adapters(join_weights(ADAPTERS, BASE), LORA.scale, "float32"))


@pytest.fixture(scope="module")
def groups():
    groups = random_groups(1, Q, 4)
    exact = Reference(MERGED, groups, Q, PROMPTS)
    return groups._replace(logp_QKT=exact.of_answers(exact.logp_BS).astype(np.float32))


def adapter_gradient(mesh, groups, **changes):
    step = training_step(dataclasses.replace(small_config(), lora=LORA, **changes), mesh)

    @jax.jit
    def program(adapters, frozen, groups):
        packed, totals = step.pack(groups, jnp.int32(Q), jax.tree.map(jnp.asarray, PROMPTS), jnp.int32(0))
        packed, totals = jax.tree.map(lambda x: x[0], (packed, totals))
        return step.updater.freeze(frozen).gradient(adapters, packed, totals, adapters)

    return jax.device_get(program(ADAPTERS, BASE, groups))


@pytest.mark.parametrize("mesh", [one_device, eight_devices, lambda: make_mesh(2, 2, jax.devices()[:8], 2)])
def test_updater_gradient_of_adapters_is_the_contracted_gradient_of_the_definition(mesh, groups):
    exact = Reference(MERGED, groups, Q, PROMPTS)
    value, cotangent_BS, _ = exact.objective("nft", "constant", groups.logp_QKT)
    by_weight = exact.gradient(cotangent_BS)["blocks"]
    gradient, statistics = adapter_gradient(mesh(), groups)
    expected = {}
    for name, adapter in ADAPTERS["blocks"].items():
        whole = LORA.scale * np.asarray(by_weight[name.removesuffix(SUFFIX)])
        a, b = np.einsum("lio,lro->lir", whole, adapter["b"]), np.einsum("lir,lio->lro", adapter["a"], whole)
        expected[name] = {"a": a, "b": b}
    assert_close(gradient["blocks"], expected, 5e-5)
    np.testing.assert_allclose(statistics.objective, value, rtol=1e-4, atol=1e-6)
    # The reference is the same adapters on the same frozen weights.
    assert statistics.kl == pytest.approx(0, abs=1e-6)
