"""Rejection fine-tuning: learns from correct answers alone."""

import jax.numpy as jnp

from nft_jax.losses.ratio import assert_loss_inputs
from nft_jax.losses.registry import declare
from nft_jax.types import Array, LossBatch


@declare(unit="answer", normalizer="constant", groups="mixed", by_verdicts=True)
def rft(logp_BT: Array, batch: LossBatch) -> Array:
    """Maximizes the likelihood of the policy's own correct answers.

    loss = −reward · logp

    Its gradient is that of NFT with ω = 1 and `negative_weight` 0; their values differ by reward · old_logp.
    Shapes [B, T]; nats per token; 0 outside answers.
    Yuan et al., arXiv 2308.01825; as a baseline, Chen et al., arXiv 2505.18116.
    """
    assert_loss_inputs(logp_BT, batch)
    return -batch.reward_BT * jnp.where(batch.answer_BT >= 0, logp_BT, 0.0)
