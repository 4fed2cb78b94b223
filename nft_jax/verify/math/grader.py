"""The grader of mathematical answers: extraction, exact comparison, and SymPy only where that cannot decide.

mpmath, SymPy and math-verify are imported when an answer first needs them.
"""

import re
from functools import lru_cache

from ..extract import final_answer
from . import comparison, number, symbolic
from .comparison import Rules
from .normalize import normalize
from .polynomial import TooBig
from .reader import LENGTH_LIMIT, parse
from .scanner import Unreadable

_PROSE_WORDS = 12  # a reference answer with more words than this is a solution that ends with the answer
_PLAIN_TO_LATEX = {
    "¶": r" \\ ", "⦃⦄": r"\emptyset ", "⟦": r"\text{", "⟧": "}", "⦃": r"\{", "⦄": r"\}",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∈": r"\in ", "±": r"\pm ", "%": r"\%",
}  # fmt: skip


def math(response: str, answer: str, *, ordered: bool = False, precision: int = 6) -> tuple[str, str | None]:
    r"""Returns whether the final answer of `response` is mathematically the same as the reference `answer`.

    Args:
      response: the text of a sampled answer.
      answer: LaTeX or plain text, with or without dollars or a box.
      ordered: whether the order counts in lists without brackets.
      precision: how many decimals a decimal number needs to be correct as the rounded value of an exact answer; with
        fewer it must be equal.

    Returns:
      (status, extracted answer). The status is "unparsed" if there is no final answer or it cannot be read.
    """
    extracted = final_answer(response)
    if extracted is None or not extracted.strip():
        return "unparsed", None
    extracted = extracted.strip()
    return _decide(_extract_reference(answer), extracted, Rules(ordered, precision)), extracted


@lru_cache(maxsize=4096)
def _decide(reference: str, given: str, rules: Rules) -> str:
    """Returns the status of an extracted answer; the cheapest comparison goes first."""
    if reference == given:
        return "correct"
    left, right = number.read(reference), number.read(given)
    if left is not None and right is not None:
        if number.is_equal(left, right):
            return "correct"
        if max(left.decimals, right.decimals) < rules.precision:  # else one may be the other, rounded
            return "incorrect"
    if len(given) > LENGTH_LIMIT:
        return "unparsed"
    result, readable = _compare(reference, given, rules)
    if result is None and comparison.has_same_letters(reference, given):
        return "correct"
    return "correct" if result else "incorrect" if readable else "unparsed"


def _compare(reference: str, given: str, rules: Rules) -> tuple[bool | None, bool]:
    """Returns (same, whether `given` could be read). SymPy gets only what the exact grammar cannot read."""
    readable = False
    try:
        value = parse(given)
        readable = True
        return comparison.compare(parse(reference), value, rules), True
    except (TooBig, ZeroDivisionError):
        return None, readable
    except Unreadable:
        latex = _to_latex(given)
        result = symbolic.compare(_to_latex(reference), latex)
        return result, readable or result is not None or symbolic.is_readable(latex)


def _to_latex(text: str) -> str:
    """Returns the normalized text in the LaTeX that math-verify's grammar reads."""
    text = normalize(text)
    for plain, latex in _PLAIN_TO_LATEX.items():
        text = text.replace(plain, latex)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", re.sub(r"\\sqrt\s*(\d)", r"\\sqrt{\1}", text))
    return re.sub(r"\\(begin|end)\s", r"\\\1", text).strip()


@lru_cache(maxsize=4096)
def _extract_reference(answer: str) -> str:
    """Returns the final answer of a text that holds a box, dollars or a whole solution; any other text as it is."""
    plain = answer.strip()
    if "boxed" in plain or "$" in plain.replace(r"\$", "") or len(plain.split()) > _PROSE_WORDS:
        return (final_answer(plain) or plain).strip()
    return plain


def check_reference(answer: str) -> str | None:
    """Returns why nothing but its own text could match this reference answer; None if it is usable."""
    reference = _extract_reference(answer)
    if not reference:
        return "it is empty"
    if len(reference) > LENGTH_LIMIT:
        return f"it has {len(reference)} characters; at most {LENGTH_LIMIT} are read"
    try:
        parse(reference)
    except TooBig as error:
        return f"it is too big: {error}"
    except ZeroDivisionError:
        return "it divides by 0"
    except Unreadable as error:
        if not symbolic.is_readable(_to_latex(reference)):
            return f"it cannot be read: {error}"
    return None


def preload() -> None:
    """Imports what hard answers need, so that no answer's deadline pays for it."""
    from . import numeric

    numeric.preload()
    symbolic.preload()
