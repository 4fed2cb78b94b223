r"""The generated problems of the default experiment: three kinds of arithmetic, each with a systematic misconception.

| kind         | prompt      | correct                  | misconception                                           |
|--------------|-------------|--------------------------|---------------------------------------------------------|
| `chain`      | `a-b+c-d=`  | left to right            | right to left: c-d, b+(c-d), a-(b+(c-d))                |
| `precedence` | `a+b*c-d=`  | product first            | no precedence: a+b, (a+b)*c, (a+b)*c-d                  |
| `linear`     | `ax+b=c,x=` | subtract b, divide by a  | subtracts a instead of dividing: c-b, c-b-a             |

A solution is its intermediate results separated by commas, with the last one boxed: `3-2+4-1=` has the solution
`1,5,\boxed{4}`. Results may be negative (`-4`). For some operands the misconception also reaches the correct answer
(chain: c = d; precedence: c = 1; linear: a = x = 2); `misconception_agrees` finds these problems, and none of them
becomes an incorrect example.

Operands run from 1 to `largest`. In `linear`, a and x always run from 2 to 9, and b from 1 to 4·largest. At the default
`largest` of 6 the three kinds are then about equally frequent (1,296, 1,296 and 1,536 problems).
"""

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np

from nft_jax.data.files import Problem

SPLITS = ("train", "validation", "test")

_PATTERNS = {
    "chain": re.compile(r"(\d+)-(\d+)\+(\d+)-(\d+)="),
    "precedence": re.compile(r"(\d+)\+(\d+)\*(\d+)-(\d+)="),
    "linear": re.compile(r"(\d+)x\+(\d+)=(\d+),x="),
}
KINDS = tuple(_PATTERNS)


def all_problems(largest: int = 6) -> list[Problem]:
    """Generates every problem of every kind, kind by kind, in the order of the operands.

    Raises:
      ValueError: if `largest` is not between 2 and 20. At 1 the misconception of `precedence` never shows; the number
        of problems grows with the fourth power of `largest`.
    """
    if not 2 <= largest <= 20:
        raise ValueError(f"largest operand is {largest}; it must be between 2 and 20")
    return [_make_problem(kind, text) for kind, text in _prompts(largest)]


def incorrect_solution(problem: Problem) -> str:
    r"""Solves the problem by the misconception of its kind: `3-2+4-1=` becomes `3,5,\boxed{-2}`.

    Raises:
      ValueError: if the problem is not one of this module's.
    """
    return _format_solution(_incorrect_results(problem.kind, *_operands(problem.kind, problem.problem)))


def misconception_agrees(problem: Problem) -> bool:
    """Returns whether the misconception happens to reach the correct answer.

    Raises:
      ValueError: if the problem is not one of this module's.
    """
    results = _incorrect_results(problem.kind, *_operands(problem.kind, problem.problem))
    return str(results[-1]) == problem.answer


