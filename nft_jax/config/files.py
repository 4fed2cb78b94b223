"""Config files: the defaults that they change, and the way from an `ml_collections.ConfigDict` to a `Config`."""

import ast
import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from nft_jax import losses
from nft_jax.config.config import Config
from nft_jax.config.setting import settings_of
from nft_jax.config.settings import Settings
from nft_jax.files import read_json_object
from nft_jax.names import quote, suggestion

# The section for the options of a loss that is not of this package ("module:function").
OWN = "own"


class EditableConfig(ConfigDict):
    """A `ConfigDict` whose error for an unknown name gives the nearest known one."""

    def __init__(self, values: Mapping[str, Any] | None = None, **options: Any):
        sections = {name: EditableConfig(v, **options) for name, v in (values or {}).items() if isinstance(v, dict)}
        super().__init__({**(values or {}), **sections}, **options)

    def __setattr__(self, name: str, value: Any) -> None:
        if self.is_locked and name not in self:
            raise AttributeError(unknown_setting(name, self))
        super().__setattr__(name, value)

    def __setitem__(self, name: str, value: Any) -> None:
        if self.is_locked and name not in self:
            raise KeyError(unknown_setting(name, self))
        if isinstance(value, ConfigDict) and not isinstance(value, EditableConfig):
            value = EditableConfig(value)  # a section as a whole
        super().__setitem__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(unknown_setting(name, self))
        return super().__getattr__(name)

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise KeyError(unknown_setting(name, self))
        return super().__getitem__(name)


def unknown_setting(name: str, known: typing.Iterable[str]) -> str:
    """Returns the message for a setting that is not among the known ones."""
    return f"the configuration has no setting {name!r}{suggestion(name, known)}"


def default() -> ConfigDict:
    """Returns the defaults, locked, for config files to change; `config.loss.NAME` holds the options of that loss."""
    values: dict[str, Any] = {}
    for setting in settings_of(Settings):
        *sections, name = setting.name.split(".")
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = setting.default
    del values["loss"]["options"]
    config = EditableConfig(values | {"loss": values["loss"] | loss_options()})
    config.lock()
    # Your own loss may have any options.
    config.loss[OWN].unlock()
    return config


def set_own_option(config: ConfigDict, name: str, text: str) -> None:
    """Sets an option of a loss that is not of this package; its value is read as true, false, a number, or text.

    Raises:
      ValueError: where `loss.name` is a loss of this package, whose options have a section of their own.
    """
    loss = config.loss.name
    if loss in losses.LOSSES:
        raise ValueError(
            f"--config.loss.{OWN}.{name} is for a loss of your own (config.loss.name=module:function), and "
            f"config.loss.name={loss!r}; write --config.loss.{loss}.{name}"
        )
    try:
        value = ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
    except (SyntaxError, ValueError):
        value = text
    with config.loss[OWN].unlocked():
        config.loss[OWN][name] = value


def loss_options() -> dict[str, dict[str, Any]]:
    """Returns the options of each loss with their defaults."""
    return {name: losses.default_options(name) for name in losses.LOSSES} | {OWN: {}}


def load(config: ConfigDict) -> Config:
    """Turns a `ConfigDict` into a checked `Config`, with `old_logp` filled in.

    Raises:
      ValueError: for an unknown or missing name, a value of another type, or a fault that `check` finds.
    """
    values = config.to_dict()
    if "loss" not in values or "name" not in values["loss"]:
        raise ValueError("config lacks loss.name; start from nft_jax.config.default()")
    # A name of another type can't be a key; `_build` reports it.
    name = str(values["loss"]["name"])
    options = values["loss"].get(name, values["loss"].get(OWN, {}))
    values["loss"] = {k: v for k, v in values["loss"].items() if k not in (*losses.LOSSES, OWN)}
    values["loss"]["options"] = options
    if values.get("old_logp") == "auto":
        values["old_logp"] = "current" if values.get("strict_on_policy") else "sampler"
    return _build(Config, values, "")


def read_saved_config(path: str) -> ConfigDict:
    """Returns the configuration that a run left in its `config.json`; the inverse of `to_dict`.

    Raises:
      ValueError: for a file that this version did not write, in one line.
    """
    values = read_json_object(Path(path))
    faults = list(_saved_faults(values, ""))
    loss = values.get("loss", {})
    faults += [f"loss.{name} is missing" for name in ("name", "options") if not faults and name not in loss]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ValueError(f"{path} is no configuration that this version wrote: {faults[0]}{more}")
    options, name = values["loss"].pop("options"), values["loss"]["name"]
    values["loss"][name if name in losses.LOSSES else OWN] = options
    config = default()
    try:
        config.update(values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Only the options of a loss have no settings of their own.
        raise ValueError(f"{path}: the options of loss {name!r} are none of this version: {error.args[0]}") from error
    return config


def _saved_faults(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Yields a line for each name that is no setting, and for each value of another type than its setting's."""
    known = {setting.name: setting for setting in settings_of(Settings)}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if path in known:
            kind = typing.get_origin(known[path].type) or known[path].type
            accepted = (int, float) if kind is float else kind
            if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):
                yield f"{path} is {quote(value)}; it must be {known[path].allowed}"
        elif not any(other.startswith(f"{path}.") for other in known):
            yield f"{quote(path)} is no setting{suggestion(path, known)}"
        elif not isinstance(value, dict):
            yield f"{path} is {quote(value)}, not an object {{…}}"
        else:
            yield from _saved_faults(value, f"{path}.")


def _build(kind: type, values: Mapping[str, Any], prefix: str) -> Any:
    types = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            raise ValueError(f"config.{prefix}{name}: no such setting{suggestion(name, known)}")
    if missing := [f"{prefix}{name}" for name in known if name not in values]:
        raise ValueError(f"config lacks {', '.join(missing)}; start from nft_jax.config.default()")
    arguments = {}
    for name, value in values.items():
        section = dataclasses.is_dataclass(types[name])
        read = _build if section else _typed
        arguments[name] = read(types[name], value, f"{prefix}{name}." if section else f"{prefix}{name}")
    return kind(**arguments)


def _typed(kind: type, value: Any, name: str) -> Any:
    plain = typing.get_origin(kind) or kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf  # which no setting allows
    if not isinstance(value, plain) or (kind is int and isinstance(value, bool)):
        allowed = next(setting.allowed for setting in settings_of(Settings) if setting.name == name)
        raise ValueError(
            f"config.{name}={quote(value)}: expected {plain.__name__}, got {type(value).__name__}; use {allowed}"
        )
    return value
