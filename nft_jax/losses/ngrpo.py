"""Negative-enhanced GRPO."""

from nft_jax.losses.advantage import calibrated
from nft_jax.losses.ratio import assert_loss_inputs
from nft_jax.losses.registry import Measured, declare
from nft_jax.losses.surrogate import measured_surrogate
from nft_jax.types import Array, LossBatch


@declare(unit="answer", normalizer="token_mean", groups="some_incorrect", advantage=calibrated)
def ngrpo(logp_BT: Array, batch: LossBatch, *, clip_low: float = 0.16, clip_high: float = 0.24) -> Measured:
    """Computes the clipped surrogate with a virtual correct answer in each group, so that all-incorrect groups train.

    loss = −min(R · advantage, clip(R, 1 − clip_low, 1 + clip_high) · advantage), advantage = `advantage.calibrated`

    Shapes [B, T]; per token; 0 outside answers. Metric: `clipped`, tokens without a gradient.
    Nan et al., arXiv 2509.18851, advantage calibration and asymmetric clipping, with the bounds of the authors' code.

    Raises:
      ValueError: unless 0 < clip_low ≤ 1 and clip_high > 0.
    """
    assert_loss_inputs(logp_BT, batch)
    return measured_surrogate(logp_BT, batch, clip_low, clip_high)
