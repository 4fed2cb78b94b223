"""One setting at several values, each measured in a process of its own, so that memory and compilation are its own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nft_jax.bench.workload import read_lengths
from nft_jax.config import Config, replace_value, settings_of
from nft_jax.config.files import unknown_setting

LENGTHS = "lengths"
FITTED = ("step", "rollout", "update")


class Sweep(NamedTuple):
    """`name` is that of a number of the config, or "lengths"; `values` are as one would write them in the flag."""

    name: str
    values: tuple[str, ...]

    def flag(self, value: str) -> str:
        """What the command line of one value says."""
        return f"--{self.name if self.name == LENGTHS else f'config.{self.name}'}={value}"


class Fit(NamedTuple):
    """seconds = `seconds` + `per_token` · tokens, off by at most `residual` of what was measured."""

    seconds: float
    per_token: float
    residual: float


def read_sweep(told: str, config: Config) -> Sweep:
    """The sweep that `--sweep` says, each of its values checked.

    Raises:
      ValueError: for a setting that is none, or is no number, and for values that can't run.
    """
    name, _, values = told.partition(":")
    if not values:
        raise ValueError(
            f"--sweep={told}: write NAME:VALUE,VALUE with a number of the config, such as rollout.slots:16,32, or "
            f"lengths:fixed:16,fixed:32"
        )
    sweep = Sweep(name, tuple(values.split(",")))
    for value in sweep.values:
        if name == LENGTHS:
            read_lengths(value, config)
        else:
            changed(config, name, value)
    return sweep


def changed(config: Config, name: str, value: str) -> Config:
    """The config with one of its numbers changed, as `--config.name=value` would.

    Raises:
      ValueError: when that is no setting, or no number, or can't run.
    """
    types = {setting.name: setting.type for setting in settings_of(Config)}
    if name not in types:
        raise ValueError(f"--sweep={name}:{value}: {unknown_setting(name, [*types, LENGTHS])}")
    kind = types[name]
    if kind not in (int, float):
        raise ValueError(f"--sweep={name}:{value}: config.{name} is no number; sweep a number, or lengths")
    try:
        number = kind(value)
    except ValueError:
        raise ValueError(f"--sweep={name}:{value}: {value!r} is no {kind.__name__}, as config.{name} is") from None
    return replace_value(config, name, number)


def measured(sweep: Sweep, words: Sequence[str], workdir: Path) -> list[dict[str, Any]]:
    """What `python -m nft_jax.bench` finds at each value; `words` are those of its command line, the sweep among them.

    Raises:
      ValueError: when one of the runs fails; it has said why.
    """
    rows = []
    for value in sweep.values:
        folder = workdir / f"{sweep.name}={value}"
        print(folder.name, file=sys.stderr, flush=True)
        # The last word counts.
        command = [sys.executable, "-m", "nft_jax.bench", *words, sweep.flag(value), f"--workdir={folder}", "--sweep="]
        ended = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        if ended:
            raise ValueError(
                f"--sweep={sweep.name}: the run with {value} ended with code {ended}; what it said is above"
            )
        rows.append({"value": value} | json.loads((folder / "bench.json").read_text()))
    return rows


def fits(sweep: Sweep, rows: list[dict[str, Any]]) -> dict[str, Fit]:
    """Of a sweep over lengths: how seconds depend on tokens; nothing where fewer than three numbers of them differ."""
    tokens = [row["median"]["tokens"] for row in rows]
    if sweep.name != LENGTHS or len(set(tokens)) < 3:
        return {}
    return {part: affine(tokens, [row["median"][part] for row in rows]) for part in FITTED}


def affine(tokens: Sequence[float], seconds: Sequence[float]) -> Fit:
    """The least-squares line through (tokens, seconds)."""
    tokens, seconds = np.asarray(tokens, float), np.asarray(seconds, float)
    slope, start = np.polyfit(tokens, seconds, 1)
    residual = np.max(np.abs(start + slope * tokens - seconds) / seconds)
    return Fit(float(start), float(slope), float(residual))


def sweep_table(sweep: Sweep, rows: list[dict[str, Any]], found: dict[str, Fit]) -> str:
    """A row a value, and the lines that were fitted."""
    lines = [[sweep.name, "step s", "rollout s", "update s", "tokens", "slots", "compile s", *_memory(rows[0])]]
    lines[0] += [f"{peer['name']} s" for peer in rows[0].get("peers", [])]
    for row in rows:
        median = row["median"]
        cells = [f"{median[part]:.3f}" for part in ("step", "rollout", "update")]
        cells += [f"{median['tokens']:.0f}", f"{median['slots']:.0%}", f"{row['compile_seconds']:.1f}"]
        cells += [f"{mib:.0f}" for mib in _memory(row).values()]
        cells += [f"{peer['median'][peer['part']]:.3f}" for peer in row.get("peers", [])]
        lines.append([row["value"], *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    words = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    for part, fit in found.items():
        words.append(
            f"{part}: {fit.seconds:.3f} s {1e6 * fit.per_token:+.1f} µs a token, off by at most {fit.residual:.1%} of "
            f"what was measured"
        )
    return "\n".join(words)


def _memory(row):
    """Peak MiB of the host, and of the fullest device where the backend tells."""
    peak = dict(row["peak_memory_mib"])
    host = peak.pop("host")
    return {"host MiB": host} | ({"device MiB": max(peak.values())} if peak else {})
