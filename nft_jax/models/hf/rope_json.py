"""The fields of config.json about rotary positions, as transformers 4 and 5 write them, and as a `RopeScaling`."""

from collections.abc import Mapping
from typing import Any

from nft_jax.config import RopeScaling
from nft_jax.models.hf.kinds import is_positive
from nft_jax.names import quote

FIELDS = ("rope_parameters", "rope_scaling", "rope_theta")
# The kinds of scaling, with the fields that each reads: the setting of `RopeScaling`, and whether it must be there.
_KINDS = {
    "default": {},
    "linear": {"factor": ("factor", True)},
    "llama3": {
        "factor": ("factor", True),
        "low_freq_factor": ("low_frequency", True),
        "high_freq_factor": ("high_frequency", True),
        "original_max_position_embeddings": ("original_tokens", True),
    },
    "yarn": {
        "factor": ("factor", True),
        "original_max_position_embeddings": ("original_tokens", True),
        "beta_fast": ("beta_fast", False),
        "beta_slow": ("beta_slow", False),
        "attention_factor": ("attention_factor", False),
        "truncate": ("truncate", False),
    },
}
_WHOLE = ("original_tokens",)


def read_rope(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the settings `rope_theta` and `rope_scaling`, and a line for each fault of their fields."""
    parts = [values.get(name) or {} for name in ("rope_parameters", "rope_scaling")]
    if not all(isinstance(part, dict) for part in parts):
        return {}, ["rope_parameters, rope_scaling: not an object {…}"]
    parts = [{name: value for name, value in part.items() if value is not None} for part in parts]
    faults = [
        f"rope_scaling.{name}: {quote(parts[1][name])} contradicts rope_parameters.{name}: {quote(parts[0][name])}"
        for name in parts[0].keys() & parts[1].keys()
        if parts[0][name] != parts[1][name]
    ]
    rope = parts[0] | parts[1]
    theta = rope.pop("rope_theta", values.get("rope_theta"))
    if not is_positive(theta):
        faults.append("rope_theta (or rope_parameters.rope_theta): missing")
    kind, old_name = rope.pop("rope_type", None), rope.pop("type", None)
    scaling, more = _read_scaling(kind or old_name or "default", rope, values)
    return {"rope_theta": theta if more + faults else float(theta), "rope_scaling": scaling}, faults + more


def write_rope(theta: float, scaling: RopeScaling) -> dict[str, Any]:
    """Returns the fields of config.json, which transformers 5 (rope_parameters) and 4 (the others) both read."""
    if scaling.kind == "none":
        return {"rope_parameters": {"rope_theta": theta, "rope_type": "default"}, "rope_theta": theta}
    values = {name: getattr(scaling, setting) for name, (setting, _) in _KINDS[scaling.kind].items()}
    if not values.get("attention_factor", 1):
        del values["attention_factor"]
    rope = {"rope_type": scaling.kind} | values
    return {"rope_parameters": {"rope_theta": theta} | rope, "rope_scaling": rope, "rope_theta": theta}


def _read_scaling(kind, rope, values):
    if not isinstance(kind, str) or kind not in _KINDS:
        known = ", ".join(map(repr, _KINDS))
        return None, [
            f"rope scaling {quote(kind)} is not implemented, only {known}; set rope_scaling to null to go without it"
        ]
    known = _KINDS[kind]
    if "original_max_position_embeddings" in known and "max_position_embeddings" in values:
        rope = {"original_max_position_embeddings": values["max_position_embeddings"]} | rope
    if rope.get("partial_rotary_factor") == 1:
        del rope["partial_rotary_factor"]
    faults = [
        f"rope scaling {kind!r} with {name}={quote(rope[name])} is not implemented" for name in rope.keys() - known
    ]
    settings = {}
    for name, (setting, needed) in known.items():
        if name not in rope and needed:
            faults.append(f"rope scaling {kind!r}: {name} is missing")
        elif name in rope and not (isinstance(rope[name], bool) if setting == "truncate" else is_positive(rope[name])):
            faults.append(f"rope scaling {kind!r}: {name}={quote(rope[name])} is not a number above 0")
        elif name in rope:
            convert = bool if setting == "truncate" else int if setting in _WHOLE else float
            settings[setting] = convert(rope[name])
    return RopeScaling("none" if kind == "default" else kind, **settings), faults
