"""Small random models of each family, by the fields of their config.json; with them those of published models.

PyTorch is imported where it is used: this module can be collected without it.
"""

from pathlib import Path
from typing import Any

VOCABULARY = 101
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0}
EXPERTS = {"moe_intermediate_size": 40, "num_experts": 5, "num_experts_per_tok": 2}
# Small models: the fields of each config.json beyond `SIZES`. Windows are shorter than most sequences of `parity.py`.
MODELS = {
    "qwen2": {"model_type": "qwen2", "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
    "qwen2 tied": {"model_type": "qwen2", "tie_word_embeddings": True},
    "llama": {"model_type": "llama"},
    "llama biases, rope": {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "head_dim": 8,
        "rope_parameters": LLAMA3 | {"rope_theta": 100.0, "original_max_position_embeddings": 32},
    },
    "llama linear rope": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
    },
    "mistral": {"model_type": "mistral", "sliding_window": None, "head_dim": 24},
    "qwen3": {"model_type": "qwen3", "head_dim": 24},
    "qwen3 biases, yarn": {
        "model_type": "qwen3",
        "attention_bias": True,
        "head_dim": 12,
        "rope_parameters": YARN | {"rope_theta": 100.0, "original_max_position_embeddings": 16},
    },
    "qwen3 experts": {"model_type": "qwen3_moe", **EXPERTS, "head_dim": 24, "norm_topk_prob": True},
    "qwen3 experts, biases": {
        **{"model_type": "qwen3_moe", **EXPERTS, "num_experts_per_tok": 3},
        **{"attention_bias": True, "head_dim": 16},
    },
    "qwen2 yarn, windows": {
        "model_type": "qwen2",
        "max_window_layers": 1,
        "rope_parameters": YARN | {"rope_theta": 100.0, "original_max_position_embeddings": 16},
        "sliding_window": 9,
        "use_sliding_window": True,
    },
    "mistral window": {"model_type": "mistral", "sliding_window": 9},
    "qwen3 experts, window": {
        **{"model_type": "qwen3_moe", **EXPERTS, "head_dim": 24},
        **{"max_window_layers": 1, "sliding_window": 6, "use_sliding_window": True},
    },
    "olmo2 biases, tied": {"model_type": "olmo2", "attention_bias": True, "tie_word_embeddings": True, "head_dim": 24},
    "olmo3 yarn, windows": {
        "model_type": "olmo3",
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "full_attention": YARN | {"rope_theta": 100.0, "original_max_position_embeddings": 16},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
        "sliding_window": 9,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 24,
        "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 40,
        "sliding_window": 7,
    },
    "gemma3 biases, untied, rope": {
        "model_type": "gemma3_text",
        "attention_bias": True,
        "head_dim": 16,
        "layer_types": ["full_attention", "sliding_attention"],
        "query_pre_attn_scalar": 16,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e3},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        },
        "sliding_window": 9,
        "tie_word_embeddings": False,
    },
}
GEMMA3 = {
    "model_type": "gemma3_text",
    "num_hidden_layers": 7,
    "rms_norm_eps": 1e-6,
    "rope_local_base_freq": 10000,
    "rope_theta": 1000000,
    "sliding_window_pattern": 6,
}
# The fields that decide how published models compute, but their sizes.
PUBLISHED = {
    "Llama-3.1-8B": {
        "model_type": "llama",
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": LLAMA3 | {"rope_theta": 5e5, "original_max_position_embeddings": 8192},
    },
    "Llama-3.2-1B": {
        "model_type": "llama",
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": LLAMA3 | {"factor": 32.0, "rope_theta": 5e5, "original_max_position_embeddings": 8192},
        "tie_word_embeddings": True,
    },
    "SmolLM2-135M": {
        "model_type": "llama",
        "max_position_embeddings": 8192,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "hidden_size": 72,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 1e5, "rope_type": "default"},
        "tie_word_embeddings": True,
    },
    "TinyLlama-1.1B": {
        "model_type": "llama",
        "max_position_embeddings": 2048,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"},
    },
    "Qwen3-8B": {
        "model_type": "qwen3",
        "head_dim": 32,
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
    },
    "Qwen3-1.7B": {
        "model_type": "qwen3",
        "head_dim": 32,
        "max_position_embeddings": 40960,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
        "tie_word_embeddings": True,
    },
    "Qwen3-30B-A3B": {
        "model_type": "qwen3_moe",
        **{"decoder_sparse_step": 1, "mlp_only_layers": [], "moe_intermediate_size": 24, "norm_topk_prob": True},
        **{"num_experts": 16, "num_experts_per_tok": 8, "router_aux_loss_coef": 0.001, "output_router_logits": False},
        "head_dim": 32,
        "max_position_embeddings": 40960,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
    },
    "Qwen2.5-7B with YaRN": {
        "model_type": "qwen2",
        "max_position_embeddings": 32768,
        "num_attention_heads": 7,
        "num_key_value_heads": 1,
        "hidden_size": 112,
        "rms_norm_eps": 1e-6,
        "rope_parameters": YARN | {"rope_theta": 1e6, "original_max_position_embeddings": 32768},
    },
    "Mistral-7B-v0.3": {
        "model_type": "mistral",
        "head_dim": 16,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
        "sliding_window": None,
    },
    "OLMo-2-32B": {
        "model_type": "olmo2",
        "max_position_embeddings": 4096,
        "num_attention_heads": 5,
        "num_key_value_heads": 1,
        "hidden_size": 80,
        "rms_norm_eps": 1e-6,
        "rope_theta": 500000,
    },
    "Olmo-3-7B": {
        "model_type": "olmo3",
        "max_position_embeddings": 65536,
        "num_hidden_layers": 5,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6,
        "rope_scaling": YARN
        | {
            "attention_factor": 1.2079441541679836,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
        },
        "rope_theta": 500000,
        "sliding_window": 4096,
    },
    "Gemma-3-1B": {
        **GEMMA3,
        "head_dim": 32,
        "max_position_embeddings": 32768,
        "num_key_value_heads": 1,
        "query_pre_attn_scalar": 32,
        "rope_scaling": None,
        "sliding_window": 512,
    },
    "Gemma-3-27B, text": {
        **GEMMA3,
        "head_dim": 16,
        "max_position_embeddings": 131072,
        "query_pre_attn_scalar": 21,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
}
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def random_model(folder: Path, name: str = "qwen2", *, layers: int = 2, seed: int = 0, **changes: Any) -> Any:
    """Returns a model of `MODELS` or `PUBLISHED` with biases and norms away from 0 and 1; also saves it to `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = SIZES | {"num_hidden_layers": layers} | (MODELS | PUBLISHED)[name] | changes
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields)).eval()
    table = 0.2 if fields["model_type"].startswith("gemma") else 0.4  # of a Gemma, which scales its embeddings
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            drawn = torch.randn(value.shape, generator=generator)
            if "norm" in name:
                # Layers must outweigh embeddings, or a tied model repeats its last token.
                drawn = value + 0.3 * drawn + 2 * ("post_feedforward" in name)
            elif "bias" in name:
                drawn = 0.5 * drawn
            else:
                drawn = drawn * (table if "embed" in name or "head" in name else value.shape[-1] ** -0.5)
            value.copy_(drawn)
    model.save_pretrained(folder)
    return model
