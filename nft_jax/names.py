"""Looks names up in tables; an error for an unknown name gives the nearest known one. Imports no other module."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")


def quote(value: object, most: int = 120) -> str:
    """Returns a value as Python writes it, for a message: a long one is cut in the middle."""
    try:
        text = repr(value)
    except (ValueError, RecursionError) as error:  # an int of thousands of digits, or endless nesting
        text = f"<{type(value).__name__}: {error}>"
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-(most // 4) :]}"


def suggestion(given: object, known: Iterable[str]) -> str:
    """Returns `"; did you mean 'x'?"` to end a message with, or nothing where no known name is near."""
    near = difflib.get_close_matches(quote(given).strip("'"), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown(kind: str, given: object, known: Iterable[str], owner: str = "") -> str:
    """Returns the message for an unknown name (of `owner`): what was given, what is known, and the nearest match."""
    known = sorted(known)
    owned = f" of {owner}" if owner else ""
    return f"unknown {kind} {quote(given)}{owned}: known are {', '.join(known) or 'none'}{suggestion(given, known)}"


def lookup(table: Mapping[str, Value], name: str, kind: str, owner: str = "") -> Value:
    """Returns `table[name]`.

    Raises:
      ValueError: for a name that the table does not have, with `unknown` as its message.
    """
    if name not in table:
        raise ValueError(unknown(kind, name, table, owner))
    return table[name]
