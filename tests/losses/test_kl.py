"""Estimates of the KL divergence by name."""

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.losses import KLS
from nft_jax.losses.kl import k1, k2, k3, k3_straight

LOGP_BT = jnp.array([[-1.0, -1.5, -0.5, -jnp.inf]], jnp.float32)
REFERENCE_BT = jnp.array([[-1.0, -1.0, -2.0, -jnp.inf]], jnp.float32)
ANSWER_BT = jnp.array([[0, 0, 0, -1]], jnp.int32)
DIFFERENCE = np.array([0.0, -0.5, 1.5])  # logp − reference_logp


def value_and_gradient(estimate):
    value_BT, pull = jax.vjp(lambda logp_BT: estimate(logp_BT, REFERENCE_BT, ANSWER_BT), LOGP_BT)
    (gradient_BT,) = pull(jnp.ones_like(value_BT))
    assert value_BT[0, 3] == gradient_BT[0, 3] == 0
    return np.asarray(value_BT)[0, :3], np.asarray(gradient_BT)[0, :3]


def test_estimates_are_their_formulas():
    expected = {"k1": DIFFERENCE, "k2": DIFFERENCE**2 / 2, "k3": np.exp(-DIFFERENCE) + DIFFERENCE - 1}
    for name, values in (expected | {"k3_straight": expected["k3"]}).items():
        np.testing.assert_allclose(value_and_gradient(KLS[name])[0], values, rtol=1e-6, err_msg=name)


def test_k3_straight_has_the_value_of_k3_and_the_gradient_of_k2():
    np.testing.assert_array_equal(value_and_gradient(k3_straight)[0], value_and_gradient(k3)[0])
    np.testing.assert_array_equal(value_and_gradient(k3_straight)[1], value_and_gradient(k2)[1])
    assert np.abs(value_and_gradient(k3)[1] - value_and_gradient(k2)[1]).max() > 0.1


def test_mean_gradients_over_the_policy_are_those_of_the_divergence_except_of_k1():
    random = np.random.default_rng(0)
    logits_V, reference_V = jnp.asarray(random.normal(size=(2, 6)), jnp.float32)
    reference_logp_V = jax.nn.log_softmax(reference_V)

    def divergence(logits_V):
        logp_V = jax.nn.log_softmax(logits_V)
        return jnp.sum(jnp.exp(logp_V) * (logp_V - reference_logp_V))

    def mean_of(estimate):
        def mean(logits_V):
            logp_1V = jax.nn.log_softmax(logits_V)[None]
            weight_1V = jax.lax.stop_gradient(jnp.exp(logp_1V))
            return jnp.sum(weight_1V * estimate(logp_1V, reference_logp_V[None], jnp.zeros((1, 6), jnp.int32)))

        return jax.grad(mean)(logits_V)

    exact_V = jax.grad(divergence)(logits_V)
    for estimate in (k2, k3_straight):
        np.testing.assert_allclose(mean_of(estimate), exact_V, atol=1e-6)
    np.testing.assert_allclose(mean_of(k1), np.zeros(6), atol=1e-6)
    assert np.abs(mean_of(k3) - exact_V).max() > 0.01
