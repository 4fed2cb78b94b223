"""Group sequence policy optimization."""

from nft_jax.losses.advantage import normalized
from nft_jax.losses.ratio import assert_loss_inputs, bounded_ratio, log_ratio
from nft_jax.losses.reduce import answer_mean
from nft_jax.losses.registry import Measured, declare
from nft_jax.losses.surrogate import clip_gain, is_clipped
from nft_jax.types import Array, LossBatch


@declare(unit="answer", normalizer="sequence_mean", groups="all", advantage=normalized)
def gspo(logp_BT: Array, batch: LossBatch, *, clip_low: float = 3e-4, clip_high: float = 4e-4) -> Measured:
    """Computes the clipped surrogate with one ratio an answer, the geometric mean of its tokens' ratios.

    s    = exp(mean of log R over the answer)
    loss = −min(s · advantage, clip(s, 1 − clip_low, 1 + clip_high) · advantage)

    Shapes [B, T]; per token; 0 outside answers. Metric: `clipped`, tokens without a gradient.
    Zheng et al., arXiv 2507.18071, objective J_GSPO and its ratio s_i; the bounds are those of section 5.1.

    Raises:
      ValueError: unless 0 < clip_low ≤ 1 and clip_high > 0.
    """
    assert_loss_inputs(logp_BT, batch)
    ratio_BT = bounded_ratio(answer_mean(log_ratio(logp_BT, batch), batch.answer_BT))
    clipped_BT = is_clipped(ratio_BT, batch, clip_low, clip_high)
    return clip_gain(ratio_BT, batch, clip_low, clip_high), {"clipped": clipped_BT}