def split(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    """Splits problems into "train" (80 %), "validation" (10 %) and "test" (10 %) by a hash of their text.

    The split of a problem depends on its text alone: not on the other problems, their order, `largest` or the machine.
    """
    parts: dict[str, list[Problem]] = {name: [] for name in SPLITS}
    for problem in problems:
        digest = hashlib.sha256(problem.problem.encode()).digest()
        tenth = int.from_bytes(digest[:8], "big") % 10
        parts[("test", "validation")[tenth] if tenth < 2 else "train"].append(problem)
    return parts


def draw_examples(
    problems: Sequence[Problem], *, size: int, incorrect_share: float, seed: int
) -> list[tuple[str, str]]:
    """Draws `size` (prompt, response) examples with replacement; round(size · incorrect_share) of them are incorrect.

    Each kind gets an equal share of the examples, and of the incorrect ones, to within one example, however many
    problems it has. Correct examples are drawn from all problems of a kind, incorrect ones from the problems on which
    the misconception fails.

    Raises:
      ValueError: if there are no problems, `size` is negative, `incorrect_share` is outside [0, 1], a problem is not
        one of this module's, or a kind needs incorrect examples and its misconception agrees on all its problems.
    """
    if not problems or size < 0 or not 0 <= incorrect_share <= 1:
        raise ValueError(
            f"{len(problems)} problems, size {size}, incorrect_share {incorrect_share}: give at least one problem, a "
            "size of 0 or more, and an incorrect_share between 0 and 1"
        )
    random = np.random.default_rng(seed)
    incorrect_size = round(size * incorrect_share)
    kinds = list(dict.fromkeys(problem.kind for problem in problems))
    examples: list[tuple[str, str]] = []
    for index, kind in enumerate(kinds):
        incorrect = _even_share(incorrect_size, index, len(kinds))
        correct = _even_share(size, index, len(kinds)) - incorrect
        members = [problem for problem in problems if problem.kind == kind]
        misled = [problem for problem in members if not misconception_agrees(problem)]
        if incorrect and not misled:
            raise ValueError(
                f"{incorrect} incorrect examples of kind {kind!r} are needed, but its misconception agrees with the "
                f"correct answer in all {len(members)} problems; give more problems or incorrect_share 0"
            )
        examples += _draw([(p.problem, p.solution) for p in members], correct, random)
        examples += _draw([(p.problem, incorrect_solution(p)) for p in misled], incorrect, random)
    return [examples[i] for i in random.permutation(len(examples)).tolist()]


def _draw(pool: list[tuple[str, str]], count: int, random: np.random.Generator) -> list[tuple[str, str]]:
    return [pool[i] for i in random.integers(len(pool), size=count).tolist()] if count else []


def _even_share(total: int, index: int, parts: int) -> int:
    """Returns the size of part `index` when `total` is divided evenly: 8 in 3 parts is 2, 3, 3."""
    return total * (index + 1) // parts - total * index // parts


def _prompts(largest: int) -> Iterator[tuple[str, str]]:
    """Yields the kind and the text of every problem."""
    small = range(1, largest + 1)
    for a, b, c, d in itertools.product(small, repeat=4):
        yield "chain", f"{a}-{b}+{c}-{d}="
    for a, b, c, d in itertools.product(small, repeat=4):
        yield "precedence", f"{a}+{b}*{c}-{d}="
    for a, x, b in itertools.product(range(2, 10), range(2, 10), range(1, 4 * largest + 1)):
        yield "linear", f"{a}x+{b}={a * x + b},x="


def _make_problem(kind: str, text: str) -> Problem:
    results = _correct_results(kind, *_operands(kind, text))
    return Problem(text, answer=str(results[-1]), solution=_format_solution(results), kind=kind, id=f"{kind}:{text}")


def _operands(kind: str, text: str) -> list[int]:
    """Returns the numbers of a prompt in order.

    Raises:
      ValueError: if the text is not a prompt of that kind.
    """
    if kind not in _PATTERNS:
        raise ValueError(f"{text!r} is of kind {kind!r}; arithmetic problems are of kind {', '.join(KINDS)}")
    match = _PATTERNS[kind].fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an arithmetic problem of kind {kind!r}")
    return [int(digits) for digits in match.groups()]


def _correct_results(kind: str, a: int, b: int, c: int, d: int = 0) -> tuple[int, ...]:
    """Returns the intermediate results and the answer; `linear` has no operand d."""
    return {
        "chain": (a - b, a - b + c, a - b + c - d),
        "precedence": (b * c, a + b * c, a + b * c - d),
        "linear": (c - b, (c - b) // a),
    }[kind]


def _incorrect_results(kind: str, a: int, b: int, c: int, d: int = 0) -> tuple[int, ...]:
    """Returns what the misconception computes instead."""
    return {
        "chain": (c - d, b + (c - d), a - (b + (c - d))),
        "precedence": (a + b, (a + b) * c, (a + b) * c - d),
        "linear": (c - b, c - b - a),
    }[kind]


def _format_solution(results: Sequence[int]) -> str:
    *running, last = map(str, results)
    return ",".join([*running, f"\\boxed{{{last}}}"])
