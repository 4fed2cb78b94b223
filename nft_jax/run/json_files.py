"""The JSON and JSONL files of a run: read with a check of what they hold, and set aside where they are damaged."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from nft_jax.files import parse_json, read_json_object

Kinds = Mapping[str, type | tuple[type, ...]]
NUMBER = (int, float)
NUMBER_OR_NONE = (int, float, type(None))
REMEDY = ": repair or remove the file"
_WORDS = {NUMBER: "a number", NUMBER_OR_NONE: "a number or null", int: "a whole number", dict: "an object"}
_WORDS |= {list: "a list", str: "a text", bool: "true or false"}


def read_json(path: Path, kinds: Kinds | None = None) -> dict:
    """Returns the object of a JSON file.

    Args:
      kinds: What the object must hold, by name.

    Raises:
      ValueError: if the file holds anything else.
    """
    values = read_json_object(path, REMEDY)
    if fault := find_fault(values, kinds or {}):
        raise ValueError(f"{path} {fault}{REMEDY}")
    return values


def read_lines(
    path: Path, kinds: Kinds | None = None, choose: Callable[[Sequence[bytes]], Iterable[int]] | None = None
) -> list[dict]:
    """Returns the objects of a JSONL file, [] if there is none; ignores a last line that a killed run left incomplete.

    Args:
      kinds: What each object must hold, by name.
      choose: Takes the lines, without empty ones, and returns the places of those to read, from 0; all by default.

    Raises:
      ValueError: if any other line is no JSON object or lacks something; the message has its number.
    """
    lines = enumerate(path.read_bytes().split(b"\n") if path.exists() else [], start=1)
    lines = [(number, line) for number, line in lines if line.strip()]
    rows = []
    for place in range(len(lines)) if choose is None else choose([line for _, line in lines]):
        number, line = lines[place]
        try:
            values = parse_object(line)
        except ValueError as error:
            if number < lines[-1][0]:
                raise ValueError(
                    f"{path}:{number} is no JSON object ({_short(error)}): repair or remove the line"
                ) from error
            continue
        if fault := find_fault(values, kinds or {}):
            raise ValueError(f"{path}:{number} {fault}: repair or remove the line")
        rows.append(values)
    return rows


def find_fault(values: Mapping[str, Any], kinds: Kinds) -> str:
    """Returns which value is missing or of another kind; "" for none."""
    for name, kind in kinds.items():
        given = values.get(name)
        # In Python, but not in JSON, true and false are whole numbers.
        if name not in values or not isinstance(given, kind) or (isinstance(given, bool) and kind is not bool):
            there = f"{str(given)[:40]!r}" if name in values else "nothing"
            return f"needs {_WORDS.get(kind, kind)} as {name!r} and has {there}"
    return ""


def set_aside(path: Path, why: str) -> None:
    """Renames a file to `NAME.damaged`, or `NAME.damaged.2` and so on, and says why."""
    number, aside = 1, path.with_name(f"{path.name}.damaged")
    while aside.exists() or aside.is_symlink():
        number += 1
        aside = path.with_name(f"{path.name}.damaged.{number}")
    path.rename(aside)
    print(f"{why}; it is set aside as {aside.name} and made anew", file=sys.stderr, flush=True)


def is_number(value: Any) -> bool:
    """Returns whether a JSON value is a number."""
    return isinstance(value, Real) and not isinstance(value, bool)


def parse_object(text: bytes) -> dict:
    """Returns the object that a JSON text is; raises a ValueError for any other text."""
    values = parse_json(text.decode("utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"it is {_WORDS.get(type(values), type(values).__name__)}")
    return values


def _short(error: Exception) -> str:
    return str(error)[:120]
