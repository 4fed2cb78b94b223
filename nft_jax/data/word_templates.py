"""The templates of the generated word problems: what their texts say, and the equations that solve them."""

import itertools
from collections.abc import Callable
from typing import NamedTuple


class Template(NamedTuple):
    """A kind of problem.

    Attributes:
      texts: Ways to say it; `{a}`, `{b}` and `{c}` are its numbers.
      equations: What solves it, such as ("a*b", "r-c"); `r` is the result of the equation before.
      numbers: All numbers that it may have.
    """

    texts: tuple[str, ...]
    equations: tuple[str, ...]
    numbers: list[tuple[int, ...]]


def _numbers(*ranges: range, where: Callable[..., bool] = lambda *_: True) -> list[tuple[int, ...]]:
    return [numbers for numbers in itertools.product(*ranges) if where(*numbers)]


_SUMS = _numbers(range(2, 13), range(2, 13))
_DIFFERENCES = _numbers(range(3, 21), range(2, 13), where=lambda a, b: a > b)
_PRODUCTS = _numbers(range(2, 10), range(2, 10), where=lambda a, b: a * b <= 45)
_QUOTIENTS = _numbers(range(4, 46), range(2, 10), where=lambda a, b: a % b == 0 and 2 <= a // b <= 9)
_LOSSES_OF_SUMS = _numbers(range(2, 13), range(2, 11), range(2, 11), where=lambda a, b, c: a + b > c)
_TWO_LOSSES = _numbers(range(6, 21), range(2, 9), range(2, 9), where=lambda a, b, c: a > b + c)
_PRODUCTS_AND_MORE = _numbers(range(2, 7), range(2, 7), range(2, 10))

TEMPLATES = {
    "gain": Template(
        (
            "{name} has {a} {things}. {other} gives {name} {b} more {things}. How many {things} does {name} have now?",
            "{name} found {a} {things} on Monday and {b} {things} on Tuesday. How many {things} did {he} find in all?",
        ),
        ("a+b",),
        _SUMS,
    ),
    "together": Template(
        (
            "{name} has {a} {things} and {other} has {b} {things}. How many {things} do they have together?",
            "There are {a} {things} in one {box} and {b} in another. How many {things} are in the two {boxes}?",
        ),
        ("a+b",),
        _SUMS,
    ),
    "more_than": Template(
        (
            "{name} has {a} {things}. {other} has {b} more {things} than {name}. How many {things} does {other} have?",
            "{other} sold {b} more {things} than {name}, who sold {a}. How many {things} did {other} sell?",
        ),
        ("a+b",),
        _SUMS,
    ),
    "loss": Template(
        (
            "{name} had {a} {things} and gave {b} of them to {other}. How many {things} does {name} have left?",
            "{name} had {a} {things}. Then {he} lost {b} of them. How many {things} are left?",
        ),
        ("a-b",),
        _DIFFERENCES,
    ),
    "difference": Template(
        (
            "{name} has {a} {things}. {other} has {b} {things}. How many more {things} does {name} have than {other}?",
            "{other} has {b} {things} and {name} has {a}. How many fewer {things} does {other} have than {name}?",
        ),
        ("a-b",),
        _DIFFERENCES,
    ),
    "fewer_than": Template(
        (
            "{name} has {a} {things}. {other} has {b} fewer {things} than {name}. How many {things} does {other} have?",
            "{name} sold {a} {things}, and {other} sold {b} fewer. How many {things} did {other} sell?",
        ),
        ("a-b",),
        _DIFFERENCES,
    ),
    "start": Template(
        (
            "{name} had some {things}. {other} gave {name} {b} more, and now {name} has {a}. How many {things} did "
            "{name} have at first?",
            "After {name} bought {b} {things}, {he} had {a} {things}. How many {things} did {he} have before?",
        ),
        ("a-b",),
        _DIFFERENCES,
    ),
    "change": Template(
        (
            "{name} buys a {good} for {b} dollars and pays with {a} dollars. How many dollars does {he} get back?",
            "A {good} costs {b} dollars. {name} pays with {a} dollars. How many dollars of change does {he} get?",
        ),
        ("a-b",),
        _DIFFERENCES,
    ),
    "packs": Template(
        (
            "There are {b} {things} in each {box}. How many {things} are there in {a} {boxes}?",
            "{name} has {a} {boxes} with {b} {things} in each. How many {things} does {he} have?",
        ),
        ("a*b",),
        _PRODUCTS,
    ),
    "times": Template(
        (
            "{name} has {b} {things}. {other} has {a} times as many {things} as {name}. How many {things} does {other} "
            "have?",
            "{other} found {a} times as many {things} as {name}, who found {b}. How many {things} did {other} find?",
        ),
        ("a*b",),
        _PRODUCTS,
    ),
    "price": Template(
        (
            "A {good} costs {b} dollars. How many dollars do {a} of them cost?",
            "{name} buys {a} {good}s for {b} dollars each. How many dollars does {he} pay?",
        ),
        ("a*b",),
        _PRODUCTS,
    ),
    "sharing": Template(
        (
            "{name} shares {a} {things} equally among {b} friends. How many {things} does each friend get?",
            "{a} {things} are shared equally by {b} children. How many {things} does each child get?",
        ),
        ("a/b",),
        _QUOTIENTS,
    ),
    "filling": Template(
        (
            "{name} has {a} {things} and puts {b} into each {box}. How many {boxes} does {he} fill?",
            "{a} {things} are packed in {boxes} of {b}. How many {boxes} are there?",
        ),
        ("a/b",),
        _QUOTIENTS,
    ),
    "gain_and_loss": Template(
        (
            "{name} had {a} {things}. {He} bought {b} more and gave {c} to {other}. How many {things} does {name} have "
            "now?",
            "{name} found {a} {things} and {other} found {b}. Then they lost {c} of them. How many {things} are left?",
        ),
        ("a+b", "r-c"),
        _LOSSES_OF_SUMS,
    ),
    "two_losses": Template(
        (
            "{name} had {a} {things}. {He} gave {b} to {other} and lost {c}. How many {things} does {name} have left?",
            "There were {a} {things} in a {box}. {name} took {b} and {other} took {c}. How many {things} are left?",
        ),
        ("a-b", "r-c"),
        _TWO_LOSSES,
    ),
    "packs_and_more": Template(
        (
            "{name} has {a} {boxes}. There are {b} {things} in each {box}, and {c} more {things} on the table. How "
            "many {things} are there in all?",
            "{name} buys {a} {good}s for {b} dollars each and pays {c} dollars for the bus. How many dollars does {he} "
            "spend?",
        ),
        ("a*b", "r+c"),
        _PRODUCTS_AND_MORE,
    ),
}

HELD_OUT_TEMPLATES = {
    "age": Template(
        (
            "{name} is {a} years old. {other} is {b} years older than {name}. How old is {other}?",
            "{name} is {a} years old now. How old will {he} be in {b} years?",
        ),
        ("a+b",),
        _SUMS,
    ),
    "pages": Template(
        (
            "A story has {a} pages. {name} has read {b} pages. How many pages does {he} still have to read?",
            "The way to school is {a} blocks long. {name} has walked {b} blocks. How many blocks are still ahead?",
        ),
        ("a-b",),
        _DIFFERENCES,
    ),
    "rows": Template(
        (
            "A room has {a} rows of chairs with {b} chairs in each row. How many chairs are in the room?",
            "{name} saves {b} dollars every week. How many dollars has {he} saved after {a} weeks?",
        ),
        ("a*b",),
        _PRODUCTS,
    ),
    "teams": Template(
        (
            "{a} children form teams of {b}. How many teams are there?",
            "A rope of {a} meters is cut into {b} pieces of the same length. How many meters long is each piece?",
        ),
        ("a/b",),
        _QUOTIENTS,
    ),
    "bus": Template(
        (
            "There are {a} people on a bus. At the next stop {b} get off and {c} get on. How many people are on the "
            "bus now?",
            "{name} had {a} dollars. {He} spent {b} dollars and then earned {c} dollars. How many dollars does {he} "
            "have?",
        ),
        ("a-b", "r+c"),
        _numbers(range(5, 21), range(2, 10), range(2, 10), where=lambda a, b, c: a > b),
    ),
    "money_left": Template(
        (
            "{name} has {c} dollars and buys {a} {good}s for {b} dollars each. How many dollars does {he} have left?",
            "There are {c} {things} in a shop. {a} people buy {b} {things} each. How many {things} are left in the "
            "shop?",
        ),
        ("a*b", "c-r"),
        _numbers(range(2, 6), range(2, 6), range(6, 31), where=lambda a, b, c: 0 < c - a * b <= 12),
    ),
}
