"""Clip-Cov: takes the gradient from some of the tokens that lower the entropy most."""

import jax

from nft_jax.losses.advantage import normalized
from nft_jax.losses.ratio import assert_loss_inputs, bounded_ratio, log_ratio
from nft_jax.losses.registry import Measured, declare
from nft_jax.losses.surrogate import clipped_surrogate, is_clipped
from nft_jax.losses.whole_batch import covariance, share_of_tokens, smallest
from nft_jax.types import Array, LossBatch

CLIP = {"clip_low": 0.2, "clip_high": 0.2}


def choose_by_chance(
    logp_BT: Array,
    batch: LossBatch,
    *,
    share: float = 2e-4,
    covariance_low: float = 1.0,
    covariance_high: float = 5.0,
) -> LossBatch:
    """Chooses `share` of all tokens at random among those with a covariance between the bounds that PPO does not clip.

    Raises:
      ValueError: unless 0 < share ≤ 1 and covariance_low < covariance_high.
    """
    if not (0 < share <= 1 and covariance_low < covariance_high):
        raise ValueError(
            f"share must be in (0, 1], and covariance_low below covariance_high: not {share}, {covariance_low} and "
            f"{covariance_high}"
        )
    covariance_BT = covariance(logp_BT, batch)
    clipped_BT = is_clipped(bounded_ratio(log_ratio(logp_BT, batch)), batch, **CLIP) > 0
    among_BT = (batch.answer_BT >= 0) & ~clipped_BT
    among_BT &= (covariance_BT > covariance_low) & (covariance_BT < covariance_high)
    draw_BT = jax.vmap(jax.vmap(lambda key: jax.random.uniform(key, dtype=logp_BT.dtype)))(batch.key_BT)
    return batch._replace(choice_BT=smallest(draw_BT, among_BT, share_of_tokens(share, batch)))


@declare(
    unit="answer",
    normalizer="token_mean",
    groups="all",
    advantage=normalized,
    reads=("key", "choice"),
    prepare=choose_by_chance,
    forward=True,
)
def clip_cov(logp_BT: Array, batch: LossBatch) -> Measured:
    """Computes PPO's clipped surrogate (0.2/0.2), 0 for the chosen tokens.

    loss = −min(R · advantage, clip(R, 0.8, 1.2) · advantage) · (1 − choice)

    Shapes [B, T]; per token; 0 outside answers. Metric: `chosen`.
    Cui et al., arXiv 2505.22617, Clip-Cov.
    """
    assert_loss_inputs(logp_BT, batch)
    return clipped_surrogate(logp_BT, batch, **CLIP) * (1 - batch.choice_BT), {"chosen": batch.choice_BT}
