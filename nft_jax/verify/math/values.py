"""The values that an answer can have: scalars, groups, unions, relations, matrices and words."""

from typing import NamedTuple

from . import polynomial
from .polynomial import Polynomial

INFINITY = polynomial.atom("infinity")


class Scalar(NamedTuple):
    """A number or a formula.

    Attributes:
      decimals: how many decimals a plain decimal number has (`0.50` has 2); None for anything else.
      percent: whether a percent sign follows it.
    """

    value: Polynomial
    decimals: int | None = None
    percent: bool = False


class Group(NamedTuple):
    """A list: a tuple, an interval (square or unequal brackets), a set (`{`) or a ratio (`:`).

    Attributes:
      opening: the bracket before it; empty for a list without brackets.
      closing: the bracket behind it.
    """

    opening: str
    items: tuple["Value", ...]
    closing: str


class SetUnion(NamedTuple):
    """A union of sets."""

    parts: tuple["Value", ...]


class Relation(NamedTuple):
    """Sides and the signs between them: `0 < x ≤ 1` has three sides and two signs."""

    sides: tuple["Value", ...]
    signs: tuple[str, ...]


class Matrix(NamedTuple):
    """Rows of scalars."""

    rows: tuple[tuple[Scalar, ...], ...]


class Words(NamedTuple):
    """An answer in words, or the letter of a choice."""

    text: str


Value = Scalar | Group | SetUnion | Relation | Matrix | Words
