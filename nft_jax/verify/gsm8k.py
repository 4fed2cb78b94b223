"""The grader `gsm8k` of grade-school arithmetic: it compares the last number of a response exactly."""

import re
from fractions import Fraction

from .extract import TAIL_CHARACTERS, last_boxed

_DIGITS_LIMIT = 100
# A minus belongs to a number that it touches, unless it subtracts: `16-3` ends in 3.
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]%])[-−](?=[$€£\d.]))?(?:[$€£]\s?(?:[-−](?=[\d.]))?)?"
    r"(?:(?<!\d)\d{1,3}(?:(?:,|\{,\}|\\,|,\\!)\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+(?![\d.]))?"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_MARK = "####"


def gsm8k(response: str, answer: str) -> tuple[str, str | None]:
    r"""Compares the last number of `response` with that of the reference `answer`.

    A number after the last `####` or in the last `\boxed{}` goes first. Thousands separators, currency and percent
    signs don't count: `$1,234.50` is 1234.5, and 25% is 25.

    Returns:
      (status, extracted number). The status is "unparsed" if the response has no number.
    """
    extracted, reference = last_number(response), last_number(answer)
    if extracted is None:
        return "unparsed", None
    value = _to_fraction(extracted)
    is_correct = value is not None and reference is not None and value == _to_fraction(reference)
    return ("correct" if is_correct else "incorrect"), extracted


def last_number(text: str) -> str | None:
    """Returns the number that a text ends with, without separators and currency: `-1234.5` or `3/4`; else None."""
    text = text[-TAIL_CHARACTERS:]
    _, mark, rest = text.rpartition(_MARK)
    for part in (rest.partition("\n")[0] if mark else "", last_boxed(text) or "", text):
        numbers = _NUMBER.findall(_FRACTION.sub(r" \1/\2", part))
        if numbers:
            return re.sub(r"[^0-9.\-/]", "", numbers[-1].replace("−", "-"))
    return None


def _to_fraction(number: str) -> Fraction | None:
    """Returns the exact value; None for a division by zero or more digits than any such answer has."""
    top, _, bottom = number.partition("/")
    if len(number) > _DIGITS_LIMIT or not int(bottom or 1):
        return None
    return Fraction(top) / int(bottom or 1)
