"""The final answer in the text of a response."""

import re

BOX = r"\boxed{"
_BRACE = re.compile(r"[{}]")

TAIL_CHARACTERS = 4096  # of the end of a response, searched for the answer

_END_OF_THINKING = "</think>"
_NUMBER = r"[-+]?[$€£¥]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+(?:,\d+)?)(?:\.\d+)?|[-+]?\.\d+"
_FRACTION = r"-?\\[dtc]?frac\s*\{-?\d+(?:\.\d+)?\}\s*\{-?\d+(?:\.\d+)?\}"
_PERCENT = r"(?:\s*(?:\\?%|percent(?:age)?\b|pct\b))?"
# A number in prose is no part of a word (`AZYUK2A`); scripts without spaces may touch it. `a / b` is one number.
_PLAIN = re.compile(rf"(?<![A-Za-z\d_.,/^\\])(?:{_FRACTION}|(?:{_NUMBER})(?:\s?/\s?\d+(?![\d.]))?){_PERCENT}", re.I)
_MATH = re.compile(
    r"(?<!\\)\$\$(?P<display>[^$]+)\$\$"
    r"|\\\[(?P<bracket>(?:[^\\]|\\(?!\]))+)\\\]"
    r"|(?<![\\$])\$(?P<dollar>(?:\\.|[^$\\\n])+)\$"
    r"|\\\((?P<parenthesis>(?:[^\\\n]|\\(?!\)))+)\\\)"
)
# Words that announce the answer.
_ANNOUNCEMENT = re.compile(
    r"(?:final\s+answer|answer|^A)\s*(?:\*\*)?\s*(?:is|:|=)\s*(?:\*\*)?\s*:?\s*|####\s*", re.I | re.M
)
_SENTENCE = re.compile(r"\.\s+[A-Z]|\n|\.?\s*$")
_FOREIGN = re.compile(r"[^\W\d_\x00-\x7fͰ-Ͽ]")  # letters of other scripts than Latin and Greek
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}\s+[A-Za-z]{3,}")
_SEPARATOR = re.compile(r"(?<![A-Za-z])(?:and|or)(?![A-Za-z])|[,;]")
_BETWEEN_NOISE = re.compile(r"\\(?:text|mbox|quad|qquad|[()\[\],;:! ])|[${}()\[\].*\s]+")


def last_boxed(text: str) -> str | None:
    r"""Returns the content of the last `\boxed{…}`, with balanced braces; None if no box is there or it never closes.

    `\boxed{\boxed{5}}` gives `5`. Escaped braces (`\{`) count as braces, as in the official reward. The time is linear
    in the length of the text, also for hostile text.
    """
    start = text.rfind(BOX)
    if start < 0:
        return None
    end = _find_closing(text, start + len(BOX))
    return None if end is None else text[start + len(BOX) : end]


def _find_closing(text: str, inside: int) -> int | None:
    """Returns the position of the brace that closes the one before `inside`; None if it never closes."""
    depth = 1
    for brace in _BRACE.finditer(text, inside):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return brace.start()
    return None


def final_answer(text: str) -> str | None:
    r"""Returns the answer that a response ends with, as written; None if it has none.

    Searches the last `TAIL_CHARACTERS` of the text after the thinking. Takes the first of these that exists:

    1. an announced answer ("the answer is 5", "#### 5", "A: 5") behind the last `\boxed{}`
    2. the last `\boxed{}`; boxes with "and" or commas between them are one list
    3. the whole text, if it is nothing but an answer
    4. the last formula or number
    5. the whole text, if it is short
    """
    text = text[text.rfind(_END_OF_THINKING) + len(_END_OF_THINKING) :] if _END_OF_THINKING in text else text
    text = text[-TAIL_CHARACTERS:].strip()
    boxed, end = _find_last_boxes(text)
    if end is None:  # the last box never closes: the response was cut off
        return None
    announced = _find_announcement(text, end)
    if announced is not None:
        return announced
    if boxed is not None:
        return boxed
    if _is_only_an_answer(text):
        return _unwrap(text)
    return _find_last_formula(text) or (text if len(text) < 40 else None)


