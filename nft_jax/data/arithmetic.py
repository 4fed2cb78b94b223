r"""The generated problems of the default experiment: three kinds of sums, each with a systematic misconception.

| kind         | prompt      | right                    | misconception                                          |
|--------------|-------------|--------------------------|--------------------------------------------------------|
| `chain`      | `a-b+c-d=`  | from the left            | from the right: c-d, b+(c-d), a-(b+(c-d))              |
| `precedence` | `a+b*c-d=`  | product first            | no precedence: a+b, (a+b)*c, (a+b)*c-d                 |
| `linear`     | `ax+b=c,x=` | subtract b, divide by a  | subtracts a instead of dividing: c-b, c-b-a            |

A solution is its running results separated by commas, the last one boxed: `3-2+4-1=` is `1,5,\boxed{4}`. Results may be
negative (`-4`). For some operands both ways agree on the result (chain: c = d; precedence: c = 1; linear: a = x = 2);
`misconception_agrees` says so, and such problems are never used as examples of a wrong solution.

Operands run from 1 to `largest`. In `linear`, a and x run from 2 to 9 whatever `largest` is, and b from 1 to
4·largest, which makes the three kinds about equally many at the default of 6 (1,296, 1,296 and 1,536).
"""

import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np

from nft_jax.data.files import Problem

KINDS = ("chain", "precedence", "linear")
SPLITS = ("train", "validation", "test")

_PATTERNS = {
    "chain": re.compile(r"(\d+)-(\d+)\+(\d+)-(\d+)="),
    "precedence": re.compile(r"(\d+)\+(\d+)\*(\d+)-(\d+)="),
    "linear": re.compile(r"(\d+)x\+(\d+)=(\d+),x="),
}


def all_problems(largest: int = 6) -> list[Problem]:
    """Every problem of every kind, kind after kind, in the order of the operands.

    Raises ValueError if `largest` is not between 2 and 20 (at 1 no misconception of `precedence` shows; the number of
    problems grows with its fourth power).
    """
    if not 2 <= largest <= 20:
        raise ValueError(f"largest operand is {largest}; it must be between 2 and 20")
    return [_problem(kind, text) for kind, text in _prompts(largest)]


def incorrect_solution(problem: Problem) -> str:
    r"""The solution that the misconception of the problem's kind leads to, e.g. `3,5,\boxed{-2}` for `3-2+4-1=`.

    Raises ValueError if the problem is not one of this module's.
    """
    return _written(_wrong_results(problem.kind, *_operands(problem.kind, problem.problem)))


def misconception_agrees(problem: Problem) -> bool:
    """Whether the misconception happens to reach the right answer; ValueError as in `wrong_solution`."""
    results = _wrong_results(problem.kind, *_operands(problem.kind, problem.problem))
    return str(results[-1]) == problem.answer


def split(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    """Deal problems into "train" (80 %), "validation" (10 %) and "test" (10 %) by a hash of their text.

    A problem's place depends on nothing but its text: not on the other problems, their order, `largest` or the machine.
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
    """Draw `size` (prompt, response) examples with replacement, of which round(size·incorrect_share) are wrong.

    Kinds have equal parts of the examples, and of the wrong ones, up to one example, however many problems each has.
    Right examples are drawn from all problems of a kind, wrong ones from those where the misconception shows.

    Raises ValueError for no problems, a negative size, a share outside [0, 1], problems that are not this module's, and
    wrong examples asked of a kind in which the misconception agrees everywhere.
    """
    if not problems or size < 0 or not 0 <= incorrect_share <= 1:
        raise ValueError(
            f"{len(problems)} problems, size {size}, incorrect_share {incorrect_share}: a corpus needs at least one problem, "
            "a size of 0 or more, and a incorrect_share between 0 and 1"
        )
    random = np.random.default_rng(seed)
    wrong_size = round(size * incorrect_share)
    kinds = list(dict.fromkeys(problem.kind for problem in problems))
    examples: list[tuple[str, str]] = []
    for index, kind in enumerate(kinds):
        wrong = _part(wrong_size, index, len(kinds))
        right = _part(size, index, len(kinds)) - wrong
        members = [problem for problem in problems if problem.kind == kind]
        misled = [problem for problem in members if not misconception_agrees(problem)]
        if wrong and not misled:
            raise ValueError(
                f"{wrong} wrong examples of kind {kind!r} asked, but its misconception agrees with the right answer in "
                f"all {len(members)} problems; give more problems or incorrect_share 0"
            )
        examples += _draw([(p.problem, p.solution) for p in members], right, random)
        examples += _draw([(p.problem, incorrect_solution(p)) for p in misled], wrong, random)
    return [examples[i] for i in random.permutation(len(examples)).tolist()]


def _draw(pool: list[tuple[str, str]], count: int, random: np.random.Generator) -> list[tuple[str, str]]:
    return [pool[i] for i in random.integers(len(pool), size=count).tolist()] if count else []


def _part(total: int, index: int, parts: int) -> int:
    """The size of part `index` when `total` is dealt evenly: 8 in 3 parts is 2, 3, 3."""
    return total * (index + 1) // parts - total * index // parts


def _prompts(largest: int) -> Iterator[tuple[str, str]]:
    small = range(1, largest + 1)
    for a, b, c, d in itertools.product(small, repeat=4):
        yield "chain", f"{a}-{b}+{c}-{d}="
    for a, b, c, d in itertools.product(small, repeat=4):
        yield "precedence", f"{a}+{b}*{c}-{d}="
    for a, x, b in itertools.product(range(2, 10), range(2, 10), range(1, 4 * largest + 1)):
        yield "linear", f"{a}x+{b}={a * x + b},x="


def _problem(kind: str, text: str) -> Problem:
    results = _right_results(kind, *_operands(kind, text))
    return Problem(text, answer=str(results[-1]), solution=_written(results), kind=kind, id=f"{kind}:{text}")


def _operands(kind: str, text: str) -> list[int]:
    """The numbers of a prompt in order; ValueError if it is not a prompt of that kind."""
    if kind not in _PATTERNS:
        raise ValueError(f"{text!r} is of kind {kind!r}; arithmetic problems are of kind {', '.join(KINDS)}")
    match = _PATTERNS[kind].fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an arithmetic problem of kind {kind!r}")
    return [int(digits) for digits in match.groups()]


def _right_results(kind: str, *operands: int) -> tuple[int, ...]:
    if kind == "chain":
        a, b, c, d = operands
        return a - b, a - b + c, a - b + c - d
    if kind == "precedence":
        a, b, c, d = operands
        return b * c, a + b * c, a + b * c - d
    a, b, c = operands
    return c - b, (c - b) // a


def _wrong_results(kind: str, *operands: int) -> tuple[int, ...]:
    if kind == "chain":
        a, b, c, d = operands
        return c - d, b + (c - d), a - (b + (c - d))
    if kind == "precedence":
        a, b, c, d = operands
        return a + b, (a + b) * c, (a + b) * c - d
    a, b, c = operands
    return c - b, c - b - a


def _written(results: Sequence[int]) -> str:
    *running, last = map(str, results)
    return ",".join([*running, f"\\boxed{{{last}}}"])
