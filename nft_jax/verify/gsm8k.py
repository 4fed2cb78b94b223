"""The graders `gsm8k` and `any_number` of grade-school arithmetic, which compare numbers of a response exactly."""

import re
import unicodedata
from fractions import Fraction

from .extract import TAIL_CHARACTERS, last_boxed, spoken_part
from .math.words import SCALES, number_in_words
from .prose import COMPOUND, RANGE, is_denied

_DIGITS_LIMIT = 1000
_DIGITS = r"(?:(?<!\d)\d{1,3}(?:(?:,|\{,\}|\\,|,\\!)\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
# A minus belongs to a number that it touches, unless it subtracts. A number in a word or an exponent is none.
_NUMBER = re.compile(
    rf"(?<![A-Za-z^_\d])(?<!\d/)(?P<sign>(?:(?<![\w.)\]%])[-−](?=[$€£\d.]))?(?:[$€£]\s?(?:[-−](?=[\d.]))?)?)"
    rf"(?P<digits>{_DIGITS}(?:\s?/\s?\d+(?!\.?\d))?)(?![²³⁰¹⁴-⁹^\d]|\.\d|\s?/\s?\d|[!eE]\w|[kKM]\b)"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_CALCULATION = re.compile(
    r"(?:\d\s*[-+*/:×÷−^x]|\b(?:minus|negative|plus|times|(?:multiplied|divided) by))\s*$", re.I
)  # before a number: it is no result
_SHORT_FRACTION = re.compile(r"(\\[dt]?frac)\s*(\d)\s*(\d)")
_CONTINUATION = re.compile(
    rf"\s*[-+*/:×÷−x]\s*\d|\^|\s+(?:to|or)\s+[$€£]?\d|\s+and\s+\d+\s+cents|{COMPOUND}"
)  # behind a number
_QUANTITY = re.compile(rf"\d{COMPOUND}")
_HEDGE = re.compile(r"\b(?:not|never|at (?:least|most)|(?:less|more|fewer|greater|other) than)\b", re.I)
_MIXED = re.compile(r"(-?)(\d+)\s+(\d+)\s?/\s?(\d+)(?!\d)")
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?!\d)")
_SCALE = re.compile(rf"(?<=\d)\s*({'|'.join(SCALES)})\b", re.I)
_ANNOUNCEMENT = re.compile(r"\b(?:answer|total)\s+(?:is|=|:)\s*(?=[-−$€£\d.])", re.I)
_REMARK = re.compile(r"\s+\(.*|\. .*", re.S)  # behind the number: `15 (3 * 5)`
_MARK = "####"


def gsm8k(response: str, answer: str) -> tuple[str, str | None]:
    r"""Compares the last number of `response` with that of the reference `answer`.

    The first number after the last `####`, the last `\boxed{}` and "the answer is" go first, in this order. Thousands
    separators, currency and percent signs don't count: `$1,234.50` is 1234.5, and 25% is 25.

    Returns:
      (status, extracted number). The status is "unparsed" if the response has no number.
    """
    extracted, reference = last_number(spoken_part(response)), last_number(answer)
    if extracted is None:
        return "unparsed", None
    value = _to_fraction(extracted)
    is_correct = value is not None and reference is not None and value == _to_fraction(reference)
    return ("correct" if is_correct else "incorrect"), extracted


def any_number(response: str, answer: str) -> tuple[str, str | None]:
    """Compares every number of `response` with that of the reference `answer`; one that is equal is enough.

    It counts what an unread format hides, and luck too: an upper bound, not to train on.

    Returns:
      (status, the number that is equal, or else the last). The status is "unparsed" if the response has no number.
    """
    numbers, reference = _find_numbers(response[-TAIL_CHARACTERS:]), last_number(answer)
    value = None if reference is None else _to_fraction(reference)
    equal = [number for number in numbers if value is not None and _to_fraction(number) == value]
    if not numbers:
        return "unparsed", None
    return ("correct" if equal else "incorrect"), (equal or numbers)[-1]


def last_number(text: str) -> str | None:
    """Returns the number that a text ends with, without separators and currency: `-1234.5` or `3/4`; else None."""
    text = _SHORT_FRACTION.sub(r"\1{\2}{\3}", _to_ascii_digits(text[-TAIL_CHARACTERS:]))
    _, mark, rest = text.rpartition(_MARK)
    if mark and (number := _marked_number(rest.partition("\n")[0])) is not None:
        return number or None
    if (box := last_boxed(text)) and (number := _marked_number(box)):
        return number
    announced = list(_ANNOUNCEMENT.finditer(text))
    if announced and (number := _first_number(_REMARK.sub("", text[announced[-1].end() :]))):
        return number
    return _last_number(text)


def _to_ascii_digits(text: str) -> str:
    if text.isascii():
        return text
    digits = (str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
    return "".join(digits).replace("٬", ",").replace("٫", ".").replace("，", ",").replace("．", ".")


def _marked_number(line: str) -> str | None:
    """Returns the number of a line that states the answer, empty if it states none; None for a line without any."""
    line = _FRACTION.sub(r" \1/\2", _REMARK.sub("", line.strip()).rpartition("=")[2]).strip()
    if mixed := _MIXED.match(line):
        sign, whole, top, bottom = mixed.groups()
        if int(bottom):
            return f"{sign}{Fraction(int(whole)) + Fraction(int(top), int(bottom))}"
    line = _SPACED.sub(lambda match: match.group().replace(" ", ""), line)
    line = re.sub(r"^([-−])\s+(?=[$€£\d.])", r"\1", line)
    if not any(character.isdigit() for character in line):
        value = number_in_words(re.findall(r"[A-Za-z-]+", line)[:6])
        return None if value is None else str(value)
    return _first_number(line) or ""


def _first_number(text: str) -> str | None:
    """Returns the first number of a text, times the word behind it (million); None if it is part of a calculation."""
    text = _FRACTION.sub(r" \1/\2", text).rpartition("=")[2]
    match = _NUMBER.search(text)
    if match is None or _CONTINUATION.match(text, match.end()) or _HEDGE.search(text, 0, match.start()):
        return None
    number = _plain(match)
    scale = _SCALE.match(text, match.end())
    value = _to_fraction(number) if scale else None
    return number if value is None else str(value * SCALES[scale[1].lower()])


def _last_number(text: str) -> str | None:
    """Returns the last number of a text; None if it is the end of a calculation without result, or of a range."""
    text = _FRACTION.sub(r" \1/\2", text)
    matches = [match for match in _NUMBER.finditer(text) if not is_denied(text, *match.span())]
    if not matches:
        return None
    start = matches[-1].start()
    before = text[:start][-40:]
    is_part = any(match.end() > start for match in _QUANTITY.finditer(text, max(start - 40, 0)))
    return None if is_part or _CALCULATION.search(before) or RANGE.search(before) else _plain(matches[-1])


def _plain(match: re.Match) -> str:
    return re.sub(r"[^0-9.\-/]", "", match.group().replace("−", "-"))


def _find_numbers(text: str) -> list[str]:
    return [_plain(match) for match in _NUMBER.finditer(_FRACTION.sub(r" \1/\2", _to_ascii_digits(text)))]


def _to_fraction(number: str) -> Fraction | None:
    """Returns the exact value; None for a division by zero or more digits than any such answer has."""
    top, _, bottom = number.partition("/")
    if len(number) > _DIGITS_LIMIT or not int(bottom or 1):
        return None
    return Fraction(top) / int(bottom or 1)
