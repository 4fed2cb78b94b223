"""Numbers in words."""

from fractions import Fraction

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_ONES = {name: value for value, name in enumerate(_SMALL.split())}
_TENS = {
    name: 10 * value
    for value, name in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)  # noqa: SIM905
}
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4}
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12}


def number_in_words(words: list[str]) -> Fraction | None:
    """Returns the number that words say ("minus forty two", "two thirds", "seventh"); None if they say none."""
    words = [part for word in words for part in word.lower().split("-") if part]
    if not words or len(words) > 12:
        return None
    if words[0] in ("minus", "negative"):
        value = number_in_words(words[1:]) if len(words) > 1 else None
        return None if value is None or value < 0 else -value
    if words == ["half"]:
        return Fraction(1, 2)
    if len(words) > 1 and words[-1] in _PARTS:
        count = 1 if words[:-1] in (["a"], ["one"]) else _count(words[:-1])
        return None if count is None else Fraction(count, _PARTS[words[-1]])
    count = _count(words)
    return None if count is None else Fraction(count)


def _count(words: list[str]) -> int | None:
    """Returns the whole number that words say; the last may be an ordinal."""
    total = current = 0
    seen = None
    for index, word in enumerate(words):
        is_last = index == len(words) - 1
        if is_last and word in _ORDINALS:
            word = next(name for name, value in _ONES.items() if value == _ORDINALS[word])
        elif is_last and word.endswith("ieth"):
            word = word.removesuffix("ieth") + "y"
        elif is_last and word.endswith("th") and word.removesuffix("th") in _ONES | SCALES:
            word = word.removesuffix("th")
        if word in _ONES and seen not in ("one",) and not (seen == "ten" and _ONES[word] > 9):
            current += _ONES[word]
            seen = "one"
        elif word in _TENS and seen in (None, "scale"):
            current += _TENS[word]
            seen = "ten"
        elif word == "hundred" and 0 < current < 100:
            current, seen = current * 100, "scale"
        elif word in SCALES and word != "hundred" and current:
            total, current, seen = total + current * SCALES[word], 0, "scale"
        elif word == "and" and seen == "scale" and not is_last:
            continue
        else:
            return None
    return total + current if seen else None
