"""The fields of config.json about rotary positions, as transformers 4 and 5 write them, and as settings of a model."""

from collections.abc import Mapping
from typing import Any

from nft_jax.config import ModelConfig, RopeScaling
from nft_jax.models.hf.kinds import is_positive
from nft_jax.names import quote

FIELDS = ("rope_parameters", "rope_scaling", "rope_theta")
FULL, SLIDING = "full_attention", "sliding_attention"  # kinds of layers
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
_OTHER_THETA = 500000  # what transformers 5 takes for layers with windows if the file has one theta for all layers


def read_rope(values: Mapping[str, Any], field: str = "rope_theta") -> tuple[dict[str, Any], list[str]]:
    """Returns the settings `rope_theta` and `rope_scaling`, and a line for each fault of their fields.

    Args:
      field: The field with the base of the wavelengths, where `rope_parameters` has none.
    """
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
    theta = rope.pop("rope_theta", values.get(field))
    if not is_positive(theta):
        faults.append(f"{field} (or rope_parameters.rope_theta): missing, or no number above 0")
    kind, old_name = rope.pop("rope_type", None), rope.pop("type", None)
    scaling, more = _read_scaling(kind or old_name or "default", rope, values)
    return {"rope_theta": theta if more + faults else float(theta), "rope_scaling": scaling}, faults + more


def read_ropes(values: Mapping[str, Any], window_theta: str) -> tuple[dict[str, Any], list[str]]:
    """Returns the same, and `window_rope_theta`, of a family whose layers with windows have positions of their own.

    transformers 5 has both under `rope_parameters`. In files of transformers 4, the field `window_theta` gives the
    `rope_theta` of layers with windows, and scaling concerns the others alone.
    """
    both = values.get("rope_parameters") or {}
    if not isinstance(both, dict) or both.keys() - {FULL, SLIDING}:
        return {}, [f"rope_parameters: {quote(both)} has other keys than {FULL!r} and {SLIDING!r}"]
    settings, faults = read_rope(values | {"rope_parameters": both.get(FULL)})
    window, more = read_rope(
        {"rope_parameters": both.get(SLIDING), window_theta: values.get(window_theta)}, window_theta
    )
    if not more and window["rope_scaling"] != RopeScaling():
        more = [f"{window['rope_scaling'].kind} is not implemented, only positions as they are"]
    faults += [f"rope_parameters.{SLIDING}: {fault}" for fault in more]
    alone = window_theta == "rope_theta" and not faults and "rope_theta" not in (both.get(SLIDING) or {})
    if alone and settings["rope_theta"] != _OTHER_THETA:
        faults.append(
            f"rope_theta: {settings['rope_theta']} counts for layers with windows in transformers 4, and "
            f"{_OTHER_THETA} does in transformers 5; say which by rope_parameters.{SLIDING}.rope_theta"
        )
    return settings | {"window_rope_theta": window.get("rope_theta")}, faults


def write_ropes(model: ModelConfig) -> dict[str, Any]:
    """Returns the same as `write_rope` for such a family, but for the field `window_theta`."""
    values = write_rope(model.rope_theta, model.rope_scaling)
    window = {"rope_theta": model.window_rope_theta or model.rope_theta, "rope_type": "default"}
    return values | {"rope_parameters": {FULL: values["rope_parameters"], SLIDING: window}}


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
