"""The values of a config.json as fields of a `ModelConfig`, and the other way, by the table of `families.py`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nft_jax.config import FULL_LAYER, WINDOW_LAYER, ModelConfig, RopeScaling
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.models.hf import rope_json
from nft_jax.models.hf.families import (
    DEFAULT_WINDOW,
    FAMILIES,
    FULL,
    HINTS,
    IRRELEVANT,
    MAX_POSITIONS,
    REQUIRED,
    SLIDING,
    Family,
)
from nft_jax.models.hf.kinds import kind_faults
from nft_jax.names import quote, suggestion, unknown

# Fields of a ModelConfig, with their keys in config.json.
_KEYS = {
    "vocab": "vocab_size",
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "mlp_width": "intermediate_size",
    "norm_epsilon": "rms_norm_eps",
}
_SWITCHES = ("tie_word_embeddings", "use_sliding_window")
# The parts of the decoder that a family has unless its entry says otherwise.
_PARTS = {
    "qkv_bias": False,
    "output_bias": False,
    "mlp_bias": False,
    "experts": 0,
    "experts_per_token": 0,
    "experts_normalized": False,
    "qk_norm": "none",
    "norms": "before",
    "norm_offset": 0.0,
    "activation": "silu",
    "embedding_scaled": False,
}
_SCALAR = "query_pre_attn_scalar"


def parse_settings(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Returns the fields of a `ModelConfig` that the values of a config.json determine; they came from `path`.

    A field that is null counts as absent.

    Raises:
      ValueError: if the file names another family, lacks fields, needs parts that the decoder lacks, or has fields
        that are neither read nor known to change no number.
    """
    family = _find_family(values, path)
    renamed = {new: old for new, old in family.renamed.items() if values.get(old) is None}
    values = {name: value for name, value in values.items() if name not in renamed.values()}
    values = {renamed.get(name, name): value for name, value in values.items()}
    values |= {name: value for name, value in family.defaults.items() if values.get(name) is None}
    mixed = family.window_theta
    rope, rope_faults = rope_json.read_ropes(values, mixed) if mixed else rope_json.read_rope(values)
    sizes = _size_faults(values, family)
    faults = sizes + rope_faults + _field_faults(values, family) + ([] if sizes else _layer_faults(values, family))
    if faults:
        raise ValueError(f"{path} can't be used:\n  " + "\n  ".join(faults))
    settings = {field: values[key] for field, key in _keys(family).items()}
    switches = {field: bool(values.get(key)) for key, fields in family.switches.items() for field in fields}
    head_size, scalar = values.get("head_dim") or settings["width"] // settings["heads"], values.get(_SCALAR)
    rope |= _kind_settings(values, family, rope)
    return _PARTS | settings | dict(family.settings) | switches | rope | {
        "norm_epsilon": float(settings["norm_epsilon"]),
        "head_size": head_size,
        "query_scalar": 0.0 if scalar in (None, head_size) else float(scalar),
        "tied_embedding": bool(values.get("tie_word_embeddings", False)),
    }  # fmt: skip


def _keys(family):
    """Returns the fields of a ModelConfig that are sizes, with their keys in the family's config.json."""
    return _KEYS | dict(family.sizes)


def _kind_settings(values, family, rope):
    """Returns the settings of the kinds of layers, of one kind if nothing distinguishes them, and of their windows.

    A window as long as the longest sequence that the model reads is none.
    """
    letters = "".join(WINDOW_LAYER if kind == SLIDING else FULL_LAYER for kind in family.layer_kinds(values))
    has_windows, most = WINDOW_LAYER in letters, _most_tokens(values, rope["rope_scaling"])
    window = (values.get("sliding_window") or DEFAULT_WINDOW) if has_windows else 0
    window = 0 if most and window >= most else window
    theta = rope.get("window_rope_theta", 0.0) if has_windows else 0.0
    if theta == rope["rope_theta"] and rope["rope_scaling"] == RopeScaling():
        theta = 0.0
    period = next(n for n in range(1, len(letters) + 1) if (letters[:n] * len(letters)).startswith(letters))
    kinds = letters[:period] if window or theta else FULL_LAYER
    return {"layer_kinds": kinds, "window": window, "window_rope_theta": theta}


def find_token_limit(values: Mapping[str, Any], path: Path) -> int | None:
    """Returns the most tokens of a sequence that the model of a config.json can read, or None if it names no number.

    They are its `max_position_embeddings`; rope scaling extends these to `factor` times those of the first training.
    """
    return _most_tokens(values, parse_settings(values, path)["rope_scaling"])


def _most_tokens(values, scaling):
    most = values.get("max_position_embeddings")
    return max(most, int(scaling.factor * scaling.original_tokens)) if most else None


