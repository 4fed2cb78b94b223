"""Looking a name up in a table, with an error that helps when it is not there."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

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
