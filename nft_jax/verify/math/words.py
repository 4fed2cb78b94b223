"""Words of answers: numbers in words, and words that change a value and so are no units."""

import re
import unicodedata
from fractions import Fraction

from .units import DIMENSIONS, find

# Words before a value that deny or hedge it: "maybe x = 5" states nothing.
HEDGE = re.compile(
    r"\b(?:not|no|nor|never|neg|lnot|if|unless|maybe|possibly|perhaps|probably|guess|with|where|when|n?either|except|excluding|anything|but|"
    r"at (?:least|most)|(?:less|more|other|greater|fewer|rather) than)\b",
    re.I,
)
CONNECTIVES = {"and", "or"}
FOREIGN_CONNECTIVES = {"或": "or", "或者": "or", "和": "and", "且": "and", "及": "and", "与": "and"}
SHORT_WORDS = {
    "no", "if", "is", "of", "on", "at", "up", "as", "so", "to", "we", "it", "an", "do", "go", "be", "by", "us",
    "am", "pm", "in", "vs", "dne",
}  # fmt: skip
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
OTHER_SCALES = {"dozen": 12, "lakh": 10**5, "crore": 10**7, "score": 20, "gross": 144, "grand": 1000, "myriad": 10**4}
_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4}
ORDINALS = {"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12}

# Words that make another value of the number before them, or leave it open.
_CHANGING = re.compile(
    r"(?:squared?|cubed?|doubled?|tripled?|halve[ds]?|twice|thrice|plus|minus|times|over|divided?|dividing|"
    r"multiplied|multiply|multiples?|mod|modulo|choose|factorial|roots?|power|powers|raised|exponent|percent|pct|"
    r"per ?cent|percentage|permille|less|more|fewer|greater|smaller|than|at|least|most|about|around|approximately|"
    r"approx|rounded|nearly|almost|maybe|possibly|perhaps|probably|either|neither|nor|not|no|non|every|all|some|other|another|"
    r"else|or|and|if|but|except|unless|when|where|for|with|without|is|are|was|were|equals?|isn|to|between|from|"
    r"through|until|up|down|point|recurring|repeating|negative|positive|inverse|reciprocal|opposite|log|ln|sin|"
    r"cos|tan|exp|sqrt|base|binary|hex|octal|fold|tens|hundreds|thousands|millions|billions|"
    r"ones|zeros?|wrong|incorrect|false|true|undefined|infinity|infinite|pi|i|e|x|y|z|n|k|"
    r"then|finally|now|later|instead|rather|unknown|variable|variables|decreased?|increased?|added|subtracted|"
    r"reject|rejected|rejecting|extraneous|invalid|discard|discarded|impossible|excluded|ignored|vs|versus|"
    r"nothing|none|everything|anything|something|otherwise|tenths|hundredths|pairs?|couples?|squares|basis|fails|"
    r"disproved|trios?|.*(?:illions?|uple[sd]?|fold))",
    re.I,
)
# "3 positive integers", "2 ordered pairs", "4 real roots", "12 positive divisors"
_KINDS = {
    "positive", "negative", "real", "distinct", "different", "ordered", "perfect", "complex", "possible", "prime",
    "integer", "trailing", "proper", "nonzero", "nonnegative", "unique",
}  # fmt: skip
_COUNTED = {
    "integers", "integer", "numbers", "pairs", "pair", "roots", "root", "zeros", "solutions", "squares", "cubes",
    "values", "triples", "quadruples",
}  # fmt: skip
# What may stand alone behind a number though it is no plural.
_UNCOUNTED = {
    "people", "men", "women", "children", "feet", "fish", "sheep", "mice", "teeth", "each", "total", "left",
    "remaining", "old", "apiece", "altogether", "overall", "money", "water", "text",
}  # fmt: skip
_FRACTION_WORD = re.compile(r".*(?:th|ths|rds|nds)", re.I)
_FINE = {"month", "months", "tenth", "length", "width", "north", "south", "earth", "booth", "cloth", "depth", "moth"}


def changes_value(word: str) -> bool:
    """Returns whether a word behind a number is no unit, because it makes another number of it or leaves it open."""
    lower = word.lower()
    if not word.isascii() and _changes_in_chinese(word):
        return True
    if find(word):
        return False
    numbers = _ONES.keys() | _TENS.keys() | SCALES.keys() | OTHER_SCALES.keys() | _PARTS.keys()
    is_number = bool({lower, lower.removesuffix("s"), lower.removesuffix("es")} & numbers)  # 5 sixes
    return (
        is_number
        or lower in ORDINALS
        or bool(_CHANGING.fullmatch(lower))
        or (bool(_FRACTION_WORD.fullmatch(lower)) and lower not in _FINE and lower.removesuffix("s") not in _FINE)
    )


def _changes_in_chinese(word: str) -> bool:
    """Returns whether a word has a numeral (10000), or says times, tenths, parts, about, or more."""
    word = re.sub("千(?=[米克瓦])", "", word)  # kilometers, kilograms, kilowatts
    return "分之" in word or any(
        c in "以左超至到倍成折点點多约約余餘半负負不" or unicodedata.numeric(c, None) for c in word
    )


def is_unit(words: list[str], is_singular: bool) -> bool:
    """Returns whether words behind a number name what it counts or measures: a unit, or a plural where there must be.

    Args:
      is_singular: whether the number is one, or a fraction of one.
    """
    if len(words) > 1 and {word.lower() for word in words[:-1]} <= _KINDS and _is_counted(words[-1]):
        return True
    kept = [word for word in words if word.lower() not in DIMENSIONS]
    if len(words) > 6 or any(changes_value(word) for word in kept if word.lower() not in ("per", "of", "in", "the")):
        return words == ["times"]
    return is_singular or len(kept) < len(words) or not words or any(map(_names_unit, words))


def _is_counted(word: str) -> bool:
    """Returns whether a word names things to be counted, and no unit: 5 negative degrees may be -5."""
    return word.lower() in _COUNTED or _names_unit(word) and not find(word) and not changes_value(word)


def _names_unit(word: str) -> bool:
    """Returns whether a word is a unit or a plural; of those that are no ASCII, only Chinese ones are known."""
    lower = word.lower()
    if find(word) or lower in _UNCOUNTED:
        return True
    return lower.endswith("s") and lower[-2:] not in ("ss", "us", "is") or word[0] >= "⺀"


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
    if len(words) > 3 and words[-3:-1] == ["and", "a"] and words[-1] in _PARTS:
        whole = _count(words[:-3])
        return None if whole is None else whole + Fraction(1, _PARTS[words[-1]])
    if len(words) > 1 and (part := _part(words[-1], words[:-1] in (["a"], ["one"]))):
        count = 1 if words[0] == "a" else _count(words[:-1])
        return None if count is None else Fraction(count, part)
    count = _count(words)
    return None if count is None else Fraction(count)


def _part(word: str, is_one: bool) -> int | None:
    """Returns 6 for "sixths", and for "sixth" behind "one"; None for what is no part."""
    is_part = word.endswith("ths") or is_one and word.endswith("th")
    return _PARTS.get(word) or (_count([word.removesuffix("s")]) if is_part else None)


def _count(words: list[str]) -> int | None:
    """Returns the whole number that words say; the last may be an ordinal."""
    total = current = 0
    seen = None
    for index, word in enumerate(words):
        is_last = index == len(words) - 1
        if is_last and word in ORDINALS:
            word = next(name for name, value in _ONES.items() if value == ORDINALS[word])
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
