"""The values that an answer can have.

An expression is a tuple: an operation's name and its operands. `("number", Fraction)` and `("symbol", name)` are the
leaves; `evaluate.py` lists the operations. Equal expressions are the same tuple, but the same number can have many.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

Expression = tuple

INFINITY: Expression = ("infinity",)
MINUS_INFINITY: Expression = ("negative", INFINITY)
ELLIPSIS: Expression = ("symbol", "...")  # an item of `1, 2, \\ldots, n`
ANY: Expression = ("symbol", "")  # what `3 \\pmod 5` is about


class Scalar(NamedTuple):
    """A number or a formula.

    Attributes:
      digits: a plain decimal number as it was written (`0.50`); None for anything else.
      percent: whether a percent sign follows it.
      unit: the unit behind it, as words; empty for none.
      product: the same text with a unit of one letter read as a variable (`5 m`); None if it has no such unit.
    """

    expression: Expression
    digits: str | None = None
    percent: bool = False
    unit: str = ""
    product: Expression | None = None


class Group(NamedTuple):
    """A list: a tuple, an interval (square or unequal brackets) or a set (`{`).

    Attributes:
      opening: the bracket before it; empty for a list without brackets.
      closing: the bracket behind it.
      conjunction: "and" or "or" between its last items; a comma for two without a space, which may be one number.
    """

    opening: str
    items: tuple["Value", ...]
    closing: str
    conjunction: str = ""


class Ratio(NamedTuple):
    """Terms with colons between them.

    Attributes:
      is_clock: whether it may be a time of day: two terms, the second with two digits below 60.
      half: "am", "pm" or none.
    """

    terms: tuple[Scalar, ...]
    is_clock: bool = False
    half: str = ""


class SetExpression(NamedTuple):
    """Sets with `∪`, `∩` or `∖` between them, from left to right."""

    parts: tuple["Value", ...]
    signs: tuple[str, ...]


class NumberSet(NamedTuple):
    """A set with a name: `ℝ`, `ℤ`, `ℕ`, `ℚ`, `ℂ`, or one of their signed parts (`ℝ+`)."""

    name: str


class Builder(NamedTuple):
    """The set of all `element` with `condition`."""

    element: "Value"
    condition: "Value"


class Relation(NamedTuple):
    """Sides and the signs between them: `0 < x ≤ 1` has three sides and two signs."""

    sides: tuple["Value", ...]
    signs: tuple[str, ...]


class Congruence(NamedTuple):
    """`left ≡ right (mod modulus)`; `left` may be `ANY`."""

    left: Scalar
    right: Scalar
    modulus: Scalar


class Matrix(NamedTuple):
    """Rows of scalars."""

    rows: tuple[tuple[Scalar, ...], ...]


class Conditional(NamedTuple):
    """A value and the words behind it that restrict it: `2^k` with "for all k"."""

    value: "Value"
    condition: tuple[str, ...]


class Choice(NamedTuple):
    """The letter of a choice, with the text of that choice: `(C) 5`."""

    letter: str
    value: "Value"


class Text(NamedTuple):
    """Anything else: its tokens, to be compared whole. `is_words` is whether it has words and no formula."""

    tokens: tuple[str, ...]
    is_words: bool


Value = (
    Scalar | Group | Ratio | SetExpression | NumberSet | Builder | Relation | Congruence | Matrix | Conditional
    | Choice | Text
)  # fmt: skip


def number(value: Fraction | int) -> Expression:
    """Returns a rational number as an expression."""
    return ("number", Fraction(value))


def choose(n: Expression, k: Expression, ordered: bool) -> Expression:
    """Returns how many ways there are to choose k of n things, or to arrange them in order."""
    ways = ("binomial", n, k)
    return ("multiply", ways, ("factorial", k)) if ordered else ways


def operands(expression: Expression) -> tuple[Expression, ...]:
    """Returns the expressions inside an expression."""
    return tuple(part for part in expression[1:] if isinstance(part, tuple))


def rename(value: Any, names: dict[str, str]) -> Any:
    """Returns a value or an expression with other names of variables."""
    if not isinstance(value, tuple):
        return value
    if type(value) is tuple and value[:1] == ("symbol",):
        return ("symbol", names.get(value[1], value[1]))
    renamed = [rename(part, names) for part in value]
    return tuple(renamed) if type(value) is tuple else type(value)(*renamed)


def parts(expression: Expression) -> Iterator[Expression]:
    """Yields an expression, and all that are inside it."""
    stack = [expression]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(operands(current))


def symbols(expression: Expression) -> set[str]:
    """Returns the names of the variables of an expression, without the index of a sum over its terms."""
    found, stack = set(), [(expression, frozenset())]
    while stack:
        current, bound = stack.pop()
        if current[0] == "symbol" and current[1] not in bound:
            found.add(current[1])
        if current[0] in ("sum", "product", "series"):
            bound |= {current[2 if current[0] == "series" else 1]}
        stack.extend((part, bound) for part in operands(current))
    return found


def operations(expression: Expression) -> set[str]:
    """Returns the names of the operations of an expression."""
    return {part[0] for part in parts(expression)}
