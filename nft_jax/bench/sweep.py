"""Measures one setting at several values, each in its own process, with its own memory and compilation."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nft_jax import command_words
from nft_jax.bench.workload import read_lengths
from nft_jax.config import Config, replace_value, settings_of
from nft_jax.config.files import unknown_setting
from nft_jax.files import read_json_object

LENGTHS = "lengths"
FITTED = ("step", "rollout", "update")


class Sweep(NamedTuple):
    """A setting and its values.

    Attributes:
      name: a number of the config, or "lengths".
      values: as written in the flag.
    """

    name: str
    values: tuple[str, ...]

    def flag(self, value: str) -> str:
        """Returns the flag that sets one value."""
        return f"--{self.name if self.name == LENGTHS else f'config.{self.name}'}={value}"


class Fit(NamedTuple):
    """The line seconds = `seconds` + `per_token` · tokens; `residual` is its largest relative error."""

    seconds: float
    per_token: float
    residual: float


def read_sweep(text: str, config: Config) -> Sweep:
    """Reads the value of `--sweep`, and checks each of its values.

    Raises:
      ValueError: for an unknown setting, one that is not a number, and values that the config refuses.
    """
    name, _, values = text.partition(":")
    if not values:
        raise ValueError(
            f"--sweep={text}: write NAME:VALUE,VALUE with a number of the config, such as rollout.slots:16,32, or "
            f"lengths:fixed:16,fixed:32"
        )
    sweep = Sweep(name, tuple(values.split(",")))
    for value in sweep.values:
        if name == LENGTHS:
            read_lengths(value, config)
        else:
            change_setting(config, name, value)
    return sweep


def change_setting(config: Config, name: str, value: str) -> Config:
    """Returns the config with one of its numbers changed, as `--config.name=value` would.

    Raises:
      ValueError: for an unknown setting, one that is not a number, and a value that the config refuses.
    """
    types = {setting.name: setting.type for setting in settings_of(Config)}
    if name not in types:
        raise ValueError(f"--sweep={name}:{value}: {unknown_setting(name, [*types, LENGTHS])}")
    kind = types[name]
    if kind not in (int, float):
        raise ValueError(f"--sweep={name}:{value}: config.{name} is not a number; sweep a number, or lengths")
    try:
        number = kind(value)
    except ValueError:
        fault = f"{value!r} is not of type {kind.__name__}, as config.{name} is"
        raise ValueError(f"--sweep={name}:{value}: {fault}") from None
    return replace_value(config, name, number)


def measure_values(sweep: Sweep, arguments: Sequence[str], workdir: Path) -> list[dict[str, Any]]:
    """Runs `python -m nft_jax.bench` at each value, with the other arguments of this command line.

    Raises:
      ValueError: if a run fails; it has printed the reason.
    """
    rows = []
    for value in sweep.values:
        folder = workdir / f"{sweep.name}={value}"
        print(folder.name, file=sys.stderr, flush=True)
        changed = [sweep.flag(value), f"--workdir={folder}"]
        rest = command_words.leave_out(arguments, ["--sweep", *(word.partition("=")[0] for word in changed)])
        command = [sys.executable, "-m", "nft_jax.bench", *rest, *changed]
        code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        if code:
            raise ValueError(f"--sweep={sweep.name}: the run with {value} ended with code {code}; its message is above")
        rows.append({"value": value} | read_json_object(folder / "bench.json"))
    return rows


def fit_lines(sweep: Sweep, rows: list[dict[str, Any]]) -> dict[str, Fit]:
    """Fits seconds to tokens, for a sweep over lengths with at least three different numbers of tokens."""
    tokens = [row["median"]["tokens"] for row in rows]
    if sweep.name != LENGTHS or len(set(tokens)) < 3:
        return {}
    return {part: fit_line(tokens, [row["median"][part] for row in rows]) for part in FITTED}


def fit_line(tokens: Sequence[float], seconds: Sequence[float]) -> Fit:
    """Fits the least-squares line through (tokens, seconds)."""
    slope, start = np.polyfit(tokens, seconds, 1)
    errors = start + slope * np.asarray(tokens) - seconds
    residual = np.max(np.abs(errors) / seconds)
    return Fit(float(start), float(slope), float(residual))
