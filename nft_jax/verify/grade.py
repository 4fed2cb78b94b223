"""Grade one response against its reference answer.

No third-party imports (no jax either): used by notebooks, and loaded by the isolated grading workers. What the grader
`math` needs beyond that is imported when an answer first needs it, or by `preload`.
"""

import importlib
import time
from collections.abc import Callable
from typing import NamedTuple

from ..names import unknown
from .extract import last_boxed
from .gsm8k import gsm8k
from .math import grader as math_grader

# The index of a status is its integer code on the device. 0 is "incorrect": an array that nobody filled earns nothing.
STATUSES = ("incorrect", "correct", "unparsed", "timeout", "error")

# Characters at the end of a response in which the box must start. verl's DAPO reward keeps the last 300; its
# strict-box branch, which the NFT release calls, then keeps the last 100 of those (verl #7440 treats that as a bug,
# because it can cut the `\boxed{` off a long answer).
BOX_WINDOW = 300

Outcome = bool | str | tuple[str, str | None]
GraderFunction = Callable[[str, str], Outcome]


class Verdict(NamedTuple):
    """What a grader said of one response.

    `status`     one of `STATUSES`
    `extracted`  the answer found in the response; None if there is none or the grader does not tell
    `seconds`    wall-clock time the grader took, s (for a timeout: the time it was given)
    `reason`     for "error" and "timeout": what happened; else empty
    """

    status: str
    extracted: str | None
    seconds: float
    reason: str = ""


def boxed_exact(response: str, answer: str) -> tuple[str, str | None]:
    r"""Exact match of the last `\boxed{}` with `answer`, both stripped: the rule-based DAPO training reward.

    The box must start within the last `BOX_WINDOW` characters; without a closed box there: "unparsed".
    """
    extracted = last_boxed(response[-BOX_WINDOW:])
    if extracted is None:
        return "unparsed", None
    extracted = extracted.strip()
    return ("correct" if extracted == answer.strip() else "incorrect"), extracted


GRADERS: dict[str, GraderFunction] = {"boxed_exact": boxed_exact, "gsm8k": gsm8k, "math": math_grader.math}


def resolve_grader(name: str) -> GraderFunction:
    """The grader called `name`: a key of `GRADERS`, or `"module:function"`, which is imported.

    Raises ValueError for an unknown name, ImportError (or what the module raises) if the module cannot be imported,
    AttributeError or TypeError if it holds no such function.
    """
    if name in GRADERS:
        return GRADERS[name]
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(
            f"{unknown('grader', name, GRADERS)} (your own grader is written 'module:function', for example "
            "'my_graders:same_number', with function(response: str, answer: str) -> bool)"
        )
    function = getattr(importlib.import_module(module), attribute)
    if not callable(function):
        raise TypeError(f"grader {name!r} is a {type(function).__name__}, not a function of (response, answer)")
    return function


def preload(name: str) -> None:
    """Import now what a grader of `GRADERS` imports late: a worker does so before its first deadline runs."""
    if name == "math":
        math_grader.preload()


def grade(response: str, answer: str, *, grader: str | GraderFunction = "math", **options) -> Verdict:
    """Grade one response in this process, without a time or memory limit (`Pool` has both).

    `grader` is a name as for `resolve_grader`, or a function `(response, answer)` that returns a bool, a status, or
    a pair (status, extracted); `options` are its keyword arguments, such as `ordered=True` of `math`. What the function
    raises becomes the status "error"; an unknown name raises.
    """
    function = grader if callable(grader) else resolve_grader(grader)
    start = time.perf_counter()
    try:
        status, extracted = _read_outcome(function(response, answer, **options))
        reason = ""
    except (Exception, SystemExit) as error:  # a grader that calls exit() must not end its host
        status, extracted, reason = "error", None, f"{type(error).__name__}: {error}"
    return Verdict(status, extracted, time.perf_counter() - start, reason)


def _read_outcome(outcome: Outcome) -> tuple[str, str | None]:
    """(status, extracted) from what a grader returned; TypeError or ValueError if it is none of the allowed forms."""
    # By name, not isinstance: NumPy's bool is no bool, and NumPy is not to be imported here.
    if type(outcome).__name__ in ("bool", "bool_"):
        return ("correct" if outcome else "incorrect"), None
    status, extracted = outcome if isinstance(outcome, tuple) and len(outcome) == 2 else (outcome, None)
    if not isinstance(status, str) or not isinstance(extracted, str | None):
        raise TypeError(f"a grader returns a bool, a status or (status, extracted); got {outcome!r:.200}")
    if status not in STATUSES:
        raise ValueError(f"a grader returned status {status!r:.200}; the statuses are {', '.join(STATUSES)}")
    return status, extracted
