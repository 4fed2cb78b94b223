"""The grader of grade-school arithmetic: the last number of a response, compared exactly.

No third-party imports.
"""

import re
from fractions import Fraction

from .extract import WINDOW, last_boxed

_DIGITS_LIMIT = 100
# A minus belongs to the number if it touches it, and nothing that it could be subtracted from: `16-3` ends in 3.
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]%])[-−](?=[$€£\d.]))?(?:[$€£]\s?(?:[-−](?=[\d.]))?)?"
    r"(?:(?<!\d)\d{1,3}(?:(?:,|\{,\}|\\,|,\\!)\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+(?![\d.]))?"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_MARK = "####"


def gsm8k(response: str, answer: str) -> tuple[str, str | None]:
    r"""Compare the last number of `response` with that of `answer`; "unparsed" if there is none.

    The number after the last `####` or in the last `\boxed{}` goes first. Thousands separators, currency and percent
    signs don't count: `$1,234.50` is 1234.5, and 25% is 25.
    """
    said = last_number(response)
    if said is None:
        return "unparsed", None
    wanted = last_number(answer)
    value = _value(said)
    return ("correct" if wanted is not None and value is not None and value == _value(wanted) else "incorrect"), said


def last_number(text: str) -> str | None:
    """The number that a text ends with, without separators and currency: `-1234.5` or `3/4`; None if it has none."""
    text = text[-WINDOW:]
    _, mark, rest = text.rpartition(_MARK)
    for part in (rest.partition("\n")[0] if mark else "", last_boxed(text) or "", text):
        numbers = _NUMBER.findall(_FRACTION.sub(r" \1/\2", part))
        if numbers:
            return re.sub(r"[^0-9.\-/]", "", numbers[-1].replace("−", "-"))
    return None


def _value(number: str) -> Fraction | None:
    """Its exact value; None for a division by zero or more digits than any such answer has."""
    top, _, bottom = number.partition("/")
    if len(number) > _DIGITS_LIMIT or not int(bottom or 1):
        return None
    return Fraction(top) / int(bottom or 1)
