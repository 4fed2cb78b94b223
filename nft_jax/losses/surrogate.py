"""The clipped surrogate of PPO, which GRPO, Dr. GRPO and DAPO share; they differ in advantage, clip and normalizer."""

import jax.numpy as jnp

from nft_jax.losses.ratio import bounded_ratio, log_ratio
from nft_jax.types import Array, LossBatch


def clipped_surrogate(logp_BT: Array, batch: LossBatch, clip_low: float, clip_high: float) -> Array:
    """Computes the minimum of advantage times ratio and advantage times clipped ratio, negated.

    loss = −min(R · advantage, clip(R, 1 − clip_low, 1 + clip_high) · advantage)

    Schulman et al., arXiv 1707.06347, eq. 7.

    Raises:
      ValueError: unless 0 < clip_low ≤ 1 and clip_high > 0.
    """
    if not (0 < clip_low <= 1 and 0 < clip_high < float("inf")):
        raise ValueError(f"clip_low must be in (0, 1] and clip_high above 0, not {clip_low} and {clip_high}")
    ratio_BT = bounded_ratio(log_ratio(logp_BT, batch))
    clipped_BT = jnp.clip(ratio_BT, 1 - clip_low, 1 + clip_high)
    loss_BT = -jnp.minimum(ratio_BT * batch.advantage_BT, clipped_BT * batch.advantage_BT)
    return jnp.where(batch.answer_BT >= 0, loss_BT, 0.0)
