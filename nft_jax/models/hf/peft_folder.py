"""Writes adapters as a folder that the package `peft` loads onto the Hugging Face folder of their base."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from nft_jax.config import LoraConfig
from nft_jax.files import json_text
from nft_jax.models.hf.tensors import layer_tensor
from nft_jax.models.hf.weights import write_tensors
from nft_jax.models.lora import SUFFIX


def save_adapters(folder: Path, adapters: Any, lora: LoraConfig, base: str, dtype: str = "float32") -> int:
    """Writes `adapter_config.json` and `adapter_model.safetensors`.

    Args:
      adapters: The trained part of a model's weights.
      base: Path or name of the model folder that the adapters belong to.
      dtype: Dtype of the tensors.

    Returns:
      How many numbers were written.
    """
    tensors = {}
    for name, adapter in adapters["blocks"].items():
        for layer in range(adapter["a"].shape[0]):
            module = layer_tensor(layer, name.removesuffix(SUFFIX)).removesuffix(".weight")
            for part in ("a", "b"):
                # peft, like torch, has [outputs, inputs].
                value = np.asarray(adapter[part][layer]).T.astype(jnp.dtype(dtype), order="C")
                tensors[f"base_model.model.{module}.lora_{part.upper()}.weight"] = value
    write_tensors(folder / "adapter_model.safetensors", tensors)
    modules = [layer_tensor(0, name).split(".")[-2] for name in lora.target_names]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": modules,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json_text(config, 2) + "\n", encoding="utf-8")
    return sum(value.size for value in tensors.values())
