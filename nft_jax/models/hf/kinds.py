"""The kinds of the values in a config.json, checked before any of them is used, because a file may hold anything."""

import math
from collections.abc import Collection, Mapping
from typing import Any

# The most of each size. Larger ones than published models come near are a fault of the file, and would fill the memory.
SIZES = {
    "vocab_size": 2**24,
    "num_hidden_layers": 1000,
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "num_attention_heads": 2**14,
    "num_key_value_heads": 2**14,
    "head_dim": 2**14,
    "max_position_embeddings": 2**31,
    "max_window_layers": 1000,
    "sliding_window": 2**31,
}
_OPTIONAL = ("head_dim", "max_position_embeddings", "max_window_layers", "sliding_window")


def kind_faults(values: Mapping[str, Any], switches: Collection[str]) -> list[str]:
    """Returns a line for each size, number or switch that is missing or of another kind; null counts as absent.

    Args:
      switches: Fields that are true, false or absent.
    """
    faults = []
    for name, most in SIZES.items():
        value = values.get(name)
        if value is None:
            faults += [f"{name}: missing"] * (name not in _OPTIONAL)
        elif type(value) is not int or not (name not in _OPTIONAL) <= value <= most:
            faults.append(f"{name}: {value!r} is not a whole number above 0, and at most {most:,}")
    if values.get("rms_norm_eps") is None:
        faults.append("rms_norm_eps: missing")
    elif not is_positive(values["rms_norm_eps"]):
        faults.append(f"rms_norm_eps: {values['rms_norm_eps']!r} is not a number above 0")
    return faults + [
        f"{name}: {values[name]!r} is neither true nor false"
        for name in switches
        if not isinstance(values.get(name), bool | None)
    ]


def is_positive(value: Any) -> bool:
    """Returns whether a value is a finite number above 0."""
    return type(value) in (int, float) and math.isfinite(value) and value > 0
