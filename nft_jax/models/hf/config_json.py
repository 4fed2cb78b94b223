"""The config.json of a Hugging Face Qwen2 model folder: reading it into a `ModelConfig`, and writing one.

To support a setting of another model of the family, change `_KEYS`, `read_model_settings` and `_make_config_json`.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from nft_jax.config import ModelConfig
from nft_jax.data.gguf_files import is_gguf
from nft_jax.data.model_folders import describe_contents, download_hint, read_json_object
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.models.hf import gguf
from nft_jax.rounding import round_up

DTYPES = ("float32", "bfloat16", "float16")
# Fields of a ModelConfig, with their keys in config.json and the types of their values.
_KEYS = {
    "vocab": ("vocab_size", int),
    "layers": ("num_hidden_layers", int),
    "width": ("hidden_size", int),
    "heads": ("num_attention_heads", int),
    "kv_heads": ("num_key_value_heads", int),
    "mlp_width": ("intermediate_size", int),
    "norm_epsilon": ("rms_norm_eps", float | int),
}
_FILES = ("config.json", "generation_config.json")
# Files beside config.json that make another model of the weights.
_QUANTIZED = "quantized weights, which can't be read; use the model that isn't quantized, or a GGUF file of it"
_BESIDE = {
    "adapter_config.json": "a LoRA adapter beside a model; merge it into the weights by peft, or move it away",
    "quantize_config.json": _QUANTIZED,
    "quant_config.json": _QUANTIZED,
}


def read_model_settings(folder: Path) -> dict[str, Any]:
    """Returns the fields of a `ModelConfig` that the folder's config.json determines; `vocab` is not rounded up.

    Raises:
      FileNotFoundError: if there is no such folder, or no config.json in it.
      ValueError: if the file is not JSON, names another architecture, lacks keys, or needs parts of Qwen2 that
        `transformer.py` does not implement.
    """
    path = folder / "config.json"
    values = read_config_json(folder)
    if values.get("model_type") != "qwen2":
        raise ValueError(
            f"{path}: model_type is {values.get('model_type')!r}; only 'qwen2' is supported, which is Qwen1.5, Qwen2, "
            f"Qwen2.5 and models fine-tuned from them"
        )
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    theta = rope.get("rope_theta", values.get("rope_theta"))
    faults = [
        f"{key}: {'missing' if values.get(key) is None else repr(values[key]) + ' is not a number above 0'}"
        for key, kind in _KEYS.values()
        if not (isinstance(values.get(key), kind) and values[key] > 0)
    ]
    if not isinstance(theta, float | int):
        faults.append("rope_theta (or rope_parameters.rope_theta): missing")
    faults += ([] if faults else _unsupported_sizes(values)) + _unsupported(values, rope)
    if faults:
        raise ValueError(f"{path} can't be used:\n  " + "\n  ".join(faults))
    settings = {field: values[key] for field, (key, _) in _KEYS.items()}
    return settings | {
        "norm_epsilon": float(settings["norm_epsilon"]),
        "rope_theta": float(theta),
        "head_size": values.get("head_dim") or settings["width"] // settings["heads"],
        "tied_embedding": bool(values.get("tie_word_embeddings", False)),
        "qkv_bias": True,
    }


def resolve_model(model: ModelConfig, folder: Path) -> ModelConfig:
    """Returns `model` with the folder's shape, and the vocabulary rounded up to a multiple of `vocab_multiple`.

    Raises:
      FileNotFoundError: as `read_model_settings`.
      ValueError: as `read_model_settings`, or if a field is neither at its default nor at the folder's value.
    """
    settings = read_model_settings(folder)
    vocabulary = settings["vocab"]
    settings["vocab"] = round_up(vocabulary, model.vocab_multiple)
    faults = []
    for field in dataclasses.fields(ModelConfig):
        name, given = field.name, getattr(model, field.name)
        if name not in settings or given in (field.default, settings[name]) or (name, given) == ("vocab", vocabulary):
            continue
        faults.append(
            f"config.model.{name}={given!r}, but the model in {folder} has {name}={settings[name]!r}; "
            f"leave it at its default {field.default!r} to use the folder's value"
        )
    if faults:
        raise ValueError("config.model contradicts the folder it names:\n  " + "\n  ".join(faults))
    return dataclasses.replace(model, **settings)


def write_settings(folder: Path, model: ModelConfig, tokenizer: Tokenizer, source: Path | None = None) -> None:
    """Writes the settings and the tokenizer of a model folder, that is, everything but the weights.

    The settings are copied byte for byte from the model folder `source`, translated from a GGUF file, or made from
    `model`. Made settings have the
    tokenizer's vocabulary: our padded table rows are never sampled here, so others must not get them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if source is None or is_gguf(source):
        values = _make_config_json(model, tokenizer) if source is None else read_config_json(source)
        values = values, {"eos_token_id": values["eos_token_id"]}
        files = {name: _to_json(each) for name, each in zip(_FILES, values, strict=True)}
    else:
        files = {name: (source / name).read_bytes() for name in _FILES if (source / name).is_file()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    tokenizer.save(folder)


def read_dtype(folder: Path) -> str:
    """Returns the dtype that the folder's config.json names for its weights, or float32 if it names none.

    Raises:
      FileNotFoundError: if there is no config.json.
      ValueError: if the dtype is not in `DTYPES`.
    """
    values = read_config_json(folder)
    dtype = str(values.get("dtype") or values.get("torch_dtype") or "float32").removeprefix("torch.")
    if dtype not in DTYPES:
        raise ValueError(f"{folder / 'config.json'}: dtype is {dtype!r}; set it to one of {', '.join(DTYPES)}")
    return dtype


def write_dtype(folder: Path, dtype: str) -> None:
    """Sets the dtype in the folder's config.json; a file that already names it stays unchanged."""
    values = read_config_json(folder)
    if (values.get("dtype") or values.get("torch_dtype") or "float32") != dtype:
        values.pop("torch_dtype", None)
        (folder / "config.json").write_bytes(_to_json(values | {"dtype": dtype}))


def read_config_json(folder: Path) -> dict[str, Any]:
    """Reads the folder's config.json, or what a GGUF file has in its place.

    Raises:
      FileNotFoundError: if there is no such folder or file, or no config.json in the folder.
      ValueError: if the file is not a JSON object, or as `gguf.read_config`.
    """
    if is_gguf(folder):
        return gguf.read_config(folder)
    path = folder / "config.json"
    if folder.is_file():
        raise ValueError(
            f"{folder} is a file, and neither a model folder nor a .gguf file; try its folder {path.parents[1]}"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, so it is not a model folder. {download_hint(folder)}")
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: no config.json in it, so it is not a model folder. {describe_contents(folder)}"
        )
    for name, content in _BESIDE.items():
        if (folder / name).is_file():
            raise ValueError(f"{folder} holds {content} ({name})")
    return read_json_object(path)


def _unsupported(values, rope):
    """Returns a line for each setting that `transformer.py` does not implement."""
    faults = []
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        faults.append(f"rope scaling {kind!r} is not implemented; set rope_scaling to null to go without it")
    if values.get("hidden_act", "silu") != "silu":
        faults.append(f"hidden_act: {values['hidden_act']!r} is not implemented, only 'silu'")
    if values.get("quantization_config"):
        faults.append("quantization_config: quantized weights can't be read; use the model that isn't quantized")
    return faults


def _unsupported_sizes(values):
    """Returns the same for settings that depend on the model's sizes, which must all be present."""
    faults = []
    layers, width, heads = (values[_KEYS[name][0]] for name in ("layers", "width", "heads"))
    windows = values.get("use_sliding_window") and values.get("sliding_window")
    kinds = values.get("layer_types") or ["sliding_attention"] * (values.get("max_window_layers", 28) < layers)
    if windows and "sliding_attention" in kinds:
        faults.append("use_sliding_window: true, but sliding windows are not implemented")
    if not values.get("head_dim") and width % heads:
        faults.append(f"num_attention_heads: {heads} does not divide hidden_size: {width}, and there is no head_dim")
    return faults


def _make_config_json(model, tokenizer):
    """Returns a config.json that transformers 5 (rope_parameters) and 4 (rope_theta) both read."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "dtype": "float32",
        "eos_token_id": list(tokenizer.eos_ids),
        "head_dim": model.head_size,
        "hidden_act": "silu",
        "hidden_size": model.width,
        "initializer_range": 0.02,
        "intermediate_size": model.mlp_width,
        "layer_types": ["full_attention"] * model.layers,
        # The field is required, but neither limits nor allocates anything here.
        "max_position_embeddings": 32768,
        "max_window_layers": model.layers,
        "model_type": "qwen2",
        "num_attention_heads": model.heads,
        "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
        "rms_norm_eps": model.norm_epsilon,
        "rope_parameters": {"rope_theta": model.rope_theta, "rope_type": "default"},
        "rope_theta": model.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": model.tied_embedding,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": tokenizer.vocab_size,
    }


def _to_json(values):
    return (json.dumps(values, indent=2) + "\n").encode()
