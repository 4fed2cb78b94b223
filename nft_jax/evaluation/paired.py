"""Paired differences between two evaluations of the same problems, with intervals."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nft_jax.evaluation.tables import format_table
from nft_jax.run.json_files import read_json, read_lines

DRAWS = 10_000
_COLUMNS = slice(0, 1), slice(1, None)
_KINDS = {"prompt": str, "verdicts": list, "truncated": list}


class Paired(NamedTuple):
    """Shares of correct answers of two models on the same problems.

    Attributes:
      first, second: Mean over problems of each model.
      difference: first − second.
      low, high: The difference's 95 % interval, by paired bootstrap over problems.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    problems: int


def compare_values(first_E: np.ndarray, second_E: np.ndarray, seed: int = 0) -> Paired:
    """Compares two models' values of the same problems.

    The bootstrap draws problems with replacement, each with both its values (Efron, 1979).
    """
    difference_E = np.asarray(first_E, float) - np.asarray(second_E, float)
    count, random = len(difference_E), np.random.default_rng(seed)
    means = [difference_E[random.integers(0, count, (100, count))].mean(axis=1) for _ in range(DRAWS // 100)]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    values = float(np.mean(first_E)), float(np.mean(second_E)), float(difference_E.mean())
    return Paired(*values, float(low), float(high), count)


def find_evaluations(folder: Path, step: int | None) -> Path:
    """Returns the folder of an evaluation: the given one, or that of a step of a workdir, by default the newest.

    Raises:
      FileNotFoundError: When there is none.
    """
    if any(folder.glob("*_n*.jsonl")):
        return folder
    steps = sorted((folder / "evaluations").glob("step_*" if step is None else f"step_{step:06d}"))
    if not steps:
        raise FileNotFoundError(
            f"{folder}: no evaluations there; run python -m nft_jax.evaluate --workdir={shlex.quote(str(folder))}"
        )
    return steps[-1]


def compare(first: Path, second: Path) -> dict[str, dict[str, Paired]]:
    """Compares the evaluations that two folders have in common: {"gsm8k_n4_…": {"greedy": …, "avg@4": …}}.

    Problems are paired by id and prompt; those in only one of the two are left out.

    Raises:
      ValueError: When no file is in both folders, or the two files of a name have no problem in common.
    """
    names = {folder: {path.name for path in folder.glob("*.jsonl")} for folder in (first, second)}
    common = sorted(names[first] & names[second])
    if not common:
        there = "; ".join(f"{folder}: {', '.join(sorted(files)) or 'none'}" for folder, files in names.items())
        raise ValueError(f"no evaluation is in both folders ({there}): evaluate both with the same settings")
    return {name.removesuffix(".jsonl"): compare_rows(pair_rows(first / name, second / name)) for name in common}


def find_other_settings(first: Path, second: Path) -> list[str]:
    """Returns a line for each setting in which evaluations that two folders have in common differ.

    What differs beside the weights may be why the scores do. An evaluation without a file of settings has none to tell.
    """
    lines = []
    for path in sorted(first.glob("*.jsonl")):
        files = [(folder / path.name).with_suffix(".json") for folder in (first, second)]
        if not all(file.is_file() for file in files):
            continue
        one, other = (read_json(file, {"settings": dict})["settings"] for file in files)
        lines += [
            f"{path.stem}: {name} is {one.get(name)!r} in this, {other.get(name)!r} in the other"
            for name in sorted(one.keys() | other.keys())
            if one.get(name) != other.get(name)
        ]
    return lines


def pair_rows(first: Path, second: Path) -> list[tuple[dict, dict]]:
    """Returns the rows of two files that are about the same problems, by id and prompt.

    Raises:
      ValueError: When the files have no problem in common.
    """
    one, other = ({(row.get("id"), row["prompt"]): row for row in read_lines(path, _KINDS)} for path in (first, second))
    pairs = [(row, other[problem]) for problem, row in one.items() if problem in other]
    if not pairs:
        raise ValueError(f"{first} and {second} have no problem in common")
    return pairs


def compare_rows(pairs: Sequence[tuple[dict, dict]]) -> dict[str, Paired]:
    """Compares rows by their greedy answers and by the means of their sampled ones: {"greedy": …, "avg@4": …}."""
    first_EK, second_EK = (np.array([are_correct(row) for row in rows]) for rows in zip(*pairs, strict=True))
    return compare_correct(first_EK, second_EK)


def compare_correct(first_EK: np.ndarray, second_EK: np.ndarray) -> dict[str, Paired]:
    """Compares which answers of two models are correct, column 0 greedy and the others sampled, as `compare_rows`."""
    greedy, sampled = ([values_EK[:, part].mean(axis=1) for values_EK in (first_EK, second_EK)] for part in _COLUMNS)
    return {"greedy": compare_values(*greedy), f"avg@{first_EK.shape[1] - 1}": compare_values(*sampled)}


def format_difference(pair: Paired) -> str:
    """Returns the difference with its interval, in percent."""
    return f"{pair.difference:+.1%} [{pair.low:+.1%}, {pair.high:+.1%}]"


def are_correct(row: dict) -> list[bool]:
    """Returns which answers of a row made by `answers.make_rows` are correct; a truncated one never is."""
    return [verdict == "correct" and not cut for verdict, cut in zip(row["verdicts"], row["truncated"], strict=True)]


def tabulate_pairs(pairs: dict[str, dict[str, Paired]]) -> str:
    """Returns a table with a line for each file and measure."""
    rows = []
    for name, measures in pairs.items():
        for measure, pair in measures.items():
            interval = f"[{pair.low:+.3f}, {pair.high:+.3f}]"
            values = f"{pair.first:.3f}", f"{pair.second:.3f}", f"{pair.difference:+.3f}"
            rows.append((name, measure, str(pair.problems), *values, interval))
    return format_table(rows, ("file", "measure", "problems", "this", "other", "difference", "95 % interval"))
