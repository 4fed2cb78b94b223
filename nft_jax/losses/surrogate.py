"""The clipped surrogate of PPO, and clips, which many losses share; they differ in ratio, advantage and normalizer."""

import jax.numpy as jnp

from nft_jax.losses.ratio import bounded_ratio, log_ratio
from nft_jax.losses.registry import Measured
from nft_jax.types import Array, LossBatch


def check_clip(clip_low: float, clip_high: float) -> None:
    """Checks the bounds 1 − clip_low and 1 + clip_high of a ratio.

    Raises:
      ValueError: unless 0 < clip_low ≤ 1 and clip_high > 0.
    """
    if not (0 < clip_low <= 1 and 0 < clip_high < float("inf")):
        raise ValueError(f"clip_low must be in (0, 1] and clip_high above 0, not {clip_low} and {clip_high}")


def clipped_surrogate(
    logp_BT: Array, batch: LossBatch, clip_low: float, clip_high: float, dual_clip: float = 0.0
) -> Array:
    """Computes the minimum of advantage times ratio and advantage times clipped ratio, negated.

    loss = −min(R · advantage, clip(R, 1 − clip_low, 1 + clip_high) · advantage)
    with dual_clip and advantage < 0: min(loss, −dual_clip · advantage), without a gradient beyond it

    Schulman et al., arXiv 1707.06347, eq. 7; dual clip: Ye et al., arXiv 1912.09729; verl's default is 3.

    Raises:
      ValueError: as `check_clip`, and unless dual_clip is 0 or above 1.
    """
    return clip_gain(bounded_ratio(log_ratio(logp_BT, batch)), batch, clip_low, clip_high, dual_clip)


def measured_surrogate(logp_BT: Array, batch: LossBatch, clip_low: float, clip_high: float) -> Measured:
    """Computes the clipped surrogate, and as the metric `clipped` which tokens it leaves without a gradient."""
    ratio_BT = bounded_ratio(log_ratio(logp_BT, batch))
    clipped_BT = is_clipped(ratio_BT, batch, clip_low, clip_high)
    return clip_gain(ratio_BT, batch, clip_low, clip_high), {"clipped": clipped_BT}


def clip_gain(ratio_BT: Array, batch: LossBatch, clip_low: float, clip_high: float, dual_clip: float = 0.0) -> Array:
    """Computes the clipped surrogate of any ratio, as `clipped_surrogate`."""
    check_clip(clip_low, clip_high)
    if dual_clip and not 1 < dual_clip < float("inf"):
        raise ValueError(f"dual_clip must be above 1, or 0 for none, not {dual_clip}")
    clipped_BT = jnp.clip(ratio_BT, 1 - clip_low, 1 + clip_high)
    loss_BT = -jnp.minimum(ratio_BT * batch.advantage_BT, clipped_BT * batch.advantage_BT)
    if dual_clip:
        bound_BT = jnp.minimum(loss_BT, -dual_clip * batch.advantage_BT)
        loss_BT = jnp.where(batch.advantage_BT < 0, bound_BT, loss_BT)
    return jnp.where(batch.answer_BT >= 0, loss_BT, 0.0)


def is_clipped(ratio_BT: Array, batch: LossBatch, clip_low: float, clip_high: float) -> Array:
    """Tells which tokens the clip leaves without a gradient, as float; 0 outside answers."""
    above_BT = (batch.advantage_BT > 0) & (ratio_BT > 1 + clip_high)
    below_BT = (batch.advantage_BT < 0) & (ratio_BT < 1 - clip_low)
    return ((above_BT | below_BT) & (batch.answer_BT >= 0)).astype(ratio_BT.dtype)
