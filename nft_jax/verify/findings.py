"""What a grader found in an answer, for a person: the text that it took for the answer, and why that is not correct."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from .grade import Verdict

# Why an answer is unparsed, by the grader that found nothing.
_NOTHING = {
    "boxed_exact": r"no \boxed{} that closes near the end",
    "boxed_strict": r"no \boxed{ that closes, in the last 100 characters",
    "gsm8k": "no number as the result",
    "any_number": "no number",
    "math": "no final answer, or one that does not close",
}


class Finding(NamedTuple):
    """What a grader found in an answer.

    Attributes:
      extracted: The text that it took for the answer; None if there is none.
      reason: Why the answer is not correct; empty for a correct one. None where it is not known.
    """

    extracted: str | None
    reason: str | None


CUT = Finding(None, "cut at the limit of tokens, and not graded")
UNKNOWN = Finding(None, None)


def explain(verdict: Verdict, grader: str) -> Finding:
    """Returns what a verdict of this grader says to a person.

    Args:
      grader: As `config.verify.grader`.
    """
    status, extracted = verdict.status, verdict.extracted
    if status == "correct":
        reason = ""
    elif status == "incorrect":
        reason = "the grader says no more" if extracted is None else "not the reference"
    elif status == "unparsed":
        reason = _NOTHING.get(grader, "no answer found") if extracted is None else "it can't be read as mathematics"
    else:
        reason = f"{status}: {verdict.reason}" if verdict.reason else status
    return Finding(extracted, reason)


def look_up(findings: Mapping[bytes, Finding], problem: int, tokens: Sequence[int], *, is_cut: bool) -> Finding:
    """Returns what was found in an answer; of one that another process graded, nothing is known.

    Args:
      findings: From `Grader.take_findings`.
    """
    return CUT if is_cut else findings.get(key_of(problem, tokens), UNKNOWN)


def key_of(problem: int, tokens: Sequence[int]) -> bytes:
    """Returns the key of an answer to a problem; equal answers share it, and what was found in them."""
    return blake2b(np.array([problem, *tokens], np.int32).tobytes(), digest_size=16).digest()
