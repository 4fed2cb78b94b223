"""All settings of an experiment."""

from dataclasses import dataclass

from nft_jax import losses
from nft_jax.config.host_sections import (
    CompareConfig,
    DataConfig,
    EvaluationConfig,
    RecordConfig,
    VerifyConfig,
    WarmStartConfig,
)
from nft_jax.config.loss_section import DistillationConfig, LossConfig
from nft_jax.config.model_section import ModelConfig
from nft_jax.config.sections import (
    LoraConfig,
    MeshConfig,
    OptimizerConfig,
    PackingConfig,
    RolloutConfig,
    SelectionConfig,
)
from nft_jax.config.setting import Phase, section, setting
from nft_jax.losses import Loss

ALL, RUN, NONE = Phase.ALL, Phase.RUN, Phase.NONE


@dataclass(frozen=True)
class Settings:
    """The experiment as a whole. A step trains on prompts_per_step × answers_per_prompt answers.

    These settings are unchecked; `Config` adds the checks.
    """

    seed: int = setting(0, "seed of all random numbers", at_least=0, at_most=2**32 - 1)
    steps: int = setting(
        100, "steps of the run; may change where optimizer.schedule is constant", at_least=1, decides=RUN
    )
    prompts_per_step: int = setting(64, "prompts that a step trains on", at_least=1, decides=RUN)
    answers_per_prompt: int = setting(16, "answers of a prompt, which are its group", at_least=1, decides=RUN)
    updates_per_step: int = setting(
        1, "optimizer updates of a step; a divisor of prompts_per_step", at_least=1, decides=RUN
    )
    strict_on_policy: bool = setting(
        False, "whether the settings must be such that the ratio is 1 in every update", decides=RUN
    )
    old_logp: str = setting(
        "auto",
        "where log π_old comes from. sampler: as it was sampled; current: in the first update of a step the forward "
        "pass of the update itself, so that the ratio is exactly 1, in later ones the sampler; recompute: in the first "
        "as current, in later ones a second forward pass before all updates; auto: current if strict_on_policy, else "
        "sampler",
        choices=("auto", "sampler", "recompute", "current"),
        decides=RUN,
    )
    base: str = setting(
        "", "workdir whose weights the run starts from; empty: those of the warm start or of model.path", decides=NONE
    )
    model: ModelConfig = section(ModelConfig)
    lora: LoraConfig = section(LoraConfig)
    data: DataConfig = section(DataConfig)
    rollout: RolloutConfig = section(RolloutConfig)
    selection: SelectionConfig = section(SelectionConfig, RUN)
    loss: LossConfig = section(LossConfig, RUN)
    distillation: DistillationConfig = section(DistillationConfig, RUN)
    optimizer: OptimizerConfig = section(OptimizerConfig, RUN)
    packing: PackingConfig = section(PackingConfig, NONE)
    mesh: MeshConfig = section(MeshConfig, NONE)
    verify: VerifyConfig = section(VerifyConfig, RUN)
    warm_start: WarmStartConfig = section(WarmStartConfig, Phase.WARM_START)
    evaluation: EvaluationConfig = section(EvaluationConfig, RUN)
    record: RecordConfig = section(RecordConfig, NONE)
    compare: CompareConfig = section(CompareConfig, NONE)

    def resolve_loss(self) -> Loss:
        """Returns the loss with all that is added to it; raises as `losses.resolve`."""
        return losses.resolve(self.loss.name, self.loss.options, self.loss.additions, self.distillation.terms)

    @property
    def candidates_per_round(self) -> int:
        """Candidate prompts of a round."""
        return self.selection.candidates_per_round or self.prompts_per_step

    @property
    def prompts_are_shared(self) -> bool:
        """Whether rows hold answers alone (`packing.share_prompts`)."""
        choice = self.packing.share_prompts
        return choice == "yes" or (choice == "auto" and self.answers_per_prompt > 1)

    @property
    def carry_capacity(self) -> int:
        """Most groups that a step carries, 0 for none: fewer than a step trains on, so that every step samples."""
        return min(self.candidates_per_round, self.prompts_per_step) - 1 if self.selection.carry else 0
