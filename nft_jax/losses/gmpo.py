"""Geometric-mean policy optimization."""

import jax.numpy as jnp

from nft_jax.losses.advantage import normalized
from nft_jax.losses.ratio import assert_loss_inputs, bounded_ratio, log_ratio
from nft_jax.losses.reduce import answer_mean
from nft_jax.losses.registry import Measured, declare
from nft_jax.types import Array, LossBatch


@declare(unit="answer", normalizer="sequence_mean", groups="all", advantage=normalized)
def gmpo(logp_BT: Array, batch: LossBatch, *, clip_low: float = 0.4, clip_high: float = 0.4) -> Measured:
    """Clips each token's log ratio, on the side that the advantage pushes to, and weighs by their geometric mean.

    ℓ    = min(log R, clip_high) where advantage > 0, else max(log R, −clip_low)
    loss = −exp(mean of ℓ over the answer) · advantage

    Shapes [B, T]; per token; 0 outside answers. Metric: `clipped`, tokens without a gradient.
    Zhao et al., arXiv 2507.20673, objective J_GMPO; the bounds are those of section 4.

    Raises:
      ValueError: unless both bounds are above 0.
    """
    assert_loss_inputs(logp_BT, batch)
    for name, value in (("clip_low", clip_low), ("clip_high", clip_high)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be above 0, not {value}")
    log_ratio_BT = log_ratio(logp_BT, batch)
    up_BT, down_BT = batch.advantage_BT > 0, batch.advantage_BT < 0
    bounded_BT = jnp.where(up_BT, jnp.minimum(log_ratio_BT, clip_high), log_ratio_BT)
    bounded_BT = jnp.where(down_BT, jnp.maximum(log_ratio_BT, -clip_low), bounded_BT)
    loss_BT = -bounded_ratio(answer_mean(bounded_BT, batch.answer_BT)) * batch.advantage_BT
    inside_BT = batch.answer_BT >= 0
    clipped_BT = inside_BT & (bounded_BT != log_ratio_BT)
    return jnp.where(inside_BT, loss_BT, 0.0), {"clipped": clipped_BT.astype(logp_BT.dtype)}
