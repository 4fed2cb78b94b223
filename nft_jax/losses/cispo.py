"""Clipped importance-sampling-weight policy optimization."""

import jax
import jax.numpy as jnp

from nft_jax.losses.advantage import normalized
from nft_jax.losses.ratio import assert_loss_inputs, bounded_ratio, log_ratio
from nft_jax.losses.registry import Measured, declare
from nft_jax.losses.surrogate import check_clip
from nft_jax.types import Array, LossBatch


@declare(unit="answer", normalizer="token_mean", groups="all", advantage=normalized)
def cispo(logp_BT: Array, batch: LossBatch, *, clip_low: float = 1.0, clip_high: float = 4.0) -> Measured:
    """Clips the weight of a token, not its gradient: every token goes on to train.

    loss = −stop_gradient(clip(R, 1 − clip_low, 1 + clip_high)) · advantage · logp

    Shapes [B, T]; per token; 0 outside answers. Metric: `clipped`, tokens whose weight is.
    MiniMax, arXiv 2506.13585, objective J_CISPO, which leaves the lower bound open; TRL recommends an upper bound of 5
    after Khatri et al., arXiv 2510.13786.

    Raises:
      ValueError: unless 0 < clip_low ≤ 1 and clip_high > 0.
    """
    assert_loss_inputs(logp_BT, batch)
    check_clip(clip_low, clip_high)
    inside_BT = batch.answer_BT >= 0
    ratio_BT = jax.lax.stop_gradient(bounded_ratio(log_ratio(logp_BT, batch)))
    weight_BT = jnp.clip(ratio_BT, 1 - clip_low, 1 + clip_high)
    loss_BT = -weight_BT * batch.advantage_BT * jnp.where(inside_BT, logp_BT, 0.0)
    clipped_BT = inside_BT & (weight_BT != ratio_BT)
    return jnp.where(inside_BT, loss_BT, 0.0), {"clipped": clipped_BT.astype(logp_BT.dtype)}
