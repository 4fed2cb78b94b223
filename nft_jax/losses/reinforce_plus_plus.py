"""REINFORCE++: the clipped surrogate with advantages whitened over the whole batch."""

from nft_jax.losses.advantage import centered, raw
from nft_jax.losses.ratio import assert_loss_inputs
from nft_jax.losses.registry import Measured, declare
from nft_jax.losses.surrogate import measured_surrogate
from nft_jax.losses.whole_batch import whiten
from nft_jax.types import Array, LossBatch


def whiten_batch(logp_BT: None, batch: LossBatch) -> LossBatch:
    """Whitens the advantages over all answer tokens of the minibatch."""
    del logp_BT
    return whiten(batch)


@declare(unit="answer", normalizer="token_mean", groups="all", advantage=raw, prepare=whiten_batch)
def reinforce_plus_plus(logp_BT: Array, batch: LossBatch, *, clip_low: float = 0.2, clip_high: float = 0.2) -> Measured:
    """Computes the clipped surrogate with the reward in standard deviations from its mean over all answer tokens.

    loss = −min(R · advantage, clip(R, 1 − clip_low, 1 + clip_high) · advantage), advantage = (reward − mean) / std

    Shapes [B, T]; per token; 0 outside answers. Metric: `clipped`, tokens without a gradient.
    Hu et al., arXiv 2501.03262, global advantage normalization, without discount and KL penalty in the reward.

    Raises:
      ValueError: unless 0 < clip_low ≤ 1 and clip_high > 0.
    """
    assert_loss_inputs(logp_BT, batch)
    return measured_surrogate(logp_BT, batch, clip_low, clip_high)


@declare(unit="answer", normalizer="token_mean", groups="all", advantage=centered, prepare=whiten_batch)
def reinforce_plus_plus_baseline(
    logp_BT: Array, batch: LossBatch, *, clip_low: float = 0.2, clip_high: float = 0.2
) -> Measured:
    """Computes REINFORCE++ with the reward centered in its group first.

    Shapes [B, T]; per token; 0 outside answers. Metric: `clipped`, tokens without a gradient.
    Hu et al., arXiv 2501.03262, the variant with a group baseline.

    Raises:
      ValueError: unless 0 < clip_low ≤ 1 and clip_high > 0.
    """
    assert_loss_inputs(logp_BT, batch)
    return measured_surrogate(logp_BT, batch, clip_low, clip_high)
