"""Generated word problems of grade school, of 22 templates; six of them occur in test problems only.

A template is a kind of problem: a few ways to say it, and the equations that solve it (`word_templates.py`). Names,
things and numbers vary. A solution is its equations, one a line, so that it ends in the answer:

    Ruth has 4 bags. There are 3 pears in each bag, and 2 more pears on the table. How many pears are there in all?

    4 * 3 = 12
    12 + 2 = 14

The numbers of a problem determine its split: no template has the same numbers, in any order, in two splits. Half of the
test problems are of the held-out templates, so that they tell whether what was learned carries over to other stories.
Two of those also have steps that no training template has in this order.
"""

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np

from nft_jax.data.files import Problem
from nft_jax.data.word_templates import HELD_OUT_TEMPLATES, TEMPLATES, Template
from nft_jax.names import lookup

# Problems of each split.
SIZES = {"train": 1600, "validation": 160, "test": 384}

_NAMES = (
    *(f"{name} he his" for name in ("Tom", "Ben", "Sam", "Jack", "Omar", "Leo", "Paul", "Ravi", "Max", "Adam")),
    *(f"{name} she her" for name in ("Anna", "Mia", "Ruth", "Lucy", "Sara", "Emma", "Nora", "Kate", "Rosa", "Ella")),
)
_THINGS = (
    *("apples", "pears", "books", "pencils", "stickers", "marbles", "cards", "coins", "shells", "buttons"),
    *("balloons", "cookies", "stamps", "flowers", "stones", "toys", "nuts", "beads"),
)
_BOXES = ("box boxes", "bag bags", "basket baskets", "jar jars", "drawer drawers")
_GOODS = ("book", "ball", "cake", "hat", "toy", "kite", "pizza", "ticket", "plant", "mug")

KINDS, HELD_OUT_KINDS = tuple(TEMPLATES), tuple(HELD_OUT_TEMPLATES)


def generate(split: str, size: int, seed: int = 0) -> list[Problem]:
    """Generates `size` different problems of a split; the first n of them have all kinds equally often.

    The test problems are of held-out templates and of the others in turn.

    Raises:
      ValueError: if there is no such split.
    """
    lookup(SIZES, split, "split")
    streams = [_cycle(TEMPLATES, split, seed)]
    if split == "test":
        streams.append(_cycle(HELD_OUT_TEMPLATES, split, seed))
    problems = itertools.islice(itertools.chain.from_iterable(zip(*streams, strict=True)), size)
    return [problem._replace(id=f"{split}:{number}") for number, problem in enumerate(problems, 1)]


def _cycle(templates: dict[str, Template], split: str, seed: int) -> Iterator[Problem]:
    """Yields different problems of the templates in turn, without end."""
    random = np.random.default_rng([seed, *split.encode()])
    draws = {kind: _draw(kind, template, split, random) for kind, template in templates.items()}
    seen: set[str] = set()
    for draw in itertools.cycle(draws.values()):
        problem = next(problem for problem in draw if problem.problem not in seen)
        seen.add(problem.problem)
        yield problem


def _draw(kind: str, template: Template, split: str, random: np.random.Generator) -> Iterator[Problem]:
    """Yields problems of a template without end: all its numbers of the split once, then again with other words."""
    numbers = [each for each in template.numbers if split_of(kind, each) == split]
    while True:
        for index in random.permutation(len(numbers)).tolist():
            yield _make_problem(kind, template, numbers[index], random)


def split_of(kind: str, numbers: tuple[int, ...]) -> str:
    """Returns the split of a template's numbers, in any order: a sixth each is "validation" and "test"."""
    if kind in HELD_OUT_TEMPLATES:
        return "test"
    digest = hashlib.sha256(f"{kind} {sorted(numbers)}".encode()).digest()
    return {0: "test", 1: "validation"}.get(int.from_bytes(digest[:8], "big") % 6, "train")


def _make_problem(kind: str, template: Template, numbers: tuple[int, ...], random: np.random.Generator) -> Problem:
    """Tells a story with these numbers."""

    def pick(words):
        return words[random.integers(len(words))]

    first, second = (_NAMES[i].split() for i in random.choice(len(_NAMES), 2, replace=False))
    box, boxes = pick(_BOXES).split()
    values = dict(zip("abc", numbers, strict=False))
    text = pick(template.texts).format(
        **values,
        name=first[0],
        he=first[1],
        He=first[1].capitalize(),
        other=second[0],
        things=pick(_THINGS),
        box=box,
        boxes=boxes,
        good=pick(_GOODS),
    )
    lines = list(_solve(template.equations, values))
    return Problem(text[0].upper() + text[1:], str(lines[-1].split()[-1]), "\n".join(lines), kind)


def _solve(equations: tuple[str, ...], values: dict[str, int]) -> Iterator[str]:
    """Yields each equation with its numbers and its result: `4 * 3 = 12`."""
    values = dict(values)
    for left, operator, right in equations:
        x, y = values[left], values[right]
        values["r"] = {"+": x + y, "-": x - y, "*": x * y, "/": x // y}[operator]
        yield f"{x} {operator} {y} = {values['r']}"
