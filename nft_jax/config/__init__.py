"""The configuration of an experiment: every setting with its meaning and limits, the checks, and the config files."""

from nft_jax.config.config import Config, to_dict
from nft_jax.config.files import default, load, read_saved_config, set_own_option
from nft_jax.config.host_sections import (
    CompareConfig,
    DataConfig,
    EvaluationConfig,
    RecordConfig,
    VerifyConfig,
    WarmStartConfig,
)
from nft_jax.config.loss_section import DistillationConfig, LossConfig
from nft_jax.config.model_section import FULL_LAYER, WINDOW_LAYER, ModelConfig, RopeScaling
from nft_jax.config.sections import (
    LoraConfig,
    MeshConfig,
    OptimizerConfig,
    PackingConfig,
    RolloutConfig,
    SelectionConfig,
)
from nft_jax.config.setting import Phase, Setting, replace_value, settings_of, value_of

__all__ = [
    "CompareConfig",
    "Config",
    "DataConfig",
    "DistillationConfig",
    "EvaluationConfig",
    "FULL_LAYER",
    "LoraConfig",
    "LossConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PackingConfig",
    "Phase",
    "RecordConfig",
    "RolloutConfig",
    "RopeScaling",
    "SelectionConfig",
    "Setting",
    "VerifyConfig",
    "WINDOW_LAYER",
    "WarmStartConfig",
    "default",
    "load",
    "replace_value",
    "set_own_option",
    "to_dict",
    "settings_of",
    "read_saved_config",
    "value_of",
]
