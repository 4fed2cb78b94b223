"""REINFORCE leave-one-out."""

from nft_jax.losses.advantage import leave_one_out
from nft_jax.losses.ratio import assert_loss_inputs
from nft_jax.losses.registry import Measured, declare
from nft_jax.losses.surrogate import measured_surrogate
from nft_jax.types import Array, LossBatch


@declare(unit="answer", normalizer="constant", groups="all", advantage=leave_one_out)
def rloo(logp_BT: Array, batch: LossBatch, *, clip_low: float = 0.2, clip_high: float = 0.2) -> Measured:
    """Computes the clipped surrogate with the other answers of the group as the baseline.

    loss = −min(R · advantage, clip(R, 1 − clip_low, 1 + clip_high) · advantage), advantage = K/(K − 1) (reward − rate)

    On-policy its gradient is that of REINFORCE with this baseline, and Dr. GRPO's times K/(K − 1).
    Shapes [B, T]; per token; 0 outside answers. Metric: `clipped`, tokens without a gradient.
    Ahmadian et al., arXiv 2402.14740, the leave-one-out estimator; the surrogate is for several updates a rollout.

    Raises:
      ValueError: unless 0 < clip_low ≤ 1 and clip_high > 0.
    """
    assert_loss_inputs(logp_BT, batch)
    return measured_surrogate(logp_BT, batch, clip_low, clip_high)
