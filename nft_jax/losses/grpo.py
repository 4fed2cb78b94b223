"""Group relative policy optimization, and the same without its two biases."""

from nft_jax.losses.advantage import centered, normalized
from nft_jax.losses.ratio import assert_loss_inputs
from nft_jax.losses.registry import declare
from nft_jax.losses.surrogate import clipped_surrogate
from nft_jax.types import Array, LossBatch


@declare(unit="answer", normalizer="sequence_mean", groups="all", advantage=normalized)
def grpo(
    logp_BT: Array, batch: LossBatch, *, clip_low: float = 0.2, clip_high: float = 0.2, dual_clip: float = 0.0
) -> Array:
    """Computes the clipped surrogate with rewards standardized in their group, averaged over each answer first.

    loss = −min(R · advantage, clip(R, 1 − clip_low, 1 + clip_high) · advantage)

    `dual_clip` above 0 bounds the loss of tokens with a negative advantage, as in `surrogate`; verl's default is 3.
    Shapes [B, T]; per token; 0 outside answers. The KL term of `loss.kl_weight` is `kl.k3`.
    Shao et al., arXiv 2402.03300, eq. 3.

    Raises:
      ValueError: unless 0 < clip_low ≤ 1, clip_high > 0, and dual_clip is 0 or above 1.
    """
    assert_loss_inputs(logp_BT, batch)
    return clipped_surrogate(logp_BT, batch, clip_low, clip_high, dual_clip)


@declare(unit="answer", normalizer="constant", groups="all", advantage=centered)
def dr_grpo(
    logp_BT: Array, batch: LossBatch, *, clip_low: float = 0.2, clip_high: float = 0.2, dual_clip: float = 0.0
) -> Array:
    """Computes GRPO without its biases: centers rewards without dividing by their std; averages over a constant length.

    loss = −min(R · advantage, clip(R, 1 − clip_low, 1 + clip_high) · advantage)

    `dual_clip` above 0 bounds the loss of tokens with a negative advantage, as in `surrogate`; verl's default is 3.
    Shapes [B, T]; per token; 0 outside answers.
    Liu et al., arXiv 2503.20783, section 3.2.

    Raises:
      ValueError: unless 0 < clip_low ≤ 1, clip_high > 0, and dual_clip is 0 or above 1.
    """
    assert_loss_inputs(logp_BT, batch)
    return clipped_surrogate(logp_BT, batch, clip_low, clip_high, dual_clip)
