"""Soft adaptive policy optimization."""

import jax
import jax.numpy as jnp

from nft_jax.losses.advantage import normalized
from nft_jax.losses.ratio import assert_loss_inputs, bounded_ratio, log_ratio
from nft_jax.losses.registry import declare
from nft_jax.types import Array, LossBatch


@declare(unit="answer", normalizer="sequence_mean", groups="all", advantage=normalized)
def sapo(logp_BT: Array, batch: LossBatch, *, tau_positive: float = 1.0, tau_negative: float = 1.05) -> Array:
    """Lets the gradient of a token fade as its ratio leaves 1, in place of a clip.

    τ    = tau_positive where advantage > 0, else tau_negative
    loss = −4/τ · σ(τ (R − 1)) · advantage

    The gradient's weight is that of the unclipped surrogate at R = 1.
    Shapes [B, T]; per token; 0 outside answers.
    Gao et al., arXiv 2511.20347, objective J_SAPO and its gate f.

    Raises:
      ValueError: for a τ that is not above 0.
    """
    assert_loss_inputs(logp_BT, batch)
    for name, value in (("tau_positive", tau_positive), ("tau_negative", tau_negative)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be above 0, not {value}")
    tau_BT = jnp.where(batch.advantage_BT > 0, tau_positive, tau_negative).astype(logp_BT.dtype)
    gate_BT = jax.nn.sigmoid(tau_BT * (bounded_ratio(log_ratio(logp_BT, batch)) - 1)) * 4 / tau_BT
    return jnp.where(batch.answer_BT >= 0, -gate_BT * batch.advantage_BT, 0.0)
