"""Hugging Face Qwen2 model folders, in and out: settings (config.json) and weights (safetensors)."""

from nft_jax.models.hf.settings import DTYPES, export_dtype, model_settings, resolved_model, set_dtype, write_settings
from nft_jax.models.hf.weights import check_weights, load_weights, save_weights

__all__ = [
    "DTYPES",
    "check_weights",
    "export_dtype",
    "load_weights",
    "model_settings",
    "resolved_model",
    "save_weights",
    "set_dtype",
    "write_settings",
]
