"""The KL penalty that some GRPO runs add to their loss: estimates of KL(policy ‖ reference) from the sampled token.

Each is in nats, and 0 outside answers. Schulman, "Approximating KL divergence" (2020).
"""

import chex
import jax
import jax.numpy as jnp

from nft_jax.losses.ratio import MAX_LOG_RATIO
from nft_jax.types import Array


def k1(logp_BT: Array, reference_logp_BT: Array, answer_BT: Array) -> Array:
    """Returns `logp − reference_logp`: unbiased, but its mean gradient on-policy is 0: it measures and doesn't pull."""
    return -_difference(logp_BT, reference_logp_BT, answer_BT)


def k2(logp_BT: Array, reference_logp_BT: Array, answer_BT: Array) -> Array:
    """Returns `(logp − reference_logp)² / 2`: biased in value, but on-policy its gradient is that of the divergence."""
    return jnp.square(_difference(logp_BT, reference_logp_BT, answer_BT)) / 2


def k3(logp_BT: Array, reference_logp_BT: Array, answer_BT: Array) -> Array:
    """Returns an unbiased, never negative estimate.

    difference = min(reference_logp − logp, 10)
    k3         = exp(difference) − difference − 1

    Where the difference is clamped, the estimate is constant, so that one token can't overflow the update.
    GRPO: Shao et al., arXiv 2402.03300, eq. 4.
    """
    difference_BT = jnp.minimum(_difference(logp_BT, reference_logp_BT, answer_BT), MAX_LOG_RATIO)
    return jnp.expm1(difference_BT) - difference_BT


def k3_straight(logp_BT: Array, reference_logp_BT: Array, answer_BT: Array) -> Array:
    """Returns k3 in value with the gradient of k2 (straight-through); verl calls it "k3+"."""
    value_BT, pulled_BT = (each(logp_BT, reference_logp_BT, answer_BT) for each in (k3, k2))
    return jax.lax.stop_gradient(value_BT) + (pulled_BT - jax.lax.stop_gradient(pulled_BT))


KLS = {"k1": k1, "k2": k2, "k3": k3, "k3_straight": k3_straight}


def _difference(logp_BT: Array, reference_logp_BT: Array, answer_BT: Array) -> Array:
    """Computes `reference_logp − logp`, 0 outside answers."""
    chex.assert_rank(logp_BT, 2)
    chex.assert_equal_shape([logp_BT, reference_logp_BT, answer_BT])
    chex.assert_type([logp_BT, reference_logp_BT, answer_BT], [float, float, int])
    inside_BT = answer_BT >= 0
    return jnp.where(inside_BT, reference_logp_BT, 0.0) - jnp.where(inside_BT, logp_BT, 0.0)