def _find_last_boxes(text: str) -> tuple[str | None, int | None]:
    """Returns (content, end) of the last box, with the boxes before it that belong to the same list.

    (None, 0) means that no box is there, (None, None) that the last one does not close.
    """
    start = text.rfind(BOX)
    if start < 0:
        return None, 0
    end = _find_closing(text, start + len(BOX))
    if end is None:
        return None, None
    last = end
    contents = [text[start + len(BOX) : end]]
    while len(contents) < 20:
        before = text.rfind(BOX, 0, start)
        end = _find_closing(text, before + len(BOX)) if before >= 0 else None
        if end is None or end >= start or not _is_list_separator(text[end + 1 : start]):
            break
        start = before
        contents.append(text[start + len(BOX) : end])
    return "; ".join(reversed(list(dict.fromkeys(contents)))) if len(contents) > 1 else contents[0], last


def _is_list_separator(between: str) -> bool:
    """Returns whether two boxes with this text between them are one list: a comma, or "and" with few other words."""
    if len(between) > 100 or not _SEPARATOR.search(between):
        return False
    words = _BETWEEN_NOISE.sub(" ", _SEPARATOR.sub(" ", between)).split()
    conjunctions = len(re.findall(r"\b(?:and|or)\b", between))
    return not words if not conjunctions else conjunctions == 1 and len(words) <= 3


def _find_announcement(text: str, start: int) -> str | None:
    """Returns the formula, number or letter that is announced last after `start`; None if there is none."""
    for match in reversed(list(_ANNOUNCEMENT.finditer(text, start))):
        rest = text[match.end() :].lstrip(' *"\n')
        formula = _MATH.match(rest)
        if formula is not None:
            return _find_last_formula(rest[: _SENTENCE.search(rest, formula.end()).start()])
        sentence = rest[: _SENTENCE.search(rest).start()].strip(' *"')
        if not re.search(r"\w", sentence):
            continue
        if _is_only_an_answer(sentence):
            return _unwrap(sentence)
        formula = _find_last_formula(sentence)
        if formula is not None:
            return formula
    return None


def _is_only_an_answer(text: str) -> bool:
    """Returns whether a text is nothing but an answer: no prose, and no formula inside prose."""
    if len(text) > 1000 or not text:
        return False
    outside = _MATH.sub(" ", text)
    if outside != text:
        return not outside.strip(" .,;*") and len(_MATH.findall(text)) == 1
    prose = re.sub(r"\\[A-Za-z]+|\{[^{}]*\}", " ", text)
    words = re.findall(r"[^\W\d_]{2,}", prose)
    return "$" not in text.replace(r"\$", "").strip("$") and len(words) <= 2 and not _FOREIGN.search(text)


def _unwrap(text: str) -> str:
    """Returns a formula without its dollars or brackets."""
    match = _MATH.fullmatch(text.strip(" .,;*"))
    return text if match is None else match.group(match.lastgroup)


def _find_last_formula(text: str) -> str | None:
    """Returns the last number after the last formula, else that formula; joins the formulas of one list."""
    formulas = [match for match in _MATH.finditer(text) if not _PROSE.search(match.group())]
    start = formulas[-1].end() if formulas else 0
    numbers = list(_PLAIN.finditer(text, start))
    if numbers:
        return numbers[-1].group().strip()
    if not formulas:
        return None
    parts = [formulas[-1]]
    for earlier in reversed(formulas[:-1]):
        between = text[earlier.end() : parts[-1].start()].strip()
        if between not in ("and", "or", ",", ", and", ", or"):
            break
        parts.append(earlier)
    return "; ".join(part.group(part.lastgroup).strip() for part in reversed(parts))
