"""Experts against plain NumPy, their gradient, and the shards of a mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import MODEL, assert_close
from nft_jax.models.experts import mix_experts, route
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import REPLICA, make_mesh

M, D, F, E = 16, 8, 6, 5


def config(**changes):
    return dataclasses.replace(MODEL, **{"experts": E, "experts_per_token": 2} | changes)


def operands(seed=0, tokens=M):
    random = np.random.default_rng(seed)
    shapes = (tokens, D), (D, E), (E, D, F), (E, D, F), (E, F, D)
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def slow_mix(x_MD, router_DE, gate_EDF, up_EDF, down_EFD, config):
    """One token and one expert at a time."""
    out_MD = np.zeros_like(x_MD)
    for m, x_D in enumerate(x_MD):
        score_E = np.exp(x_D @ router_DE)
        weight_E = score_E / score_E.sum()
        chosen = np.argsort(-weight_E)[: config.experts_per_token]
        total = weight_E[chosen].sum() if config.experts_normalized else 1
        for e in chosen:
            gate_F = x_D @ gate_EDF[e]
            h_F = gate_F / (1 + np.exp(-gate_F)) * (x_D @ up_EDF[e])
            out_MD[m] += weight_E[e] / total * (h_F @ down_EFD[e])
    return out_MD


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("count", [1, 2, E])
def test_mix_experts_equals_one_token_and_expert_at_a_time(count, normalized):
    chosen = config(experts_per_token=count, experts_normalized=normalized)
    found = mix_experts(*operands(), chosen)
    np.testing.assert_allclose(found, slow_mix(*operands(), chosen), rtol=1e-4, atol=1e-5)


def test_output_of_a_token_depends_on_no_other_token():
    """The tokens of an answer are read one at a time while it is sampled, and all at once while it trains."""
    x_MD, *weights = operands(1)
    together = mix_experts(x_MD, *weights, config())
    alone = [mix_experts(x_MD[m : m + 1], *weights, config())[0] for m in range(M)]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5, atol=1e-6)


def test_gradient_of_all_experts_alike_is_that_of_one_network():
    """With equal experts and normalized weights, the router decides nothing."""
    x_MD, router, gate, up, down = operands(2)
    one = [weights[:1] for weights in (gate, up, down)]

    def objective(weights, experts, count):
        chosen = config(experts=experts, experts_per_token=count, experts_normalized=True)
        repeated = [jnp.repeat(each, experts, axis=0) for each in weights]
        return jnp.sum(jnp.sin(mix_experts(x_MD, router[:, :experts], *repeated, chosen)))

    expected, found = (jax.grad(objective)(one, *sizes) for sizes in ((1, 1), (E, 3)))
    assert_close(found, expected, 1e-5)


def test_weights_of_the_chosen_experts_are_those_of_the_softmax_over_all():
    scores_ME = np.asarray([[0.0, 1.0, 2.0, 3.0, -1.0]], np.float32)
    weight_MK, expert_MK = route(scores_ME, config())
    softmax_E = np.exp(scores_ME[0]) / np.exp(scores_ME[0]).sum()
    np.testing.assert_array_equal(expert_MK, [[3, 2]])
    np.testing.assert_allclose(weight_MK[0], softmax_E[[3, 2]], rtol=1e-6)


@pytest.mark.parametrize(("replica", "data", "tensor"), [(1, 8, 1), (1, 4, 2), (2, 2, 2), (4, 2, 1)])
def test_shards_of_a_mesh_compute_the_same_and_the_same_gradient(replica, data, tensor):
    """Rows are mapped over replicas as an update maps them; weights are not, and their gradients are summed."""
    mesh = make_mesh(data=data, tensor=tensor, replica=replica)
    place = layout.layer_placement(mesh, {})
    mix = functools.partial(mix_experts, config=config())

    def value_and_gradient(function):
        def objective(*operands):
            out_MD = function(*operands)
            return jnp.sum(jnp.cos(out_MD)), out_MD

        return jax.grad(objective, argnums=tuple(range(5)), has_aux=True)

    def mix_on_shards(x_MD, *weights):
        return place.map_rows(lambda weights, x_MD: mix(x_MD, *weights))(weights, x_MD)

    def of_replicas(x_MD, *weights):
        over_replicas = jax.vmap(value_and_gradient(mix_on_shards), (0, *[None] * 4), spmd_axis_name=REPLICA)
        (d_x_XMD, *d_weights), out_XMD = over_replicas(x_MD.reshape(replica, -1, D), *weights)
        summed = [jnp.sum(each, axis=0) for each in d_weights]
        return (d_x_XMD.reshape(x_MD.shape), *summed), out_XMD.reshape(x_MD.shape)

    assert_close(jax.jit(of_replicas)(*operands()), jax.jit(value_and_gradient(mix))(*operands()), 1e-5)
