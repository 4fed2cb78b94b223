"""Corrections of any loss for the gap between sampler and trainer, by name: what a token weighs, and whether it stays.

gap = exp(old_logp − sampler_logp), π_old recomputed by the trainer over the sampler's own probability
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.losses.ratio import bounded_ratio
from nft_jax.losses.reduce import answer_sum
from nft_jax.types import Array, LossBatch


class Correction(NamedTuple):
    """A correction with bounds.

    Attributes:
      weigh: `(log_gap_BT, answer_BT, low, high) -> weight_BT`, which multiplies the loss of each token.
      keep: `(log_gap_BT, answer_BT, low, high) -> keep_BT`, which tokens stay in the batch; None: all.
    """

    weigh: Callable[[Array, Array, float, float], Array]
    keep: Callable[[Array, Array, float, float], Array] | None = None


def log_gap(batch: LossBatch) -> Array:
    """Computes `old_logp − sampler_logp`, 0 outside answers; without a gradient."""
    inside_BT = batch.answer_BT >= 0
    difference_BT = jnp.where(inside_BT, batch.old_logp_BT, 0.0) - jnp.where(inside_BT, batch.sampler_logp_BT, 0.0)
    return jax.lax.stop_gradient(difference_BT)


def truncate(log_gap_BT: Array, answer_BT: Array, low: float, high: float) -> Array:
    """Returns `min(gap, high)` of each token: truncated importance sampling (TIS).

    Yao et al., "Your efficient RL framework secretly brings you off-policy RL training" (2025).
    """
    del answer_BT, low
    return jnp.minimum(bounded_ratio(log_gap_BT), high)


def truncate_answer(log_gap_BT: Array, answer_BT: Array, low: float, high: float) -> Array:
    """Returns `min(product of the gaps of an answer, high)`: TIS of whole answers."""
    return truncate(answer_sum(log_gap_BT, answer_BT), answer_BT, low, high)


def mask_tokens(log_gap_BT: Array, answer_BT: Array, low: float, high: float) -> Array:
    """Returns the gap where `low ≤ gap ≤ high`, else 0: IcePop. The denominators still count the token.

    Ling team, arXiv 2510.18855, objective J_IcePop.
    """
    del answer_BT
    gap_BT = bounded_ratio(log_gap_BT)
    return jnp.where((gap_BT >= low) & (gap_BT <= high), gap_BT, 0.0)


def weigh_answer(log_gap_BT: Array, answer_BT: Array, low: float, high: float) -> Array:
    """Returns the product of the gaps of an answer: its importance weight, for masked importance sampling (MIS).

    Liu et al., "When speed kills stability: demystifying RL collapse from the training-inference mismatch" (2025).
    """
    del low, high
    return bounded_ratio(answer_sum(log_gap_BT, answer_BT))


def keep_answer(log_gap_BT: Array, answer_BT: Array, low: float, high: float) -> Array:
    """Returns whether the product of the gaps of an answer is in `[low, high]`; other answers leave the batch."""
    gap_BT = weigh_answer(log_gap_BT, answer_BT, low, high)
    return (gap_BT >= low) & (gap_BT <= high)


CORRECTIONS = {
    "tis": Correction(truncate),
    "tis_answer": Correction(truncate_answer),
    "icepop": Correction(mask_tokens),
    "mis": Correction(weigh_answer, keep_answer),
}
