"""Verdicts: grades one response against its reference answer.

Grading workers load this file without the package root (`pool/worker.py`), so it and what it imports use relative
imports and the standard library only. `math` imports its libraries when an answer first needs them.
"""

import numbers
import time
from collections.abc import Callable
from typing import NamedTuple

from ..names import unknown
from ..own_code import check_call, describe_error, load
from .extract import last_boxed
from .gsm8k import any_number, gsm8k
from .math import grader as math_grader

# The index of a status is its integer code on the device. 0 is "incorrect", so that a place never filled earns no
# reward.
STATUSES = ("incorrect", "correct", "unparsed", "timeout", "error")

# The box must start within so many characters of the end of a response. verl's DAPO reward keeps the last 300. Its
# strict-box branch, which the NFT release calls, then keeps the last 100 of those; verl #7440 treats that as a bug,
# because it can cut the `\boxed{` off a long answer.
BOX_TAIL_CHARACTERS, STRICT_BOX_TAIL_CHARACTERS = 300, 100

Outcome = bool | str | float | tuple[str | float, str | None]
GraderFunction = Callable[[str, str], Outcome]


class OutcomeError(TypeError):
    """A grader returned what is no judgment."""


class Verdict(NamedTuple):
    """The judgment of one response.

    Attributes:
      status: one of `STATUSES`.
      extracted: the answer found in the response; None if there is none, or the grader returned none.
      seconds: wall-clock time that the grader took, s; of a timeout, the time that it was given.
      reason: what happened, for "error" and "timeout"; else empty.
      reward: the number from 0 to 1 that a grader of rewards returned; None of a verdict alone.
    """

    status: str
    extracted: str | None
    seconds: float
    reason: str = ""
    reward: float | None = None

    @property
    def earned(self) -> float:
        """The reward: the grader's own, or 1 for a correct answer and 0 for any other."""
        return float(self.status == "correct") if self.reward is None else self.reward


def boxed_exact(response: str, answer: str) -> tuple[str, str | None]:
    r"""Compares the text of the last `\boxed{}` with the reference `answer`: the rule-based DAPO training reward.

    Returns:
      (status, extracted answer). The status is "unparsed" without a closed box that starts within the last
      `BOX_TAIL_CHARACTERS`.
    """
    extracted = last_boxed(response[-BOX_TAIL_CHARACTERS:])
    if extracted is None:
        return "unparsed", None
    extracted = extracted.strip()
    return ("correct" if extracted == answer.strip() else "incorrect"), extracted


def boxed_strict(response: str, answer: str) -> tuple[str, str | None]:
    r"""Compares the last `\boxed{}` with the reference as the NFT release does in training: `configs/official.md`.

    As `boxed_exact`, but the box must start within the last `STRICT_BOX_TAIL_CHARACTERS`, with no space in `\boxed{`,
    and white space counts: `\boxed{ 5 }` is not 5.
    """
    extracted = last_boxed(response[-STRICT_BOX_TAIL_CHARACTERS:], spaced=False)
    if extracted is None:
        return "unparsed", None
    return ("correct" if extracted == answer else "incorrect"), extracted


GRADERS: dict[str, GraderFunction] = {
    "any_number": any_number,
    "boxed_exact": boxed_exact,
    "boxed_strict": boxed_strict,
    "gsm8k": gsm8k,
    "math": math_grader.math,
}


def resolve_grader(name: str) -> GraderFunction:
    """Returns the grader called `name`: a key of `GRADERS`, or a custom grader "module:function", which is imported.

    Raises:
      ValueError: for an unknown name, a module that can't be imported, one without the function, or a function of other
        arguments.
    """
    if name in GRADERS:
        return GRADERS[name]
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(
            f"{unknown('grader', name, GRADERS)} (a custom grader is written 'module:function', for example "
            "'my_graders:same_number', with function(response: str, answer: str) -> bool)"
        )
    function = load(name, "grader")
    check_call(function, name, "grader", "grader(response, answer)")
    return function


def preload(name: str) -> None:
    """Imports what a grader of `GRADERS` imports late; a worker does so before its first deadline runs."""
    if name == "math":
        math_grader.preload()


def grade(
    response: str, answer: str, *, grader: str | GraderFunction = "math", correct_from: float = 0.0, **options
) -> Verdict:
    """Grades one response in this process, without a time or memory limit (`Pool` has both).

    Args:
      response: the text of a sampled answer.
      grader: a name as for `resolve_grader`, or a function of (response, answer) that returns a bool, a status, or
        (status, extracted). What it raises becomes the status "error".
      correct_from: above 0, the function may also return a reward from 0 to 1 in place of a status; an answer with at
        least this one is correct, any other incorrect.
      **options: its keyword arguments, such as `ordered=True` of `math`.

    Raises:
      ValueError: as `resolve_grader`.
    """
    function = grader if callable(grader) else resolve_grader(grader)
    start = time.perf_counter()
    try:
        status, extracted, reward = _read_outcome(function(response, answer, **options), correct_from)
        reason = ""
    except (Exception, SystemExit) as error:  # a grader that calls exit() must not end its host
        status, extracted, reason, reward = "error", None, describe_error(error), None
    return Verdict(status, extracted, time.perf_counter() - start, reason, reward)


def _read_outcome(outcome: Outcome, correct_from: float) -> tuple[str, str | None, float | None]:
    """Returns (status, extracted, reward) of what a grader returned. Raises OutcomeError for any other form."""
    # By name, because NumPy's bool is no bool, and NumPy must not be imported here.
    if type(outcome).__name__ in ("bool", "bool_"):
        return ("correct" if outcome else "incorrect"), None, None
    status, extracted = outcome if isinstance(outcome, tuple) and len(outcome) == 2 else (outcome, None)
    reward = None
    if isinstance(status, numbers.Real) and not isinstance(status, bool) and correct_from:
        reward = float(status)
        if not 0 <= reward <= 1:
            raise OutcomeError(f"the grader returned the reward {reward:g}; use a number from 0 to 1")
        status = "correct" if reward >= correct_from else "incorrect"
    if isinstance(status, float):
        raise OutcomeError(
            f"the grader returned {outcome!r:.200}; for a grader of rewards from 0 to 1 give the smallest one of a "
            f"correct answer, by config.verify.correct_from"
        )
    if not isinstance(status, str) or not isinstance(extracted, str | None):
        raise OutcomeError(f"the grader returned {outcome!r:.200}; use a bool, a status or (status, extracted)")
    if status not in STATUSES:
        raise OutcomeError(f"the grader returned status {status!r:.200}; use one of {', '.join(STATUSES)}")
    return status, extracted, reward
