"""Looking a name up in a table, with an error that helps when it is not there."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

Value = TypeVar("Value")


def unknown(kind: str, given: object, known: Iterable[str], owner: str = "") -> str:
    """One sentence for an unknown name (of `owner`): what was given, what is allowed, and the closest match if any."""
    known = sorted(known)
    closest = difflib.get_close_matches(str(given), known, n=1)
    hint = f"; did you mean {closest[0]!r}?" if closest else ""
    owned = f" of {owner}" if owner else ""
    return f"unknown {kind} {given!r}{owned}: known are {', '.join(known) or 'none'}{hint}"


def lookup(table: Mapping[str, Value], name: str, kind: str, owner: str = "") -> Value:
    """`table[name]`; raises ValueError with the known names and the closest of them."""
    if name not in table:
        raise ValueError(unknown(kind, name, table, owner))
    return table[name]


def suggestion(given: Any, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"`, or nothing where no known name is near."""
    near = difflib.get_close_matches(str(given), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
