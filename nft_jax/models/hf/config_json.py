"""The config.json of a Hugging Face model folder: reading it into a `ModelConfig`, and writing one.

`settings.py` reads and makes its values.
"""

import dataclasses
from pathlib import Path
from typing import Any

from nft_jax.config import ModelConfig, settings_of, value_of
from nft_jax.data.gguf_files import is_gguf
from nft_jax.data.model_folders import check_files, describe_contents, download_hint, read_json_object
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.files import json_text
from nft_jax.models.hf import gguf
from nft_jax.models.hf.settings import describe_model, find_token_limit, parse_settings
from nft_jax.names import quote
from nft_jax.rounding import round_up

DTYPES = ("float32", "bfloat16", "float16")
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
      ValueError: if the file is not JSON, or as `parse_settings`.
    """
    return parse_settings(read_config_json(folder), _config_path(folder))


def read_token_limit(folder: Path) -> int | None:
    """Returns the most tokens that the folder's model can read, as `find_token_limit`.

    Raises:
      FileNotFoundError, ValueError: as `read_model_settings`.
    """
    return find_token_limit(read_config_json(folder), _config_path(folder))


def resolve_model(model: ModelConfig, folder: Path) -> ModelConfig:
    """Returns `model` with the folder's shape, and the vocabulary rounded up to a multiple of `vocab_multiple`.

    Raises:
      FileNotFoundError: as `read_model_settings`.
      ValueError: as `read_model_settings`, or if a field is neither at its default nor at the folder's value.
    """
    settings = read_model_settings(folder)
    vocabulary = settings["vocab"]
    resolved = dataclasses.replace(model, **settings | {"vocab": round_up(vocabulary, model.vocab_multiple)})
    faults = []
    for setting in settings_of(ModelConfig):
        name, given, found = setting.name, value_of(model, setting.name), value_of(resolved, setting.name)
        if given not in (setting.default, found) and (name, given) != ("vocab", vocabulary):
            faults.append(
                f"config.model.{name}={given!r}, but the model in {folder} has {name}={found!r}; "
                f"leave it at its default {setting.default!r} to use the folder's value"
            )
    if faults:
        raise ValueError("config.model contradicts the folder it names:\n  " + "\n  ".join(faults))
    return resolved


def write_settings(folder: Path, model: ModelConfig, tokenizer: Tokenizer, source: Path | None = None) -> None:
    """Writes the settings and the tokenizer of a model folder, that is, everything but the weights.

    The settings are copied byte for byte from the model folder `source`, translated from a GGUF file, or made from
    `model`. Made settings have the tokenizer's vocabulary: our padded table rows are never sampled here, so others
    must not get them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if source is None or is_gguf(source):
        values = describe_model(model, tokenizer) if source is None else read_config_json(source)
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
        raise ValueError(f"{folder / 'config.json'}: dtype is {quote(dtype)}; set it to one of {', '.join(DTYPES)}")
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
    check_files(folder)
    for name, content in _BESIDE.items():
        if (folder / name).is_file():
            raise ValueError(f"{folder} holds {content} ({name})")
    return read_json_object(path)


def _config_path(folder):
    """Returns the file that the settings come from, to name it in errors."""
    return folder if is_gguf(folder) else folder / "config.json"


def _to_json(values):
    return (json_text(values, 2) + "\n").encode()
