"""Decoupled clip and dynamic sampling policy optimization."""

from nft_jax.losses.advantage import overlong_normalized
from nft_jax.losses.ratio import assert_loss_inputs
from nft_jax.losses.registry import declare
from nft_jax.losses.surrogate import clipped_surrogate
from nft_jax.types import Array, LossBatch


@declare(unit="answer", normalizer="token_mean", groups="mixed", advantage=overlong_normalized)
def dapo(
    logp_BT: Array, batch: LossBatch, *, clip_low: float = 0.2, clip_high: float = 0.28, dual_clip: float = 0.0
) -> Array:
    """Computes the clipped surrogate with a larger upper bound; its advantage has a soft penalty on overlong answers.

    loss = −min(R · advantage, clip(R, 1 − clip_low, 1 + clip_high) · advantage)

    `dual_clip` above 0 bounds the loss of tokens with a negative advantage, as in `surrogate`; verl's default is 3.
    Shapes [B, T]; per token; 0 outside answers.
    Yu et al., arXiv 2503.14476, eq. 8.

    Raises:
      ValueError: unless 0 < clip_low ≤ 1, clip_high > 0, and dual_clip is 0 or above 1.
    """
    assert_loss_inputs(logp_BT, batch)
    return clipped_surrogate(logp_BT, batch, clip_low, clip_high, dual_clip)
