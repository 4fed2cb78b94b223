"""KL-Cov: holds back the tokens that lower the entropy most."""

import jax
import jax.numpy as jnp

from nft_jax.losses.advantage import normalized
from nft_jax.losses.ratio import assert_loss_inputs, bounded_ratio, log_ratio
from nft_jax.losses.registry import Measured, declare
from nft_jax.losses.whole_batch import covariance, share_of_tokens, smallest
from nft_jax.types import Array, LossBatch


def choose_largest(logp_BT: Array, batch: LossBatch, *, share: float = 2e-4) -> LossBatch:
    """Chooses the `share` of all tokens with the largest covariance of advantage and log-prob.

    Raises:
      ValueError: unless 0 < share ≤ 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], not {share}")
    count = share_of_tokens(share, batch)
    return batch._replace(choice_BT=smallest(-covariance(logp_BT, batch), batch.answer_BT >= 0, count))


@declare(
    unit="answer",
    normalizer="token_mean",
    groups="all",
    advantage=normalized,
    reads=("choice",),
    prepare=choose_largest,
    forward=True,
)
def kl_cov(logp_BT: Array, batch: LossBatch, *, penalty: float = 1.0) -> Measured:
    """Computes the surrogate without a clip, and a penalty on the distance of the chosen tokens from π_old.

    loss = −R · advantage + penalty · choice · |log R|

    Shapes [B, T]; per token; 0 outside answers. Metric: `chosen`.
    Cui et al., arXiv 2505.22617, KL-Cov.

    Raises:
      ValueError: for a negative penalty.
    """
    assert_loss_inputs(logp_BT, batch)
    if not 0 <= penalty < float("inf"):
        raise ValueError(f"penalty must be 0 or more, not {penalty}")
    log_ratio_BT = log_ratio(logp_BT, batch)
    # |log R|, with the gradient 0 at R = 1, where `jnp.abs` has 1.
    distance_BT = log_ratio_BT * jax.lax.stop_gradient(jnp.sign(log_ratio_BT))
    loss_BT = -bounded_ratio(log_ratio_BT) * batch.advantage_BT + penalty * batch.choice_BT * distance_BT
    return jnp.where(batch.answer_BT >= 0, loss_BT, 0.0), {"chosen": batch.choice_BT}
