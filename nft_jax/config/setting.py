"""One setting: its default, meaning, limits, and the phases of a run whose numbers it decides, kept with its field.

Checks, `--help`, the settings reference and the refusal of another config on resume are derived from these.
"""

import dataclasses
import enum
import functools
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, get_origin, get_type_hints

import numpy as np

from nft_jax.names import quote, suggestion

# The program computes in 32 bits: what no field bounds is bounded by them.
_INT, _FLOAT = np.iinfo(np.int32), np.finfo(np.float32)
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "options by name"}


# No path and no file of UTF-8 can hold it; halves of surrogate pairs stand for bytes that are no UTF-8.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class Phase(enum.Flag):
    """Phases of a run whose numbers a setting can decide; a phase can't resume with another value of such a setting.

    RUN: the steps of a run. WARM_START: the weights after the supervised warm start. NONE: speed, paths and what is
    written, but no number of a phase.
    """

    NONE = 0
    RUN = enum.auto()
    WARM_START = enum.auto()
    ALL = RUN | WARM_START


@dataclasses.dataclass(frozen=True)
class Limits:
    """The values that a setting may have.

    Attributes:
      choices: the only values; empty where any value of the type is possible.
      at_least, above, below, at_most: bounds of a number; None where it has no such bound.
    """

    choices: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    at_most: float | None = None

    def allow(self, value: Any) -> bool:
        """Whether a value is a choice and inside the bounds; NaN is inside no bound."""
        return (
            (not self.choices or value in self.choices)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        bounds = {
            "{} or more": self.at_least,
            "above {}": self.above,
            "{} or less": self.at_most,
            "below {}": self.below,
        }
        return " and ".join(text.format(_format(bound)) for text, bound in bounds.items() if bound is not None)


class Setting(NamedTuple):
    """One setting of a configuration.

    Attributes:
      name: its name on the command line, behind `--config.`, such as "rollout.slots".
      note: what it sets, with its unit.
      decides: the phases whose numbers it decides.
    """

    name: str
    type: type
    default: Any
    note: str
    limits: Limits
    decides: Phase

    @property
    def range(self) -> Limits:
        """The limits, with those of 32 bits where a number has no other."""
        if self.type not in (int, float):
            return self.limits
        least, most = (int(_INT.min), int(_INT.max)) if self.type is int else (float(_FLOAT.min), float(_FLOAT.max))
        lower = {} if self.limits.above is not None or self.limits.at_least is not None else {"at_least": least}
        upper = {} if self.limits.below is not None or self.limits.at_most is not None else {"at_most": most}
        return dataclasses.replace(self.limits, **lower, **upper)

    @property
    def allowed(self) -> str:
        """The values that it may have, in words."""
        return ", ".join(text for text in (_KINDS[get_origin(self.type) or self.type], str(self.range)) if text)

    def fault(self, value: Any) -> str | None:
        """The message for a value outside the limits, or None for one inside; float32 must keep a number inside."""
        if isinstance(value, str) and _NO_TEXT.search(value):
            return f"config.{self.name}={quote(value)}: must be text in UTF-8, without NUL"
        if self.limits.choices:
            if self.limits.allow(value):
                return None
            return f"config.{self.name}={quote(value)}: use {self.limits}{suggestion(value, self.limits.choices)}"
        if self.type not in (int, float):
            return None
        single = round_to_single(value) if self.type is float else value
        # A number that float32 takes for 0 would switch off what it sets.
        if self.range.allow(value) and self._has_inside(single) and (single or not value):
            return None
        rounded = f" ({value:g} is {single:g} in float32)" if self.range.allow(value) else ""
        return f"config.{self.name}={_show(value)}: must be {self.range}{rounded}"

    def _has_inside(self, single: float) -> bool:
        """Returns whether a rounded value is finite and not on a bound that is itself outside."""
        above, below = self.limits.above, self.limits.below
        return math.isfinite(single) and (above is None or single > above) and (below is None or single < below)


def round_to_single(value: float) -> float:
    """Returns the nearest number of float32, 0 for those so small that processors take them for 0."""
    with np.errstate(over="ignore", under="ignore"):
        single = float(np.float32(value))
    return 0.0 if abs(single) < _FLOAT.tiny else single


def _format(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _show(value: Any) -> str:
    return quote(value) if isinstance(value, int) else str(value)


def setting(default: Any, note: str, *, decides: Phase = Phase.ALL, **limits: Any) -> Any:
    """A field of a section.

    Args:
      default: the default, or a type whose call gives it.
      note: what the setting sets, with its unit.
      decides: the phases whose numbers it decides, if its section takes part in them.
      **limits: the fields of `Limits`.
    """
    metadata = {"note": note, "decides": decides, "limits": Limits(**limits)}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(kind: type, decides: Phase = Phase.ALL) -> Any:
    """A field that holds a section of settings, which can decide numbers of these phases only."""
    return dataclasses.field(default_factory=kind, metadata={"decides": decides})


@functools.cache
def settings_of(kind: type) -> tuple[Setting, ...]:
    """All settings of a dataclass and of its sections."""
    return tuple(_walk(kind, "", Phase.ALL))


def _walk(kind: type, prefix: str, phases: Phase) -> Iterator[Setting]:
    types = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name, about = f"{prefix}{field.name}", field.metadata
        decides = phases & about["decides"]
        if dataclasses.is_dataclass(types[field.name]):
            yield from _walk(types[field.name], f"{name}.", decides)
        else:
            default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
            yield Setting(name, types[field.name], default, about["note"], about["limits"], decides)


def value_of(config: Any, name: str) -> Any:
    """The value of the setting or section with this dotted name."""
    return functools.reduce(getattr, name.split("."), config)


def replace_value(config: Any, name: str, value: Any) -> Any:
    """Returns a copy of a configuration with another value of the setting or section with this dotted name."""
    first, _, rest = name.partition(".")
    return dataclasses.replace(config, **{first: replace_value(getattr(config, first), rest, value) if rest else value})
