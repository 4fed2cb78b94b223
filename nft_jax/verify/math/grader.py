"""The grader of mathematical answers: extraction, exact comparison, and SymPy only where that cannot decide.

No third-party imports at the start: mpmath, SymPy and math-verify are loaded when an answer first needs them.
"""

import re
from functools import lru_cache

from ..extract import final_answer
from . import exact, number, symbolic
from .exact import Rules
from .normalize import normalize
from .polynomial import TooBig
from .syntax import LENGTH_LIMIT, Unreadable, parse

_PROSE_WORDS = 12  # a reference answer with more words than this is a solution that ends with the answer


def math(response: str, answer: str, *, ordered: bool = False, precision: int = 6) -> tuple[str, str | None]:
    r"""Whether the final answer of `response` is mathematically the same as `answer`.

    "unparsed" if there is none or it cannot be read. `answer` is LaTeX or plain text, with or without dollars or a box.
    `ordered` makes the order of lists without brackets count. A decimal number with at least `precision` decimals may
    be the rounded value of an exact answer; with fewer it must be equal.
    """
    extracted = final_answer(response)
    if extracted is None or not extracted.strip():
        return "unparsed", None
    extracted = extracted.strip()
    return _judge(_reference(answer), extracted, Rules(ordered, precision)), extracted


@lru_cache(maxsize=4096)
def _judge(gold: str, given: str, rules: Rules) -> str:
    """The status of an extracted answer: from the cheapest comparison to the dearest."""
    if gold == given:
        return "correct"
    ours, theirs = number.read(gold), number.read(given)
    if ours is not None and theirs is not None:
        if number.same(ours, theirs):
            return "correct"
        if max(ours.decimals, theirs.decimals) < rules.precision:  # else one may be the other, rounded
            return "incorrect"
    if len(given) > LENGTH_LIMIT:
        return "unparsed"
    result, readable = _compare(gold, given, rules)
    if result is None and exact.same_letters(gold, given):
        return "correct"
    return "correct" if result else "incorrect" if readable else "unparsed"


def _compare(gold: str, given: str, rules: Rules) -> tuple[bool | None, bool]:
    """(same, whether `given` could be read). SymPy gets only what the exact grammar cannot read."""
    readable = False
    try:
        value = parse(given)
        readable = True
        return exact.same(parse(gold), value, rules), True
    except (TooBig, ZeroDivisionError):
        return None, readable
    except Unreadable:
        theirs = _for_symbolic(given)
        result = symbolic.same(_for_symbolic(gold), theirs)
        return result, readable or result is not None or symbolic.readable(theirs)


def _for_symbolic(text: str) -> str:
    """The normalised text in the LaTeX that math-verify's grammar reads."""
    text = normalize(text).replace("¶", r" \\ ").replace("⦃⦄", r"\emptyset ").replace("⟦", r"\text{").replace("⟧", "}")
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", re.sub(r"\\sqrt\s*(\d)", r"\\sqrt{\1}", text))
    for plain, latex in {"⦃": r"\{", "⦄": r"\}", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx "}.items():
        text = text.replace(plain, latex)
    return (
        re.sub(r"\\(begin|end)\s", r"\\\1", text)
        .replace("∪", r"\cup ")
        .replace("∈", r"\in ")
        .replace("±", r"\pm ")
        .replace("%", r"\%")
        .strip()
    )


@lru_cache(maxsize=4096)
def _reference(answer: str) -> str:
    """The answer inside a reference: itself, unless it is a text that contains a box, dollars or a solution."""
    plain = answer.strip()
    if "boxed" in plain or "$" in plain.replace(r"\$", "") or len(plain.split()) > _PROSE_WORDS:
        return (final_answer(plain) or plain).strip()
    return plain


def check_gold(answer: str) -> str | None:
    """Why no response but its own wording could match this reference answer; None if it is usable."""
    gold = _reference(answer)
    if not gold:
        return "it is empty"
    if len(gold) > LENGTH_LIMIT:
        return f"it has {len(gold)} characters; at most {LENGTH_LIMIT} are read"
    try:
        parse(gold)
    except TooBig as error:
        return f"it is too big: {error}"
    except ZeroDivisionError:
        return "it divides by 0"
    except Unreadable as error:
        if not symbolic.readable(_for_symbolic(gold)):
            return f"it cannot be read: {error}"
    return None


def preload() -> None:
    """Load what hard answers need, so that no deadline of an answer pays for it."""
    from . import numeric

    numeric.preload()
    symbolic.preload()
