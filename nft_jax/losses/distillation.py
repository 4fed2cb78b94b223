"""On-policy distillation: pulls the policy to a teacher, token by token, on the policy's own samples."""

import dataclasses

import jax.numpy as jnp

from nft_jax.losses.kl import KLS, k3
from nft_jax.losses.registry import Loss, Measured, check_results
from nft_jax.types import Array, LossBatch

# k1 measures the divergence and has no gradient of it.
DISTILLATION_KLS = tuple(name for name in KLS if name != "k1")


@dataclasses.dataclass(frozen=True)
class Distillation:
    """The terms of a distillation.

    Attributes:
      weight: What multiplies the divergence from the teacher.
      kl: The estimate that is differentiated, a name in `DISTILLATION_KLS`.
      alone: Whether the loss itself is left out, with its `prepare`, and all groups train.
    """

    weight: float = 1.0
    kl: str = "k2"
    alone: bool = False


def distill(loss: Loss, terms: Distillation) -> Loss:
    """Returns the loss with an estimate of the reverse KL divergence from the teacher added to each token.

    loss = loss + weight · estimate(KL(policy ‖ teacher))
    k2   = (logp − teacher_logp)² / 2, whose mean gradient over the policy's own tokens is that of the divergence:
           Σ_v π(v) (log π(v) − log teacher(v)) ∇log π(v) = ∇KL(π ‖ teacher)

    Alone, the loss is the estimate, its normalizer `token_mean`, and all groups train; what is added to a loss is added
    to the estimate, so that a correction weighs it. Beside a loss, it is not corrected. Each token is pulled by its own
    divergence, and not by that of the tokens after it. After the first update of a rollout, the tokens are those of
    older weights, which nothing corrects.
    Metric: `teacher_kl`, k3, in nats, an unbiased estimate of the divergence a token.
    Agarwal et al., arXiv 2306.13649 (on-policy generalized knowledge distillation), with the reverse KL divergence; Lu,
    "On-policy distillation" (2025), from the sampled token alone.

    Raises:
      ValueError: for a distillation alone by a loss of pairs, which leaves most answers out.
    """
    if terms.alone and loss.unit != "answer":
        raise ValueError(f"loss {loss.name!r} learns from pairs, and distillation alone from all answers; name another")

    def evaluate(logp_BT: Array, batch: LossBatch) -> Measured:
        loss_BT, metrics = (jnp.zeros_like(logp_BT), {}) if terms.alone else loss.evaluate(logp_BT, batch)
        inputs = logp_BT, batch.teacher_logp_BT, batch.answer_BT
        return loss_BT + terms.weight * KLS[terms.kl](*inputs), metrics | {"teacher_kl": k3(*inputs)}

    if terms.alone:
        loss = dataclasses.replace(loss, groups="all", normalizer="token_mean", reads=(), prepare=None, forward=False)
    reads = tuple(sorted({*loss.reads, "teacher_logp"}))
    return check_results(dataclasses.replace(loss, measured=evaluate, reads=reads))
