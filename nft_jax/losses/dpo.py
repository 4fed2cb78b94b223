"""Direct preference optimization on pairs of a correct and an incorrect answer to the same prompt."""

import jax
import jax.numpy as jnp

from nft_jax.losses.ratio import assert_loss_inputs, log_ratio
from nft_jax.losses.reduce import answer_length, answer_sum
from nft_jax.losses.registry import declare
from nft_jax.types import Array, LossBatch


@declare(unit="pair", normalizer="pair_mean", groups="mixed", by_verdicts=True)
def dpo(logp_BT: Array, batch: LossBatch, *, beta: float = 0.1) -> Array:
    """Prefers the correct answer of a pair to the incorrect one, relative to the policy that sampled both.

    margin = sum of log R over the correct answer − sum of log R over the incorrect answer
    loss   = −log σ(beta · margin) / tokens of the pair

    The losses of a pair's tokens sum to the pair's loss. Both answers of a pair are in the same row.
    Shapes [B, T]; nats per token; 0 outside pairs.
    Rafailov et al., arXiv 2305.18290, eq. 7; iterative: Xu et al., arXiv 2312.16682.

    Raises:
      ValueError: unless beta > 0.
    """
    assert_loss_inputs(logp_BT, batch)
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta must be above 0, not {beta}")
    margin_BT = answer_sum((2 * batch.reward_BT - 1) * log_ratio(logp_BT, batch), batch.pair_BT)
    loss_BT = -jax.nn.log_sigmoid(beta * margin_BT) / answer_length(batch.pair_BT, logp_BT.dtype)
    return jnp.where(batch.pair_BT >= 0, loss_BT, 0.0)
