"""Two evaluations of the same problems side by side: paired differences with intervals."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from nft_jax.run.workdir import read_lines

DRAWS = 10_000


class Paired(NamedTuple):
    """Shares of right answers of two models on the same problems.

    `first`, `second`  means over problems     `difference`  first − second
    `low`, `high`      its 95 % interval, by paired bootstrap over problems     `problems`  how many
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    problems: int


def paired(first_E: np.ndarray, second_E: np.ndarray, seed: int = 0) -> Paired:
    """Compares values by problem: problems are drawn with replacement, each with both its values (Efron, 1979)."""
    difference_E = np.asarray(first_E, float) - np.asarray(second_E, float)
    count, random = len(difference_E), np.random.default_rng(seed)
    means = [difference_E[random.integers(0, count, (100, count))].mean(axis=1) for _ in range(DRAWS // 100)]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    found = float(np.mean(first_E)), float(np.mean(second_E)), float(difference_E.mean())
    return Paired(*found, float(low), float(high), count)


def compare(first: Path, second: Path) -> dict[str, dict[str, Paired]]:
    """By the name of their files, the evaluations that both folders hold: {"gsm8k_n4_…": {"greedy": …, "avg@4": …}}.

    Problems are paired by id and prompt; those that one of the two lacks are left out.

    Raises:
      ValueError: when no file is in both, or one pair of files has no problem in common.
    """
    names = {folder: {path.name for path in folder.glob("*.jsonl")} for folder in (first, second)}
    common = sorted(names[first] & names[second])
    if not common:
        there = "; ".join(f"{folder}: {', '.join(sorted(found)) or 'none'}" for folder, found in names.items())
        raise ValueError(f"no evaluation is in both folders ({there}): evaluate both with the same settings")
    return {name.removesuffix(".jsonl"): _compared(first / name, second / name) for name in common}


def _compared(first: Path, second: Path) -> dict[str, Paired]:
    one, other = ({(row["id"], row["prompt"]): _right(row) for row in read_lines(path)} for path in (first, second))
    problems = [problem for problem in one if problem in other]
    if not problems:
        raise ValueError(f"{first} and {second} have no problem in common")
    right = [np.array([answers[problem] for problem in problems], float) for answers in (one, other)]
    sampled = [values_EK[:, 1:].mean(axis=1) for values_EK in right]
    greedy = [values_EK[:, 0] for values_EK in right]
    return {"greedy": paired(*greedy), f"avg@{right[0].shape[1] - 1}": paired(*sampled)}


def _right(row: dict) -> list[bool]:
    return [verdict == "correct" and not cut for verdict, cut in zip(row["verdicts"], row["truncated"], strict=True)]


def table(found: dict[str, dict[str, Paired]]) -> str:
    """A line of text for each file and measure, under a header."""
    rows = [("file", "measure", "problems", "this", "other", "difference", "95 % interval")]
    for name, measures in found.items():
        for measure, one in measures.items():
            interval = f"[{one.low:+.3f}, {one.high:+.3f}]"
            values = f"{one.first:.3f}", f"{one.second:.3f}", f"{one.difference:+.3f}"
            rows.append((name, measure, str(one.problems), *values, interval))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
