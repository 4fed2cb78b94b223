"""What a run folder holds, checked before anything is compiled or changed: damage is said, and never taken for data.

A file that the run makes anew may be set aside where it is damaged. What can't be made anew stops the start, with one
message that names every fault.
"""

import functools
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np

from nft_jax.run.best import BEST_FILE
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.fingerprint import FINGERPRINT_FILE, read_fingerprint_file
from nft_jax.run.json_files import NUMBER_OR_NONE, REMEDY, Kinds, is_number, read_json, read_lines
from nft_jax.run.weights import has_weights
from nft_jax.run.workdir import HELD_OUT_FOLDER, PAGE_FILE, PICTURE_FILE, RESULT_FILE, WARM_START_FOLDER

SCORES = ("greedy", "greedy_error", "sampled", "sampled_error")
LOSS_SCORES = ("loss", "loss_error")
# Made anew by the run that goes on in the folder.
_REMADE: dict[str, Kinds] = dict.fromkeys(("config.json", "run.json", "hygiene.json", RESULT_FILE), {})
_REMADE |= {BEST_FILE: {"step": int}}
_ANSWERS = ("base_answers.npz", "pretrained_answers.npz")
_LINES = ("metrics.jsonl", "evaluation.jsonl")
_FILES = (*_REMADE, *_ANSWERS, *_LINES, FINGERPRINT_FILE, PICTURE_FILE, PAGE_FILE)
FOLDERS = (
    "checkpoints",
    "evaluations",
    HELD_OUT_FOLDER,
    "model",
    "rollouts",
    "tensorboard",
    "tokenizer",
    "wandb",
    WARM_START_FOLDER,
    "weights",
)
_EFFECTIVE = os.access in os.supports_effective_ids
# What `np.load` raises for a file that is cut, or is something else.
_NOT_ARRAYS = (ValueError, KeyError, EOFError, BadZipFile, ZlibError, NotImplementedError)


class Damage(NamedTuple):
    """A damaged file that a run makes anew, and what is wrong with it."""

    path: Path
    fault: str


def inspect_folder(folder: Path, scores: Sequence[str]) -> list[Damage]:
    """Checks the folder of a run or of a warm start; changes nothing.

    Args:
      scores: What a line of `evaluation.jsonl` must hold beside its step.

    Returns:
      What is damaged and made anew, once it is set aside by `set_aside`.

    Raises:
      ValueError: with all that is damaged and can't be made anew.
    """
    if not folder.is_dir():
        return []
    faults, remade = list(_find_misplaced(folder)), []
    for check in () if faults else (_check_steps, _check_fingerprint, functools.partial(check_lines, scores=scores)):
        try:
            remade += check(folder) or []
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))
    for path in (*(folder / name for name in (*_REMADE, *_ANSWERS)), *sorted(folder.glob("model/*.json"))):
        try:
            if path.is_file():
                _check_arrays(path) if path.suffix == ".npz" else read_json(path, _REMADE.get(path.name))
        except ValueError as error:
            remade.append(Damage(path, str(error).removesuffix(REMEDY)))
    phase = folder / WARM_START_FOLDER
    # Of a finished one, only the weights are read, and what they belong to.
    return remade + (_check_fingerprint(phase) if has_weights(phase) else inspect_folder(phase, LOSS_SCORES))


def _find_misplaced(folder: Path) -> Iterator[str]:
    """Yields a text for each file that stands in a folder's place, the reverse, and what can't be read or written."""
    for name in (*_FILES, *FOLDERS):
        path = folder / name
        if not os.path.lexists(path):
            continue
        if path.is_dir() != (name in FOLDERS) or not path.exists():
            kind = ("file", "folder")[name in FOLDERS]
            yield f"{path} is no {kind}, and the run has a {kind} of this name: move it away"
        elif not os.access(path, os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0), effective_ids=_EFFECTIVE):
            yield f"{path} can't be read and written by this user: chmod u+rwX, or chown it"


def _check_steps(folder: Path) -> None:
    """Raises a ValueError for checkpoints under other names than a run gives them; says which are empty."""
    with Checkpoints(folder) as checkpoints:
        for path in (checkpoints.folder / str(step) for step in checkpoints.steps):
            if not path.is_dir() or not any(path.iterdir()):
                _say(f"{path} holds no checkpoint")


