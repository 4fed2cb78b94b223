"""All settings for a reader: the text of `--help`, and the reference page `configs/settings.md`."""

import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from nft_jax.config.files import OWN, loss_options, unknown_setting
from nft_jax.config.setting import Limits, Phase, Setting, settings_of, value_of
from nft_jax.config.settings import Settings

_PAGE_HEAD = """\
# Settings

Written by `python -m nft_jax.config > configs/settings.md` from the fields in `nft_jax/config`. Change a setting in a
config file (`config.rollout.slots = 8`) or on the command line (`--config.rollout.slots=8`). A run resumes with another
value only of the settings that are marked "yes" in the last column. A stored warm start is used again only if all
settings are the same that decide its weights: `seed`, `model`, `data`, `warm_start`, `rollout.max_answer_tokens`.

The program computes in 32 bits. Where nothing less is said, a whole number is at most 2147483647, and another number is
finite, at most 3.4e+38, and if it must be above 0, at least 1.2e-38.
"""


class Section(NamedTuple):
    """Settings that have all but the last part of their names in common.

    Attributes:
      name: that part, such as "rollout"; empty for the settings of no section.
    """

    name: str
    note: str
    settings: list[Setting]


def sections() -> list[Section]:
    """Returns every section with its settings, and one for the options of each loss."""
    found: dict[str, Section] = {}
    for setting in settings_of(Settings):
        name = setting.name.rpartition(".")[0]
        if name not in found:
            found[name] = Section(name, _summary(type(value_of(Settings(), name)) if name else Settings), [])
        if setting.name != "loss.options":
            found[name].settings.append(setting)
    after = list(found).index("loss") + 1
    return [*list(found.values())[:after], *_loss_sections(), *list(found.values())[after:]]


def _loss_sections() -> Iterator[Section]:
    for loss, options in loss_options().items():
        if loss != OWN:
            settings = [
                Setting(f"loss.{loss}.{name}", type(value), value, "", Limits(), Phase.RUN)
                for name, value in options.items()
            ]
            yield Section(f"loss.{loss}", f"Options of loss.name={loss}; see nft_jax/losses/README.md.", settings)
    yield Section(f"loss.{OWN}", "Options of your own loss (loss.name=module:function), by their names there.", [])


def _summary(documented: Any) -> str:
    return inspect.getdoc(documented).partition("\n\n")[0].replace("\n", " ")


def check_names(words: list[str]) -> None:
    """Checks the names in the words `--config.NAME=VALUE` of a command line.

    Raises:
      ValueError: for an unknown setting, with the nearest known one.
    """
    listed = sections()
    known = {setting.name for section in listed for setting in section.settings}
    known |= {section.name for section in listed if section.name}
    for word in words:
        flag = word.partition("=")[0].lstrip("-").removeprefix("no")
        name = flag.removeprefix("config.")
        if word.startswith("-") and flag != name and name not in known and not name.startswith(f"loss.{OWN}."):
            raise ValueError(unknown_setting(name, known))


class OwnOptions(NamedTuple):
    """The words of a command line without the options of a loss of the user's own, and these options' texts by name."""

    rest: list[str]
    options: dict[str, str]


def take_own_options(words: list[str]) -> OwnOptions:
    """Takes `--config.loss.own.NAME=VALUE` out of the words: ml_collections refuses settings that no file has."""
    start, found = f"config.loss.{OWN}.", {}
    for word in words:
        name, _, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name.startswith(start):
            found[name.removeprefix(start)] = value
    return OwnOptions([word for word in words if not word.lstrip("-").startswith(start)], found)


def help_text(config: ConfigDict, name: str) -> str:
    """Returns every setting of a config (that is called `name`) with its value, note, limits and default."""
    lines = [f"settings, with their values in {name}; change one by --config.NAME=VALUE:"]
    for section in sections():
        lines += ["", *_wrapped(f"{section.name or 'no section'}: {section.note}", "  ")]
        for setting in section.settings:
            value = value_of(config, setting.name)
            details = [str(setting.limits)] if str(setting.limits) else []
            details += [f"default: {format_value(setting.default)}"] if value != setting.default else []
            lines.append(f"    {setting.name}={format_value(value)}")
            lines += _wrapped(setting.note + (f" ({'; '.join(details)})" if details else ""), " " * 8)
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def page() -> str:
    """Returns the reference page: a table for each section."""
    return "\n".join([_PAGE_HEAD, *(line for section in sections() for line in _table(section))])


def _table(section: Section) -> Iterator[str]:
    yield f"## {f'`{section.name}`' if section.name else 'Without a section'}\n\n{section.note}\n"
    if not section.settings:
        return
    options = section.name.startswith("loss.")
    yield "| option | default |" if options else "| setting | default | allowed | what it sets | may change |"
    yield "|---|---|" if options else "|---|---|---|---|---|"
    for setting in section.settings:
        start = f"| `{setting.name}` | `{format_value(setting.default)}` |"
        may_change = "" if setting.decides & Phase.RUN else "yes"
        yield start if options else f"{start} {setting.limits or _kind(setting)} | {setting.note} | {may_change} |"
    yield ""


def _kind(setting: Setting) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[setting.type]


def format_value(value: Any) -> str:
    """Returns a value as the command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value) or "''"
