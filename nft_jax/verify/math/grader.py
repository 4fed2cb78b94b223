"""The grader of mathematical answers: extraction, reading, comparison.

FLINT is imported when an answer first needs it.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from ..extract import final_answer, reference_answer
from . import number
from .comparison import compare
from .cursor import Unreadable
from .evaluate import Budget, Evaluation, Undecided, Undefined
from .evaluate import preload as preload_arithmetic
from .identity import variables
from .reader import LENGTH_LIMIT, read, why_unreadable
from .scalars import Rules
from .values import Expression, Scalar, Text, Value, operations, rename

__all__ = ["check_reference", "math", "preload"]


_IMPLIES = re.compile(r"\\(?:implies|(?:Long)?Rightarrow|therefore)(?![A-Za-z])\s*|[⇒⟹∴]")
_SPACES = re.compile(r",\s+")
_CONSTANT = re.compile(r"[Cc](?:_\d)?")


def math(response: str, answer: str, **options: bool | int) -> tuple[str, str | None]:
    r"""Returns whether the final answer of `response` is mathematically the same as the reference `answer`.

    Args:
      response: the text of a sampled answer.
      answer: LaTeX or plain text, with or without dollars: all of it is the answer. A text with a `\boxed{}` is a
        solution, of which only the box is the answer.
      **options: those of `Rules`.

    Returns:
      (status, extracted answer). The status is "unparsed" if there is no final answer or it cannot be read.
    """
    rules = Rules(**options)
    if response.strip() == answer.strip() != "":
        return "correct", answer.strip()
    extracted = final_answer(response)
    if extracted is None or not extracted.strip():
        return "unparsed", None
    extracted = extracted.strip() if _IMPLIES.search(answer) else _IMPLIES.split(extracted)[-1].strip()
    return _decide(reference_answer(answer), extracted, rules), extracted


@lru_cache(maxsize=4096)
def _decide(reference: str, given: str, rules: Rules) -> str:
    """Returns the status of an extracted answer; the cheapest comparison goes first."""
    if reference == given or ", " in reference and _SPACES.sub(",", reference) == given:  # 81,256 may be a list
        return "correct"
    if max(len(reference), len(given)) > LENGTH_LIMIT:
        return "unparsed" if len(given) > LENGTH_LIMIT else "incorrect"
    left, right = number.read(reference), number.read(given)
    if left is not None and right is not None:
        if number.is_equal(left, right):
            return "correct"
        if max(left.decimals, right.decimals) < rules.precision:  # else one may be the other, rounded
            return "incorrect"
    try:
        stated, value = read(reference), read(given)
        if compare(stated, _rename_like(stated, value, rules), rules):
            return "correct"
    except Unreadable:
        return "unparsed"
    return "unparsed" if isinstance(value, Text) and not value.is_words else "incorrect"


def _rename_like(reference: Value, given: Value, rules: Rules) -> Value:
    """Returns an answer with the names of the reference: of its constants (`C_1` for `c_1`), or of all variables."""
    names, own = (variables(*_expressions(value)) for value in (reference, given))
    if rules.any_names and len(names) == len(own):
        return rename(given, dict(zip(own, names, strict=True)))
    capitals = {name: name.swapcase() for name in own if _CONSTANT.fullmatch(name) and name not in names}
    return rename(given, {name: other for name, other in capitals.items() if other in names and other not in own})


def check_reference(answer: str) -> str | None:
    """Returns why nothing but its own text could match this reference answer; None if it is usable."""
    reference = reference_answer(answer)
    if not reference:
        return "it is empty"
    if len(reference) > LENGTH_LIMIT:
        return f"it has {len(reference)} characters; at most {LENGTH_LIMIT} are read"
    try:
        value = read(reference)
    except Unreadable as error:
        return str(error)
    if reason := why_unreadable(reference):
        return f"it cannot be read: {reason}"
    try:
        for expression in _expressions(value):
            if not variables(expression) and not {"infinity", "series"} & operations(expression):
                Evaluation(96, {}, Budget()).evaluate(expression)
    except Undefined as error:
        return f"it has no value: {error}"
    except Undecided as error:
        return f"it is too big: {error}"
    return None if compare(value, value) else "it does not equal itself"


def _expressions(value: Value) -> Iterator[Expression]:
    """Yields the expressions of the scalars in a value."""
    if isinstance(value, Scalar):
        yield value.expression
    elif isinstance(value, tuple):
        for part in value:
            yield from _expressions(part)


def preload() -> None:
    """Imports what hard answers need, so that no answer's deadline pays for it."""
    preload_arithmetic()
