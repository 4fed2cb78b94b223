"""Hugging Face Qwen2 model folders made by NumPy, with the names and shapes of transformers."""

import json
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file, save_file

from helpers.small_parts import VOCABULARY, one_device
from nft_jax.config import ModelConfig
from nft_jax.models import hf
from nft_jax.models.sharded import build_model

# A config as a user writes it: it only sets how far the vocabulary is rounded up.
CONFIG = ModelConfig(vocab_multiple=8, remat="none")
# The shape of `small_parts.MODEL`.
SETTINGS = {
    "architectures": ["Qwen2ForCausalLM"],
    "dtype": "float32",
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_window_layers": 28,
    "model_type": "qwen2",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": VOCABULARY,
}
_LAYER = {
    "self_attn.q_proj.weight": (32, 32),
    "self_attn.q_proj.bias": (32,),
    "self_attn.k_proj.weight": (16, 32),
    "self_attn.k_proj.bias": (16,),
    "self_attn.v_proj.weight": (16, 32),
    "self_attn.v_proj.bias": (16,),
    "self_attn.o_proj.weight": (32, 32),
    "mlp.gate_proj.weight": (48, 32),
    "mlp.up_proj.weight": (48, 32),
    "mlp.down_proj.weight": (32, 48),
    "input_layernorm.weight": (32,),
    "post_attention_layernorm.weight": (32,),
}


def random_tensors(*, tied: bool = False, dtype: str = "float32", seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors of the model that `SETTINGS` describes, in the order of transformers."""
    shapes = {"model.embed_tokens.weight": (VOCABULARY, 32)}
    shapes |= {f"model.layers.{i}.{name}": shape for i in range(2) for name, shape in _LAYER.items()}
    shapes |= {"model.norm.weight": (32,)} | ({} if tied else {"lm_head.weight": (VOCABULARY, 32)})
    random, kind = np.random.default_rng(seed), getattr(ml_dtypes, dtype, None) or np.dtype(dtype)
    return {name: (0.2 * random.normal(size=shape)).astype(kind) for name, shape in shapes.items()}


def write_model(folder: Path, tensors: dict[str, np.ndarray], *, files: int = 1, **settings: Any) -> Path:
    """Writes config.json and the tensors, in one file or several with an index; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"tie_word_embeddings": "lm_head.weight" not in tensors} | settings
    (folder / "config.json").write_text(json.dumps(SETTINGS | settings, indent=2))
    if files == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names, place = list(tensors), {}
    for number in range(files):
        file, part = f"model-{number + 1:05d}-of-{files:05d}.safetensors", names[number::files]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        place |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return folder


def stored_tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of the folder's safetensors files."""
    return {name: x for path in sorted(folder.glob("*.safetensors")) for name, x in load_file(path).items()}


def write_tokenizer(folder: Path) -> Path:
    """Adds a small tokenizer with a chat template, as transformers writes them; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[unk]", "<|endoftext|>", "<|im_end|>", *"0123456789+-*/=(){}x,.", "\\boxed"][:VOCABULARY]
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[unk]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{ "eos_token":"<|endoftext|>"}')
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}\n")
    return folder


def abstract_weights(model: ModelConfig, mesh: jax.sharding.Mesh) -> Any:
    """Returns shapes and layouts of the model's weights on a mesh."""
    return build_model(model, VOCABULARY, mesh).abstract_weights()


def load_folder(folder: Path, mesh: jax.sharding.Mesh) -> Any:
    """Loads the folder's weights for `CONFIG`."""
    return hf.load_weights(folder, abstract_weights(hf.resolve_model(CONFIG, folder), mesh))


def weight_faults(folder: Path) -> str:
    """The message of `check_weights`, which must refuse the folder's weights."""
    with pytest.raises(ValueError) as raised:
        hf.check_weights(folder, abstract_weights(hf.resolve_model(CONFIG, folder), one_device()))
    assert str(folder) in str(raised.value)
    return str(raised.value)
