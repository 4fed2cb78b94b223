"""Sets of real numbers, compared cell by cell.

The boundaries of two sets, in order, cut the line into points and open intervals. A set is the tuple of whether it
holds each of these cells, so unions, intersections and complements are those of booleans.
"""

import operator
from collections.abc import Callable

from .evaluate import Budget, Undecided, sign
from .identity import difference, variables
from .relations import MIRROR
from .values import (
    INFINITY,
    MINUS_INFINITY,
    Builder,
    Expression,
    Group,
    NumberSet,
    Relation,
    Scalar,
    SetExpression,
    Value,
    number,
)  # fmt: skip

_INEQUALITIES = set("<>≤≥≠")
_BOUNDARIES_LIMIT = 40

Cells = tuple[bool, ...]


def is_set_like(value: Value) -> bool:
    """Returns whether a value can only be a set of numbers, and no tuple."""
    if isinstance(value, Relation):
        return bool(_INEQUALITIES & set(value.signs)) or "∈" in value.signs or "∉" in value.signs
    if isinstance(value, Group):
        if not value.opening:
            return all(isinstance(item, Relation) for item in value.items) and any(map(is_set_like, value.items))
        infinite = any(
            item.expression in (INFINITY, MINUS_INFINITY) for item in value.items if isinstance(item, Scalar)
        )
        return len(value.items) == 2 and ((value.opening, value.closing) in (("[", ")"), ("(", "]")) or infinite)
    return isinstance(value, SetExpression | NumberSet | Builder)


def are_same_sets(left: Value, right: Value, budget: Budget) -> bool:
    """Returns whether two values are the same set of real numbers. Raises Undecided if it cannot decide that."""
    names = [name for name in (_variable(left), _variable(right)) if name]
    if len(names) == 2 and names[0] != names[1]:
        return False
    line = _Line(budget)
    for value in (left, right):
        line.add_boundaries(value)
    return line.cells(left) == line.cells(right)


def _variable(value: Value) -> str | None:
    """Returns the name of the variable that a set is described with; None if it has none.

    Raises:
      Undecided: if it has several.
    """
    if isinstance(value, Relation):
        sides = [side.expression for side in value.sides if isinstance(side, Scalar)]
        names = variables(*sides) if sides else []
    elif isinstance(value, Group) and not value.opening:
        names = sorted({name for item in value.items if (name := _variable(item))})
    else:
        names = []
    if len(names) > 1:
        raise Undecided("a set has several variables")
    return names[0] if names else None


