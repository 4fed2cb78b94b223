"""The naive contrast: the likelihood of correct answers against that of incorrect ones, a baseline for NFT."""

import jax.numpy as jnp

from nft_jax.losses.omega import OMEGAS, trained_rate
from nft_jax.losses.ratio import assert_loss_inputs, log_ratio
from nft_jax.losses.registry import declare, find
from nft_jax.types import Array, LossBatch


@declare(unit="answer", normalizer="constant", groups="mixed", by_verdicts=True)
def contrast(logp_BT: Array, batch: LossBatch, *, omega: str = "one_minus_rate", clamp_rate: bool = True) -> Array:
    """Pushes correct answers up and incorrect ones down with the same force, however improbable these already are.

    loss = −ω(rate) · (reward · log R − (1 − reward) · log R)

    `omega` and `clamp_rate` as in NFT, so that the two differ in the negative term alone.
    Shapes [B, T]; nats per token; 0 outside answers; unbounded below.
    A baseline for NFT that reviewers of Chen et al., arXiv 2505.18116, asked for.

    Raises:
      ValueError: for an unknown `omega`.
    """
    assert_loss_inputs(logp_BT, batch)
    weight_BT = find(omega, OMEGAS, "omega")(trained_rate(batch.rate_BT, clamp_rate))
    loss_BT = -weight_BT * (2 * batch.reward_BT - 1) * log_ratio(logp_BT, batch)
    return jnp.where(batch.answer_BT >= 0, loss_BT, 0.0)