def _find_family(values: Mapping[str, Any], path: Path) -> Family:
    family = next((family for family in FAMILIES if family.model_type == values.get("model_type")), None)
    if family is None:
        known = [family.model_type for family in FAMILIES]
        given = values.get("model_type")
        hint = HINTS.get(str(given), unknown("model_type", given, known))
        raise ValueError(f"{path}: {hint}")
    return family


def _size_faults(values, family):
    """Returns a line for each size that is missing or no number, or else does not fit the others."""
    faults = kind_faults(values, [*_SWITCHES, *family.switches], family.sizes.values())
    if not faults and not values.get("head_dim") and values["hidden_size"] % values["num_attention_heads"]:
        faults.append(
            f"num_attention_heads: {values['num_attention_heads']} does not divide hidden_size: "
            f"{values['hidden_size']}, and there is no head_dim"
        )
    if not faults and family.sizes and values["num_experts_per_tok"] > values["num_experts"]:
        faults.append(
            f"num_experts_per_tok: {values['num_experts_per_tok']} is above num_experts: {values['num_experts']}"
        )
    return faults


def _field_faults(values, family):
    """Returns a line for each field with a value that the decoder lacks, and for each unknown field."""
    required, faults = REQUIRED | dict(family.required), []
    read = set(_keys(family).values()) | set(rope_json.FIELDS) | {"head_dim", "tie_word_embeddings"}
    known = read | required.keys() | IRRELEVANT | family.switches.keys() | set(family.fields)
    for name, value in values.items():
        if name == "quantization_config" and value:
            method = value.get("quant_method", value) if isinstance(value, dict) else value
            faults.append(
                f"quantization_config: weights quantized by {quote(method)} can't be read; use the model that isn't "
                f"quantized, or a GGUF file of it"
            )
        elif value is None or name in known - required.keys() or value in required.get(name, ()):
            continue
        elif name in required:
            allowed = " or ".join(map(repr, required[name])) or "null"
            faults.append(f"{name}: {quote(value)} is not implemented, only {allowed}")
        else:
            faults.append(
                f"{name}: {quote(value)} is a field that {family.model_type} models here don't know"
                f"{suggestion(name, known)}; remove it from the file if the model computes the same without it"
            )
    return faults


def _layer_faults(values, family):
    """Returns a line for each field about windows that is not of its kind, or names unknown kinds of layers."""
    faults = [
        f"{name}: {quote(values[name])} is not a whole number"
        for name in ("sliding_window", "max_window_layers", "max_position_embeddings")
        if values.get(name) is not None and not (type(values[name]) is int and values[name] >= 0)
    ]
    if family.window_theta and values.get("sliding_window") == 0:
        faults.append("sliding_window: 0 leaves layers with windows nothing to attend to")
    kinds = values.get("layer_types")
    if kinds is not None and not (isinstance(kinds, list) and all(kind in (FULL, SLIDING) for kind in kinds)):
        faults.append(f"layer_types: {quote(kinds)} is not a list of {FULL!r} and {SLIDING!r}")
    elif kinds is not None and len(kinds) != values["num_hidden_layers"]:
        faults.append(f"layer_types: {len(kinds)} of them for num_hidden_layers: {values['num_hidden_layers']}")
    return faults


def describe_model(model: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the config.json of the first family that has this model; transformers 4 and 5 both read it.

    A model that no family has gets the model_type "nft_jax", which nothing else can read.
    """
    for family in FAMILIES:
        values = _describe(model, family, tokenizer)
        try:
            found = parse_settings(values, Path("config.json"))
        except ValueError:
            continue
        if dataclasses.replace(model, **found | {"vocab": model.vocab}) == model:
            return values
    return _describe(model, Family("nft_jax", "none"), tokenizer)


def _describe(model, family, tokenizer):
    """Returns the config.json of a model as one of a family, which may lack some of its parts."""
    values = {
        "architectures": [family.architecture],
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "dtype": "float32",
        "eos_token_id": list(tokenizer.eos_ids),
        "head_dim": model.head_size,
        "initializer_range": 0.02,
        "max_position_embeddings": MAX_POSITIONS,
        "model_type": family.model_type,
        "tie_word_embeddings": model.tied_embedding,
        "use_cache": True,
    }
    values |= {key: getattr(model, field) for field, key in _keys(family).items()}
    mixed = family.window_theta
    values |= rope_json.write_ropes(model) if mixed else rope_json.write_rope(model.rope_theta, model.rope_scaling)
    values |= {"vocab_size": tokenizer.vocab_size}
    values |= {key: allowed[0] for key, allowed in family.required.items() if allowed}
    values |= {key: getattr(model, fields[0]) for key, fields in family.switches.items()}
    values |= {key: write(model) for key, write in family.fields.items() if write}
    return dict(sorted(values.items()))
