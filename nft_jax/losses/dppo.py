"""Divergence proximal policy optimization."""

import jax
import jax.numpy as jnp

from nft_jax.losses.advantage import normalized
from nft_jax.losses.ratio import assert_loss_inputs, bounded_ratio, log_ratio
from nft_jax.losses.registry import Measured, declare
from nft_jax.names import lookup
from nft_jax.types import Array, LossBatch


def _total_variation(prob_BT: Array, old_prob_BT: Array, log_ratio_BT: Array) -> Array:
    del log_ratio_BT
    return jnp.abs(prob_BT - old_prob_BT)


def _kl(prob_BT: Array, old_prob_BT: Array, log_ratio_BT: Array) -> Array:
    """KL(old ‖ new) between "this token" and "another one"; a number that is added keeps the logarithms finite."""
    rest_BT = jnp.log((jnp.maximum(1 - old_prob_BT, 0) + 1e-8) / (jnp.maximum(1 - prob_BT, 0) + 1e-8))
    return -old_prob_BT * log_ratio_BT + (1 - old_prob_BT) * rest_BT


DIVERGENCES = {"tv": _total_variation, "kl": _kl}


@declare(unit="answer", normalizer="constant", groups="all", advantage=normalized)
def dppo(
    logp_BT: Array,
    batch: LossBatch,
    *,
    divergence: str = "tv",
    limit_low: float = 0.15,
    limit_high: float = 0.15,
    max_ratio: float = 20.0,
) -> Measured:
    """Stops a token whose probability, not whose ratio, has moved too far to the side that the advantage pushes to.

    keep = 0 where advantage > 0, R > 1, D > limit_high, or advantage ≤ 0, R < 1, D > limit_low; else 1
    loss = −stop_gradient(min(R, max_ratio)) · advantage · keep · logp

    D is the divergence of the two distributions over "this token" and "another one": `divergence` "tv", |π − π_old|, or
    "kl", KL(π_old ‖ π), for which verl's example has limits of 0.05.
    Shapes [B, T]; per token; 0 outside answers. Metric: `clipped`, tokens without a gradient.
    Qi et al., arXiv 2602.04879, binary TV and KL masks; `max_ratio`: section 5.4.

    Raises:
      ValueError: for an unknown divergence, a negative limit, or a max_ratio below 1.
    """
    assert_loss_inputs(logp_BT, batch)
    measure = lookup(DIVERGENCES, divergence, "divergence")
    if not (limit_low >= 0 and limit_high >= 0 and max_ratio >= 1):
        raise ValueError(f"limits must be 0 or more, and max_ratio 1: not {limit_low}, {limit_high} and {max_ratio}")
    inside_BT = batch.answer_BT >= 0
    log_ratio_BT = jax.lax.stop_gradient(log_ratio(logp_BT, batch))
    inside_logp_BT = jnp.where(inside_BT, logp_BT, 0.0)
    prob_BT = jnp.exp(jax.lax.stop_gradient(inside_logp_BT))
    old_prob_BT = jnp.exp(jnp.where(inside_BT, batch.old_logp_BT, 0.0))
    distance_BT = measure(prob_BT, old_prob_BT, log_ratio_BT)
    above_BT = (batch.advantage_BT > 0) & (log_ratio_BT > 0) & (distance_BT > limit_high)
    below_BT = (batch.advantage_BT <= 0) & (log_ratio_BT < 0) & (distance_BT > limit_low)
    keep_BT = inside_BT & ~above_BT & ~below_BT
    weight_BT = jnp.minimum(bounded_ratio(log_ratio_BT), max_ratio) * batch.advantage_BT
    loss_BT = -weight_BT * inside_logp_BT
    return jnp.where(keep_BT, loss_BT, 0.0), {"clipped": (inside_BT & ~keep_BT).astype(logp_BT.dtype)}
