"""Maximum-likelihood reinforcement learning."""

from nft_jax.losses.advantage import over_rate
from nft_jax.losses.ratio import assert_loss_inputs
from nft_jax.losses.registry import Measured, declare
from nft_jax.losses.surrogate import measured_surrogate
from nft_jax.types import Array, LossBatch


@declare(unit="answer", normalizer="constant", groups="all", advantage=over_rate)
def maxrl(logp_BT: Array, batch: LossBatch, *, clip_low: float = 0.2, clip_high: float = 0.2) -> Measured:
    """Computes the clipped surrogate with the centered reward over the success rate: the gradient of log pass rate.

    loss = −min(R · advantage, clip(R, 1 − clip_low, 1 + clip_high) · advantage), advantage = (reward − rate) / rate

    On-policy, NFT with `omega=odds` has this gradient.
    Shapes [B, T]; per token; 0 outside answers. Metric: `clipped`, tokens without a gradient.
    arXiv 2602.02710 (2026), the on-policy estimator.

    Raises:
      ValueError: unless 0 < clip_low ≤ 1 and clip_high > 0.
    """
    assert_loss_inputs(logp_BT, batch)
    return measured_surrogate(logp_BT, batch, clip_low, clip_high)
