"""What all losses use: a check of their inputs, and the ratio of the policy to the one that sampled."""

import chex
import jax.numpy as jnp

from nft_jax.types import Array, LossBatch

# exp(10) ≈ 22026: too high to matter near the sampling policy, low enough for float32 gradients to stay finite.
MAX_LOG_RATIO = 10.0


def assert_loss_inputs(logp_BT: Array, batch: LossBatch) -> None:
    """Checks the inputs of a loss: same `[B, T]` shape throughout; ids are integers, all else is floating."""
    chex.assert_rank(logp_BT, 2)
    chex.assert_equal_shape([logp_BT, *(value for value in batch if value is not None)])
    chex.assert_type([logp_BT, batch.old_logp_BT, batch.reward_BT, batch.rate_BT, batch.advantage_BT], float)
    chex.assert_type([batch.answer_BT, batch.pair_BT], int)


def log_ratio(logp_BT: Array, batch: LossBatch) -> Array:
    """Computes `log R = logp − old_logp` of each token, 0 (value and gradient) outside answers.

    Both inputs are masked before the subtraction: on padding −inf − (−inf) would be a NaN, which `jax_debug_nans`
    reports even if it is masked later.
    """
    inside_BT = batch.answer_BT >= 0
    return jnp.where(inside_BT, logp_BT, 0.0) - jnp.where(inside_BT, batch.old_logp_BT, 0.0)


def bounded_ratio(log_ratio_BT: Array) -> Array:
    """Computes `R = exp(min(log R, 10))`: constant, so without gradient, beyond the bound."""
    return jnp.exp(jnp.minimum(log_ratio_BT, MAX_LOG_RATIO))