class _Line:
    """The real line with the boundaries of some sets."""

    def __init__(self, budget: Budget):
        self._budget = budget
        self._boundaries: list[Expression] = []

    def add_boundaries(self, value: Value) -> None:
        """Adds the boundaries of a set. Raises Undecided for what is no set of real numbers."""
        self._walk(value, self._insert)

    def cells(self, value: Value) -> Cells:
        """Returns the cells of a set whose boundaries have been added."""
        return self._walk(value, None)

    def _size(self) -> int:
        return 2 * len(self._boundaries) + 1

    def _find(self, expression: Expression) -> tuple[int, bool]:
        """Returns where a boundary is or would be, and whether it is there."""
        for index, boundary in enumerate(self._boundaries):
            order = sign(difference(expression, boundary), self._budget)
            if order <= 0:
                return index, order == 0
        return len(self._boundaries), False

    def _insert(self, expression: Expression) -> None:
        index, is_there = self._find(expression)
        if not is_there:
            self._boundaries.insert(index, expression)
        if len(self._boundaries) > _BOUNDARIES_LIMIT:
            raise Undecided("a set has too many boundaries")

    def _walk(self, value: Value, insert: Callable[[Expression], None] | None) -> Cells:
        size = self._size()
        if isinstance(value, NumberSet):
            return self._number_set(value.name, insert)
        if isinstance(value, SetExpression):
            return self._combine(value, insert)
        if isinstance(value, Builder):
            return self._builder(value, insert)
        if isinstance(value, Relation):
            return self._relation(value, insert)
        if isinstance(value, Scalar):
            return self._interval(value.expression, True, value.expression, True, insert)
        if isinstance(value, Group) and value.opening == "{":
            cells = (False,) * size
            for item in value.items:
                if not isinstance(item, Scalar):
                    raise Undecided("a set is of no numbers")
                cells = _or(cells, self._walk(item, insert))
            return cells
        if isinstance(value, Group) and not value.opening:
            return self._list(value, insert)
        if isinstance(value, Group) and len(value.items) == 2 and all(isinstance(i, Scalar) for i in value.items):
            low, high = (item.expression for item in value.items)
            return self._interval(low, value.opening == "[", high, value.closing == "]", insert)
        raise Undecided("it is no set of real numbers")

    def _number_set(self, name: str, insert: Callable | None) -> Cells:
        sign_ = {"ℝ+": ">", "ℝ-": "<", "ℝ*": "≠"}.get(name)
        if sign_ is None and name != "ℝ":
            raise Undecided(f"{name} is no union of intervals")
        return self._half_line(sign_, number(0), insert) if sign_ else (True,) * self._size()

    def _combine(self, value: SetExpression, insert: Callable | None) -> Cells:
        cells = self._walk(value.parts[0], insert)
        for sign_, part in zip(value.signs, value.parts[1:], strict=True):
            other = self._walk(part, insert)
            if sign_ == "∖":
                other = _not(other)
            cells = _or(cells, other) if sign_ == "∪" else _and(cells, other)
        return cells

    def _builder(self, value: Builder, insert: Callable | None) -> Cells:
        domain = value.element.sides[-1] if isinstance(value.element, Relation) else NumberSet("ℝ")
        name = value.element.sides[0] if isinstance(value.element, Relation) else value.element
        if not isinstance(name, Scalar) or variables(name.expression) != [_variable(value.condition)]:
            raise Undecided("a set is not described by its element")
        if name.expression[0] != "symbol":
            raise Undecided("the element of a set is a formula")
        return _and(self._walk(domain, insert), self._walk(value.condition, insert))

    def _list(self, value: Group, insert: Callable | None) -> Cells:
        """Returns all of the conditions together, or any of them if they exclude each other or "or" says so."""
        is_union = value.conjunction == "or" and all(getattr(item, "opening", "") for item in value.items)
        if not is_union and not all(isinstance(item, Relation) for item in value.items):
            raise Undecided("a list is of no conditions")
        parts = [self._walk(item, insert) for item in value.items]
        both = either = parts[0]
        for part in parts[1:]:
            both, either = _and(both, part), _or(either, part)
        if insert is None and value.conjunction == "and" and not any(both):
            raise Undecided("conditions exclude each other")
        return both if value.conjunction != "or" and any(both) else either

    def _interval(
        self, low: Expression, has_low: bool, high: Expression, has_high: bool, insert: Callable | None
    ) -> Cells:
        ends = [end for end in (low, high) if end not in (INFINITY, MINUS_INFINITY)]
        if insert is not None:
            for end in ends:
                insert(end)
            return (False,) * self._size()
        size = self._size()
        first = 0 if low == MINUS_INFINITY else 2 * self._find(low)[0] + 1 + (not has_low)
        last = size - 1 if high == INFINITY else 2 * self._find(high)[0] + 1 - (not has_high)
        if low == INFINITY or high == MINUS_INFINITY or first > last:
            raise Undecided("an interval is empty")
        return tuple(first <= index <= last for index in range(size))

    def _relation(self, value: Relation, insert: Callable | None) -> Cells:
        """Returns the numbers for which all neighbors of a chain stand in their relation."""
        cells = (True,) * self._size()
        for left, sign_, right in zip(value.sides, value.signs, value.sides[1:], strict=False):
            cells = _and(cells, self._condition(left, sign_, right, insert))
        return cells

    def _condition(self, left: Value, sign_: str, right: Value, insert: Callable | None) -> Cells:
        if sign_ in "∈∉":
            if not (isinstance(left, Scalar) and left.expression[0] == "symbol"):
                raise Undecided("the element of a set is a formula")
            cells = self._walk(right, insert)
            return cells if sign_ == "∈" else _not(cells)
        if sign_ not in "<>≤≥=≠" or not (isinstance(left, Scalar) and isinstance(right, Scalar)):
            raise Undecided("it is no inequality")
        side, bound = left.expression, right.expression
        if not variables(side):
            side, bound, sign_ = bound, side, MIRROR[sign_]
        if variables(bound) or not variables(side):
            raise Undecided("no side of an inequality is a number")
        if side[0] == "symbol":
            return self._half_line(sign_, bound, insert)
        return self._distance(side, sign_, bound, insert)

    def _half_line(self, sign_: str, bound: Expression, insert: Callable | None) -> Cells:
        if sign_ in "=≠":
            point = self._interval(bound, True, bound, True, insert)
            return point if sign_ == "=" else _not(point)
        if sign_ in "<≤":
            return self._interval(MINUS_INFINITY, False, bound, sign_ == "≤", insert)
        return self._interval(bound, sign_ == "≥", INFINITY, False, insert)

    def _distance(self, side: Expression, sign_: str, bound: Expression, insert: Callable | None) -> Cells:
        """Returns the numbers whose distance from a center is bounded: `|x-2| < 3`."""
        if side[0] != "abs":
            raise Undecided("an inequality is not solved")
        center = _center(side[1])
        high, low = ("add", center, bound), difference(center, bound)
        if sign(bound, self._budget) < 0:
            return (sign_ in ">≥≠",) * self._size()
        if sign_ in "=≠":
            ends = _or(self._half_line("=", low, insert), self._half_line("=", high, insert))
            return ends if sign_ == "=" else _not(ends)
        near = self._interval(low, sign_ in "≤>", high, sign_ in "≤>", insert)
        return near if sign_ in "<≤" else _not(near)


def _or(left: Cells, right: Cells) -> Cells:
    return tuple(map(operator.or_, left, right))


def _and(left: Cells, right: Cells) -> Cells:
    return tuple(map(operator.and_, left, right))


def _not(cells: Cells) -> Cells:
    return tuple(map(operator.not_, cells))


def _center(inside: Expression) -> Expression:
    """Returns a for `x`, `x - a` and `a - x`. Raises Undecided for anything else."""
    if inside[0] == "symbol":
        return number(0)
    if inside[0] == "add" and len(inside) == 3:
        first, second = inside[1:]
        if second[0] == "symbol" and not variables(first):  # a + x
            return ("negative", first)
        if second[0] == "negative" and second[1][0] == "symbol" and not variables(first):  # a - x
            return first
        if first[0] == "symbol" and not variables(second):
            return ("negative", second)
    raise Undecided("the distance is from no number")
