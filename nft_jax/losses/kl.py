"""The KL penalty that some GRPO runs add to their loss."""

import chex
import jax.numpy as jnp

from nft_jax.losses.ratio import MAX_LOG_RATIO
from nft_jax.types import Array


def k3(logp_BT: Array, reference_logp_BT: Array, answer_BT: Array) -> Array:
    """Returns an unbiased, never negative estimate of KL(policy ‖ reference) from the sampled token, 0 outside answers.

    difference = min(reference_logp − logp, 10)
    k3         = exp(difference) − difference − 1

    In nats. Where the difference is clamped, the estimate is constant, so that one token can't overflow the update.
    Schulman, "Approximating KL divergence" (2020); GRPO: Shao et al., arXiv 2402.03300, eq. 4.
    """
    chex.assert_rank(logp_BT, 2)
    chex.assert_equal_shape([logp_BT, reference_logp_BT, answer_BT])
    chex.assert_type([logp_BT, reference_logp_BT, answer_BT], [float, float, int])
    inside_BT = answer_BT >= 0
    difference_BT = jnp.where(inside_BT, reference_logp_BT, 0.0) - jnp.where(inside_BT, logp_BT, 0.0)
    difference_BT = jnp.minimum(difference_BT, MAX_LOG_RATIO)
    return jnp.expm1(difference_BT) - difference_BT
