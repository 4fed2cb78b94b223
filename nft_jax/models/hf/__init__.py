"""Reading and writing Hugging Face model folders: settings (config.json) and weights (safetensors)."""

from nft_jax.models.hf.config_json import (
    DTYPES,
    read_dtype,
    read_model_settings,
    read_token_limit,
    resolve_model,
    write_dtype,
    write_settings,
)
from nft_jax.models.hf.peft_folder import save_adapters
from nft_jax.models.hf.weights import check_weights, load_weights, save_weights

__all__ = [
    "DTYPES",
    "check_weights",
    "read_dtype",
    "load_weights",
    "read_model_settings",
    "read_token_limit",
    "resolve_model",
    "save_adapters",
    "save_weights",
    "write_dtype",
    "write_settings",
]
