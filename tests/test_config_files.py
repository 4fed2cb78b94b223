"""The shipped configs of named models: their shapes are those of the models' config.json, and their sizes divide."""

import dataclasses
from pathlib import Path

import jax
import pytest

from nft_jax import config_files
from nft_jax.config import load
from nft_jax.data.random_prompts import random_dataset
from nft_jax.models.hf.settings import parse_settings
from nft_jax.plan.program import build_planned_experiment

QWEN3 = {
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 40960,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
# Fields of config.json, and the number of weights, as published.
PUBLISHED = {
    "qwen3_8b_nft": (
        QWEN3
        | {
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_attention_heads": 32,
            "num_hidden_layers": 36,
            "tie_word_embeddings": False,
        },
        8_190_735_360,
    ),
    "qwen3_1p7b_gsm8k_grpo": (
        QWEN3
        | {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_attention_heads": 16,
            "num_hidden_layers": 28,
            "tie_word_embeddings": True,
        },
        1_720_574_976,
    ),
    "llama31_8b_nft": (
        {
            "model_type": "llama",
            "attention_bias": False,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "max_position_embeddings": 131072,
            "mlp_bias": False,
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "rms_norm_eps": 1e-05,
            "rope_scaling": {
                "factor": 8.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            "rope_theta": 500000.0,
            "tie_word_embeddings": False,
            "vocab_size": 128256,
        },
        8_030_261_248,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_config_has_the_shape_of_the_published_model(name):
    fields, weights = PUBLISHED[name]
    config = load(config_files.config(name))
    read = parse_settings(fields, Path("config.json"))
    assert {field: getattr(config.model, field) for field in read} == read
    # Two data shards where the config has sixteen; rows and candidates divide as they do there.
    experiment = build_planned_experiment(config, jax.devices()[:8], random_dataset(config, 1, prompts=64))
    assert experiment.model.parameters == weights
    assert experiment.config == dataclasses.replace(config, packing=experiment.config.packing)
