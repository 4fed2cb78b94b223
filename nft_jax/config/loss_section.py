"""The sections of the loss: its own, and that of a teacher."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from nft_jax.config.setting import setting
from nft_jax.losses import CORRECTIONS, DISTILLATION_KLS, KLS, NO_CORRECTION, Additions, Distillation


@dataclass(frozen=True)
class LossConfig:
    """Which loss trains, and how it is averaged."""

    name: str = setting("nft", "a loss of this package, or your own as module:function")
    normalizer: str = setting(
        "", "how the losses of tokens become one number; empty: as the loss declares. See nft_jax/losses/reduce.py"
    )
    constant_tokens: float = setting(
        0.0, "tokens by which the normalizer `constant` divides each answer; 0: rollout.max_answer_tokens", at_least=0
    )
    kl_weight: float = setting(
        0.0, "weight of a KL term against the frozen starting weights; 0 keeps no copy of them", at_least=0
    )
    kl: str = setting(
        "k3",
        "estimate of the KL term from the sampled token, by the names of Schulman's note; k3_straight: k3 in value, k2 "
        "in gradient",
        choices=tuple(KLS),
    )
    entropy_weight: float = setting(
        0.0,
        "weight of an entropy bonus: a token's entropy times this is subtracted from its loss",
        at_least=0,
        at_most=1e6,
    )
    mask_truncated: bool = setting(
        False, "whether truncated answers are left out of the loss, before its denominators are counted"
    )
    correction: str = setting(
        NO_CORRECTION,
        "correction of the gap π_old/sampler, needs old_logp=recompute. tis: a token's loss times min(gap, high); "
        "tis_answer: times that of the product of an answer's gaps; icepop: times the gap, 0 outside [low, high]; mis: "
        "times the product of an answer's gaps, answers outside [low, high] left out as by mask_truncated",
        choices=(NO_CORRECTION, *CORRECTIONS),
    )
    correction_low: float = setting(0.5, "lower bound of the gap for icepop and mis", at_least=0, at_most=1e6)
    correction_high: float = setting(2.0, "upper bound of the gap for every correction", above=0, at_most=1e6)
    token_reward: str = setting(
        "",
        "your own function of token ids as module:function, which gives each token a reward; a token's advantage gets "
        "the sum of those from it to the end of its answer; empty: none",
    )
    options: dict[str, Any] = setting(dict, "the options of the loss, by name")

    @property
    def additions(self) -> Additions:
        """What is added to the loss itself."""
        return Additions(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Additions)})


@dataclass(frozen=True)
class DistillationConfig:
    """A teacher whose log-probs of the policy's own samples the policy is pulled to, alone or beside a loss."""

    teacher: str = setting("", "model folder of the teacher, with the policy's vocabulary; empty: none")
    weight: float = setting(1.0, "weight of the reverse KL divergence from the teacher", above=0, at_most=1e6)
    kl: str = setting(
        "k2", "estimate of it from the sampled token; k2 has its gradient on-policy", choices=DISTILLATION_KLS
    )
    alone: bool = setting(
        False, "whether the teacher alone trains: the loss is left out, with its normalizer, and all groups train"
    )

    @property
    def terms(self) -> Distillation | None:
        """What is added to the loss; None without a teacher."""
        return Distillation(self.weight, self.kl, self.alone) if self.teacher else None
