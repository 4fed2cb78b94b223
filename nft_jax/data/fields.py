"""Fields of records: the names that lead to a value, and values as text."""

import itertools
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from nft_jax.names import quote


class Fields(NamedTuple):
    """The names of the fields that hold a problem in a record.

    A dotted name reaches into objects and lists: "reward_model.ground_truth", "prompt.0.content". A field that
    has the dotted name takes precedence. A record may lack the worked solution; "" names none.
    """

    problem: str = "problem"
    answer: str = "answer"
    solution: str = "solution"


def parse_fields(text: str, setting: str) -> Fields | None:
    """Returns the fields that a setting names, `PROBLEM,ANSWER` or `PROBLEM,ANSWER,SOLUTION`; None for "".

    Raises:
      ValueError: with the setting's name, for any other number of names.
    """
    names = [name.strip() for name in text.split(",")]
    if not text.strip():
        return None
    if not 2 <= len(names) <= 3 or not all(names):
        raise ValueError(
            f"{setting}={text!r}: give the fields of problem and answer, comma between them, and that of the worked "
            f"solution if there is one: {setting}=question,answer,solution"
        )
    return Fields(*names, *[""] * (3 - len(names)))


def read_field(holder: Any, field: str) -> Any:
    """Returns the value of the field with exactly this name, or else of the one that its dots lead to.

    Raises:
      KeyError: if there is neither.
    """
    if isinstance(holder, list):
        holder = {str(place): value for place, value in enumerate(holder)}
    if not isinstance(holder, Mapping):
        raise KeyError(field)
    if field in holder:
        return holder[field]
    head, _, rest = field.partition(".")
    return read_field(holder[head], rest)


def has_field(record: Any, field: str) -> bool:
    """Returns whether a record has the field."""
    try:
        read_field(record, field)
    except KeyError:
        return False
    return True


def _field_names(holder: Any, prefix: str = "") -> Iterator[str]:
    """Yields the dotted name of each innermost field; a list is represented by its first element."""
    children = {"0": holder[0]} if isinstance(holder, list) and holder else holder
    if not isinstance(children, Mapping):
        yield prefix
        return
    for name, value in children.items():
        yield from _field_names(value, f"{prefix}.{name}" if prefix else name)


def join_field_names(holder: Any, prefix: str = "") -> str:
    """Returns the dotted names of the innermost fields as text; of many, the first 30."""
    names = [quote(name, 60) for name in itertools.islice(_field_names(holder, prefix), 31)]
    return ", ".join([*names[:30], "…"] if len(names) > 30 else names) or "none"


def number_to_text(value: Any) -> Any:
    """Returns a number as the text that a person would write, and any other value unchanged."""
    if isinstance(value, bool):
        return value
    if isinstance(value, float) and math.isfinite(value):
        # Some tools store whole numbers as floats: 72.0 is the answer 72. Floats beyond 1e16 are not exact integers.
        return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value) if isinstance(value, int) else value


def check_text(value: Any, field: str, where: str) -> str:
    """Returns the value of a field, if it is text.

    Raises:
      ValueError: with `where`, if it is empty, neither text nor a number, or not encodable.
    """
    value = number_to_text(value)
    if not isinstance(value, str):
        names = join_field_names(value, field) if isinstance(value, Mapping | list) and value else ""
        deeper = f"; it has the fields {names}" if names else ""
        raise ValueError(f"{where}: field {field!r} is {repr(value)[:200]}, neither text nor a number{deeper}")
    if not value.strip():
        raise ValueError(f"{where}: field {field!r} is empty; remove the problem or fill it in")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{where}: field {field!r} holds half of a surrogate pair, which no tokenizer can read"
        ) from None
    return value


def read_optional_text(record: Mapping, field: str) -> str:
    """Returns the text or number in a field, or "" if there is none."""
    try:
        value = number_to_text(read_field(record, field))
    except KeyError:
        return ""
    return value if isinstance(value, str) else ""