def _check_fingerprint(folder: Path) -> list[Damage]:
    """Returns a damaged fingerprint where checkpoints keep another; raises its ValueError else."""
    path = folder / FINGERPRINT_FILE
    try:
        if path.is_file():
            read_fingerprint_file(path)
    except ValueError as error:
        if has_weights(folder):  # nothing else says what finished weights belong to
            raise
        return [Damage(path, str(error).removesuffix(REMEDY))]
    return []


def check_lines(folder: Path, scores: Sequence[str] = ()) -> None:
    """Raises a ValueError for lines that are damaged, doubled or out of order; says which steps have none."""
    kinds = {"step": int}
    for name in _LINES:
        path = folder / name
        rows = read_lines(path, kinds | (dict.fromkeys(scores, NUMBER_OR_NONE) if name == _LINES[1] else {}))
        for number, (row, before) in enumerate(zip(rows[1:], rows, strict=False), start=2):
            if row["step"] <= before["step"]:
                raise ValueError(
                    f"{path}: object {number} is of step {row['step']} and follows step {before['step']}, so lines are "
                    f"doubled or out of order: repair or remove them"
                )
        if odd := _find_odd_value(rows):
            row, odd_name = odd
            raise ValueError(
                f"{path}: in the line of step {row['step']}, {odd_name!r} is {str(row[odd_name])[:40]!r}, unlike in "
                f"others: repair or remove the line"
            )
        _say_what_is_cut(path)
        _say_what_differs(path, rows)
    with Checkpoints(folder) as checkpoints:
        latest = checkpoints.latest or 0
    steps = {row["step"] for row in read_lines(folder / _LINES[0], kinds)}
    if missing := [step for step in range(1, latest + 1) if step not in steps]:
        _say(f"{folder / _LINES[0]} has no line of {format_steps(missing)}, which were taken: they are lost")


def _find_odd_value(rows: list[dict]) -> tuple[dict, str] | None:
    """Returns a row and the name of a value whose kind is not that of most other rows; None for none."""
    for name in sorted(set().union(*rows)):
        kinds = [_kind_of(row.get(name)) for row in rows]
        known = Counter(kind for kind in kinds if kind is not None)
        for row, kind in zip(rows, kinds, strict=True):
            if kind is not None and kind != known.most_common(1)[0][0]:
                return row, name
    return None


def _kind_of(value: Any) -> Any:
    """Returns what is equal for two values that can stand for the same; None for one that is not known."""
    if isinstance(value, list | dict):
        parts = {_kind_of(part) for part in (value.values() if isinstance(value, dict) else value)} - {None}
        return (type(value), frozenset(parts)) if parts else None
    return None if value is None else float if is_number(value) else type(value)


def _say_what_is_cut(path: Path) -> None:
    lines = path.read_bytes().splitlines() if path.exists() else []
    if lines and lines[-1].strip() and len(read_lines(path)) < sum(bool(line.strip()) for line in lines):
        _say(f"{path}: the last line is incomplete, as a run leaves it that is killed; it does not count")


def _say_what_differs(path: Path, rows: list[dict]) -> None:
    """Says which lines lack values that others have, as after a change of the version."""
    names = set().union(*rows)
    lacking = [row["step"] for row in rows if row.keys() != names]
    if lacking:
        some = sorted(set().union(*(names - row.keys() for row in rows)))
        _say(f"{path}: the lines of {format_steps(lacking)} lack {', '.join(some[:6])}, which others have")


def _check_arrays(path: Path) -> None:
    """Raises a ValueError unless all arrays of an .npz file can be read."""
    try:
        with np.load(path) as kept:
            for name in kept.files:
                _ = kept[name]
    except _NOT_ARRAYS as error:
        raise ValueError(f"{path} holds no arrays that can be read ({str(error)[:120]})") from error


def format_steps(steps: Sequence[int]) -> str:
    """Returns ascending steps as text: "step 3", "steps 3 to 5, 8"."""
    parts: list[list[int]] = []
    for step in steps:
        if parts and step == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], step]
        else:
            parts.append([step])
    text = ", ".join(" to ".join(map(str, part)) for part in parts[:6]) + (" and more" if len(parts) > 6 else "")
    return f"step{'s' * (len(steps) > 1)} {text}"


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
