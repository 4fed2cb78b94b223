"""The numbers and formulas in prose, and the last of them."""

import re

_REFUSAL = re.compile(
    r"(?:\\text|[^\w.\n]){0,12}\b(?:is|was)(?:n't| (?:not|wrong|incorrect|false)\b)"
    r"|[^\w\n]{0,12}(?:wait|hmm|no|actually|but)?[,.]? ?"
    r"(?:that|this|it)(?:'s| is| was) (?:wrong|incorrect|not (?:right|correct))\b",
    re.I,
)
_NEGATION = re.compile(r"(?:\b(?:not|never|cannot)|n't)(?: be| equal(?: to)?)?\W*$", re.I)

NUMBER = r"[-+]?[$€£¥]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+(?:,\d+)?)(?:\.\d+)?|[-+]?\.\d+"
# Two quantities that are one: 5 hours and 30 minutes.
COMPOUND = (
    r"\s(?:hours?|hrs?|minutes?|mins?|days?|weeks?|months?|years?|feet|foot|ft|yards?|miles?|pounds?|lbs?|dollars?|degrees?)"
    r",?\s(?:and\s)?\d+\s[a-z]{2,}"
)
RANGE = re.compile(r"\bbetween\s+\S+\s+and\s+$|\d\s+(?:to|or)\s+$", re.I)  # before its second number
_FRACTION = r"-?\\[dtc]?frac\s*\{-?\d+(?:\.\d+)?\}\s*\{-?\d+(?:\.\d+)?\}"
_PERCENT = r"(?:\s*(?:\\?%|percent(?:age)?\b|pct\b)|\s?(?:[ap]m\b|[ap]\.m\.))?"  # or the half of a day
# A number in prose is no part of a word (`AZYUK2A`); scripts without spaces may touch it. `a / b` is one number.
_PLAIN = re.compile(
    rf"(?<![\w\\])[A-Z]?[(\[]\s*(?:{NUMBER})(?:\s*,\s*(?:{NUMBER}))+\s*[)\]]"  # a point
    rf"|(?<![\w.,/])\d+{COMPOUND}"
    rf"|(?<![A-Za-z\d_.,/^\\])(?<!\d:)(?<![A-Za-z]{{2}}-)"
    rf"(?:{_FRACTION}|\d+ \d+/\d+|(?:{NUMBER})(?:(?:\s?/\s?|:)\d+(?!\.?\d))?)"
    rf"(?!\.?\d|\s?/\s?\d|[\^_√]|!(?:\S|\s[a-z])){_PERCENT}",
    re.I,
)
# A formula in plain text: 2x^2 + 3x - 5, (1 + √3) / 2, x > 3. A letter that may be a unit (5g) is no variable.
_NAME = r"(?:(?:sqrt|cbrt|sin|cos|tan|log|ln|exp|pi)(?=\()|pi\b|[abciknpqrtuvwxyzπθ](?![A-Za-z'’]))"
# Possessive, so that a text of many digits or brackets can be read in one way only.
_OPERAND = (
    rf"[-−+]?[(√]*+(?>\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+(?:\.\d+)?|\.\d+|{_NAME})"
    rf"(?>[√²³()]|\^-?|!(?=\s?[-+*/)])|\d+(?:\.\d+)?|{_NAME})*+"
)
_PLAIN_FORMULA = re.compile(
    rf"(?<![\w.,/\\$€£¥^-]){_OPERAND}(?: ?(?:[-−+*/×·÷]|[<>]=?|[≤≥≠]|(?<=\d )x(?= \d)) ?{_OPERAND})*(?![\w^])"
)
MATH = re.compile(
    r"(?<!\\)\$\$(?P<display>[^$]+)\$\$"
    r"|\\\[(?P<bracket>(?:[^\\]|\\(?!\]))+)\\\]"
    r"|(?<![\\$])\$(?P<dollar>(?:\\.|[^$\\\n])+)\$"
    r"|\\\((?P<parenthesis>(?:[^\\\n]|\\(?!\)))+)\\\)"
)
_SUM_EQUATION = re.compile(r"\s*[a-z](?:_\w+)?(?:\s*[-+]\s*[a-z](?:_\w+)?)+\s*=")  # m + n = 7
_ALTERNATIVE = re.compile(r"\s*(?:,|,?\s*\bor\b)\s*(?:[a-z]\s*=\s*)?")  # between two numbers
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}\s+[A-Za-z]{3,}")


def is_denied(text: str, start: int, end: int) -> bool:
    """Returns whether a text says "not" before a part of it, or "is wrong" behind it."""
    before = text[max(start - 20, 0) : start].lower()
    has_word = "not" in before or "n't" in before or "never" in before  # most texts have none, and need no pattern
    return has_word and bool(_NEGATION.search(before)) or bool(_REFUSAL.match(text, end))


def _is_sum(formula: re.Match) -> bool:
    """Returns whether a formula is an equation of a sum of names."""
    return bool(_SUM_EQUATION.match(formula.group(formula.lastgroup)))


def _find_formula_around(text: str, number: re.Match) -> str | None:
    """Returns the formula in plain text that a number is a part of; None if it stands alone, or in a range (3-5)."""
    line = text.rfind("\n", 0, number.start()) + 1
    end = text.find("\n", number.end())
    for match in _PLAIN_FORMULA.finditer(text, max(line, number.start() - 200), len(text) if end < 0 else end):
        if match.end() < number.end():
            continue
        formula = _strip_unmatched(match.group())
        is_whole = match.start() <= number.start() and formula.count("(") == formula.count(")")
        is_more = len(formula.strip("()")) > len(number.group())
        return formula if is_whole and is_more and not re.search(r"\d[-−]\d", formula) else None
    return None


def _strip_unmatched(formula: str) -> str:
    """Returns a formula without the brackets at its ends that match no other."""
    excess = formula.count("(") - formula.count(")")
    opening = min(max(excess, 0), len(formula) - len(formula.lstrip("(")))
    closing = min(max(-excess, 0), len(formula) - len(formula.rstrip(")")))
    return formula[opening : len(formula) - closing]


def find_last_formula(text: str) -> str | None:
    """Returns the last number after the last formula, else that formula; joins the formulas of one list."""
    formulas = [match for match in MATH.finditer(text) if not _PROSE.search(match.group())]
    formulas = [match for match in formulas if not is_denied(text, *match.span())]
    start = formulas[-1].end() if formulas else 0
    numbers = [match for match in _PLAIN.finditer(text, start) if not is_denied(text, *match.span())]
    if numbers:
        first = len(numbers) - 1
        while first and _ALTERNATIVE.fullmatch(text, numbers[first - 1].end(), numbers[first].start()):
            first -= 1
        if first == len(numbers) - 1 and RANGE.search(text[: numbers[-1].start()][-40:]):
            return None
        if first == len(numbers) - 1 and (formula := _find_formula_around(text, numbers[-1])) is not None:
            return formula
        has_or = first < len(numbers) - 1 and "or" in text[numbers[-2].end() : numbers[-1].start()]
        return text[numbers[first if has_or else -1].start() : numbers[-1].end()].strip()
    if not formulas:
        return None
    parts = [formulas[-1]]
    for earlier in reversed(formulas[:-1]):
        between = text[earlier.end() : parts[-1].start()].strip()
        if between not in ("and", "or", ",", ", and", ", or"):
            break
        if len(parts) == 1 and _is_sum(parts[0]) and not _is_sum(earlier):  # what was asked for
            break
        parts.append(earlier)
    return "; ".join(part.group(part.lastgroup).strip() for part in reversed(parts))
