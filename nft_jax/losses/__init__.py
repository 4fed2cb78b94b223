"""The losses by name: `loss(logp_BT, batch, *, options…) -> loss_BT`, one value per token, without the model."""

from collections.abc import Mapping

from nft_jax.losses.additions import NO_CORRECTION, Additions, extend
from nft_jax.losses.cispo import cispo
from nft_jax.losses.clip_cov import clip_cov
from nft_jax.losses.contrast import contrast
from nft_jax.losses.corrections import CORRECTIONS
from nft_jax.losses.dapo import dapo
from nft_jax.losses.distillation import DISTILLATION_KLS, Distillation, distill
from nft_jax.losses.dpo import dpo
from nft_jax.losses.dppo import dppo
from nft_jax.losses.gmpo import gmpo
from nft_jax.losses.grpo import dr_grpo, grpo
from nft_jax.losses.gspo import gspo
from nft_jax.losses.kl import KLS
from nft_jax.losses.kl_cov import kl_cov
from nft_jax.losses.maxrl import maxrl
from nft_jax.losses.nft import nft, ratio_statistics
from nft_jax.losses.ngrpo import ngrpo
from nft_jax.losses.reduce import NORMALIZERS, answer_sum, total_loss
from nft_jax.losses.registry import READS, UNITS, Loss, Traits, bind, declare, defaults, find
from nft_jax.losses.reinforce_plus_plus import reinforce_plus_plus, reinforce_plus_plus_baseline
from nft_jax.losses.rft import rft
from nft_jax.losses.rloo import rloo
from nft_jax.losses.sapo import sapo
from nft_jax.losses.signed import nsr, psr, w_reinforce
from nft_jax.losses.token_reward import TokenReward, bind_token_reward, load_token_reward, sum_to_end
from nft_jax.losses.whole_batch import batch_mean, count_rows, reject

__all__ = [
    "CORRECTIONS",
    "DISTILLATION_KLS",
    "KLS",
    "LOSSES",
    "NORMALIZERS",
    "NO_CORRECTION",
    "READS",
    "UNITS",
    "Additions",
    "Distillation",
    "Loss",
    "TokenReward",
    "Traits",
    "answer_sum",
    "batch_mean",
    "bind_token_reward",
    "count_rows",
    "declare",
    "default_options",
    "load_token_reward",
    "ratio_statistics",
    "reject",
    "resolve",
    "sum_to_end",
    "total_loss",
    *("cispo", "clip_cov", "contrast", "dapo", "dpo", "dppo", "dr_grpo", "gmpo", "grpo", "gspo", "kl_cov", "maxrl"),
    *("nft", "ngrpo", "nsr", "psr", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "rft", "rloo", "sapo"),
    "w_reinforce",
]

LOSSES = {
    each.__name__: each
    for each in (
        *(nft, rft, grpo, dr_grpo, dapo, dpo, contrast),
        *(maxrl, rloo, reinforce_plus_plus, reinforce_plus_plus_baseline, ngrpo, psr, nsr, w_reinforce),
        *(gspo, gmpo, cispo, sapo, dppo, clip_cov, kl_cov),
    )
}


def resolve(
    name: str,
    options: Mapping[str, object],
    additions: Additions = Additions(),  # noqa: B008
    distillation: Distillation | None = None,
) -> Loss:
    """Returns the loss called `name`, a key of `LOSSES` or "module:function", with its options and additions bound.

    A function that declares no traits gets unit "answer", normalizer "constant", groups "mixed", advantage `centered`.

    Raises:
      ValueError: for an unknown name, an unknown option, or a value out of range; before anything compiles.
    """
    loss = bind(name, find(name, LOSSES), options)
    if distillation is not None and distillation.alone:
        return extend(distill(loss, distillation), additions)
    loss = extend(loss, additions)
    return loss if distillation is None else distill(loss, distillation)


def default_options(name: str) -> dict[str, object]:
    """Returns the options of a loss and of its advantage with their defaults, from the signatures."""
    return defaults(find(name, LOSSES))
