"""Positive and negative sample reinforcement: the parts of REINFORCE that learn from correct and incorrect answers."""

from nft_jax.losses.advantage import deficit, raw, signed
from nft_jax.losses.ratio import assert_loss_inputs
from nft_jax.losses.registry import Measured, declare
from nft_jax.losses.surrogate import measured_surrogate
from nft_jax.types import Array, LossBatch


@declare(unit="answer", normalizer="token_mean", groups="all", advantage=raw)
def psr(logp_BT: Array, batch: LossBatch, *, clip_low: float = 0.2, clip_high: float = 0.2) -> Measured:
    """Computes the clipped surrogate of correct answers alone: advantage 1 if correct, else 0.

    Shapes [B, T]; per token; 0 outside answers. Metric: `clipped`, tokens without a gradient.
    Zhu et al., arXiv 2506.01347, positive sample reinforcement (PSR).

    Raises:
      ValueError: unless 0 < clip_low ≤ 1 and clip_high > 0.
    """
    assert_loss_inputs(logp_BT, batch)
    return measured_surrogate(logp_BT, batch, clip_low, clip_high)


@declare(unit="answer", normalizer="token_mean", groups="all", advantage=deficit)
def nsr(logp_BT: Array, batch: LossBatch, *, clip_low: float = 0.2, clip_high: float = 0.2) -> Measured:
    """Computes the clipped surrogate of incorrect answers alone: advantage −1 if incorrect, else 0.

    Shapes [B, T]; per token; 0 outside answers. Metric: `clipped`, tokens without a gradient.
    Zhu et al., arXiv 2506.01347, negative sample reinforcement (NSR).

    Raises:
      ValueError: unless 0 < clip_low ≤ 1 and clip_high > 0.
    """
    assert_loss_inputs(logp_BT, batch)
    return measured_surrogate(logp_BT, batch, clip_low, clip_high)


@declare(unit="answer", normalizer="token_mean", groups="all", advantage=signed)
def w_reinforce(logp_BT: Array, batch: LossBatch, *, clip_low: float = 0.2, clip_high: float = 0.2) -> Measured:
    """Computes λ · PSR + NSR; λ is `positive_weight` of its advantage.

    Shapes [B, T]; per token; 0 outside answers. Metric: `clipped`, tokens without a gradient.
    Zhu et al., arXiv 2506.01347, weighted REINFORCE, with λ = 0.1.

    Raises:
      ValueError: unless 0 < clip_low ≤ 1 and clip_high > 0.
    """
    assert_loss_inputs(logp_BT, batch)
    return measured_surrogate(logp_BT, batch, clip_low, clip_high)
