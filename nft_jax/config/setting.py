"""One setting: its default, meaning, limits, and the phases of a run whose numbers it decides, kept with its field.

Checks, `--help`, the settings reference and the refusal of another config on resume are derived from these.
"""

import dataclasses
import enum
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple, get_type_hints

from nft_jax.names import suggestion


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
            "{:g} or more": self.at_least,
            "above {:g}": self.above,
            "{:g} or less": self.at_most,
            "below {:g}": self.below,
        }
        return " and ".join(text.format(bound) for text, bound in bounds.items() if bound is not None)


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

    def fault(self, value: Any) -> str | None:
        """The message for a value outside the limits, or None for one inside."""
        if self.limits.allow(value):
            return None
        if self.limits.choices:
            return f"config.{self.name}={value!r}: use {self.limits}{suggestion(value, self.limits.choices)}"
        return f"config.{self.name}={value}: must be {self.limits}"


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
