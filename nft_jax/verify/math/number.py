"""Numbers in their usual forms, read by one regular expression: this decides nine answers of ten in microseconds."""

import re
from functools import lru_cache
from typing import NamedTuple

_PLAIN = re.compile(
    r"\s*(?P<sign>[-+]?)\s*(?:\\?\$)?\s*(?:"
    r"(?P<whole>\d{1,3}(?:(?:,|\{,\}|,\\!)\d{3})+|\d{1,40})?(?P<part>\.\d{1,40})?(?:\s*/\s*(?P<below>\d{1,40}))?"
    r"|\\[dt]?frac\s*\{\s*(?P<minus>-?)\s*(?P<top>\d{1,40})\s*\}\s*\{\s*(?P<bottom>\d{1,40})\s*\}"
    r")\s*\.?\s*"
)


class Number(NamedTuple):
    """An exact number.

    Attributes:
      top, bottom: numerator and denominator.
      decimals: how many decimals it was written with; 0 for a fraction.
    """

    top: int
    bottom: int
    decimals: int


@lru_cache(maxsize=8192)
def read(text: str) -> Number | None:
    r"""Returns the number that a text is; None if it is anything else.

    It may be an integer, a decimal, `a/b` or `\frac{a}{b}`, with thousands separators or a dollar.
    """
    match = _PLAIN.fullmatch(text)
    if match is None:
        return None
    sign, whole, part, below, minus, top, bottom = match.groups()
    if top is not None:
        below, digits, decimals = bottom, top, 0
    else:
        digits = (re.sub(r"\D", "", whole) if whole else "") + (part or " ")[1:]
        decimals = len(part or " ") - 1
    if not digits or (below is not None and (decimals or not int(below))):
        return None
    value = int(digits)
    negative = (sign == "-") != (minus == "-")
    return Number(-value if negative else value, 10**decimals if below is None else int(below), decimals)


def is_equal(left: Number, right: Number) -> bool:
    """Returns whether two numbers are equal, from whole numbers only."""
    return left.top * right.bottom == right.top * left.bottom
