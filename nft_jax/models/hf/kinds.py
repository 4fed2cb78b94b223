"""The kinds of the values in a config.json, checked before any of them is used, because a file may hold anything."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from nft_jax.config import ModelConfig, settings_of
from nft_jax.names import quote

_MOST = {setting.name: setting.range.at_most for setting in settings_of(ModelConfig)}
# The most of each size.
SIZES = {
    "vocab_size": _MOST["vocab"],
    "num_hidden_layers": _MOST["layers"],
    "hidden_size": _MOST["width"],
    "intermediate_size": _MOST["mlp_width"],
    "moe_intermediate_size": _MOST["mlp_width"],
    "num_experts": _MOST["experts"],
    "num_experts_per_tok": _MOST["experts_per_token"],
    "num_attention_heads": _MOST["heads"],
    "num_key_value_heads": _MOST["kv_heads"],
    "head_dim": _MOST["head_size"],
    "max_position_embeddings": 2**31,
    "max_window_layers": _MOST["layers"],
    "sliding_window": 2**31,
    "query_pre_attn_scalar": 2**20,
    "sliding_window_pattern": _MOST["layers"],
    "_sliding_window_pattern": _MOST["layers"],
}
_LARGEST = float(np.finfo(np.float32).max)
_MAY_BE_0 = ("head_dim", "max_position_embeddings", "max_window_layers", "sliding_window")
_OPTIONAL = (
    *(*_MAY_BE_0, "query_pre_attn_scalar", "sliding_window_pattern", "_sliding_window_pattern"),
    *("moe_intermediate_size", "num_experts", "num_experts_per_tok"),
)


def kind_faults(values: Mapping[str, Any], switches: Collection[str], sizes: Collection[str] = ()) -> list[str]:
    """Returns a line for each size, number or switch that is missing or of another kind; null counts as absent.

    Args:
      switches: Fields that are true, false or absent.
      sizes: Sizes that this family needs beyond those that all families need.
    """
    faults = []
    for name, most in SIZES.items():
        value = values.get(name)
        if value is None:
            faults += [f"{name}: missing"] * (name not in _OPTIONAL or name in sizes)
        elif type(value) is not int or not (name not in _MAY_BE_0) <= value <= most:
            faults.append(f"{name}: {quote(value)} is not a whole number above 0, and at most {most:,}")
    if values.get("rms_norm_eps") is None:
        faults.append("rms_norm_eps: missing")
    elif not is_positive(values["rms_norm_eps"]):
        faults.append(f"rms_norm_eps: {quote(values['rms_norm_eps'])} is not a number above 0")
    return faults + [
        f"{name}: {quote(values[name])} is neither true nor false"
        for name in switches
        if not isinstance(values.get(name), bool | None)
    ]


def is_positive(value: Any) -> bool:
    """Returns whether a value is a number above 0, and finite in float32."""
    return type(value) in (int, float) and 0 < value <= _LARGEST
