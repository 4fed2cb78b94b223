"""Equations and inequalities as values, intervals, and differences that must be zero or positive."""

from typing import NamedTuple

from . import functions
from .polynomial import Polynomial
from .values import INFINITY, Group, Relation, Scalar, SetUnion, Value, Words


class Difference(NamedTuple):
    """`value` is 0, not 0, positive or not negative, as its sign says: one of `=`, `≠`, `>`, `≥`."""

    sign: str
    value: Polynomial


def solution(value: Value, other: Value | None = None, computed: bool = False) -> Value:
    """Returns what a relation states of its variable (5 for `x = 5`), to compare it with a value that is no relation.

    Args:
      value: any value; one that is no relation, or states nothing of a variable, is returned as it is.
      other: the value to compare with. A relation leaves `value` as it is.
      computed: whether the result of a calculation counts too (`2 + 3 = 5`); a reference answer is none.
    """
    if not isinstance(value, Relation) or isinstance(other, Relation):
        return value
    value = drop_approximations(value)
    if not isinstance(value, Relation):
        return value
    if set(value.signs) <= {"=", "∈"}:
        first, last = value.sides[0], value.sides[-1]
        if is_symbolic(last) and isinstance(first, Scalar) and first.value.rational is not None:
            return first
        is_result = computed and isinstance(first, Scalar) and not first.value.atoms
        return last if is_symbolic(first) or len(value.sides) > 2 or is_result else value
    return interval(value) or symmetric_intervals(value) or value


def drop_approximations(relation: Relation) -> Value:
    """Returns x = 1/3 for `x = 1/3 ≈ 0.33`, but 0.33 for `x ≈ 0.33`."""
    if "≈" not in relation.signs:
        return relation
    cut = relation.signs.index("≈")
    if cut == 0:
        return relation.sides[1] if is_symbolic(relation.sides[0]) else relation.sides[0]
    return Relation(relation.sides[: cut + 1], relation.signs[:cut])


def shorten_chain(relation: Relation) -> Value:
    """Returns z = 2 for `z = 1 + 1 = 2`."""
    relation = drop_approximations(relation)
    if isinstance(relation, Relation) and set(relation.signs) == {"="} and is_symbolic(relation.sides[0]):
        return Relation((relation.sides[0], relation.sides[-1]), ("=",))
    return relation


def is_symbolic(value: Value) -> bool:
    """Returns whether a value is a name: variables, their products and quotients, tuples of them, or words."""
    if isinstance(value, Words):
        return True
    if isinstance(value, Group):
        return all(is_symbolic(item) for item in value.items)
    if not isinstance(value, Scalar) or len(value.value.terms) != 1:
        return False
    ((radicand, imaginary, atoms), factor) = next(iter(value.value.terms.items()))
    return radicand == 1 and not imaginary and factor == 1 and bool(atoms) and not value.value.has_functions


def interval(relation: Relation) -> Group | None:
    """Returns `a < x ≤ b`, `x ≥ a` and their mirror images as intervals; None for any other relation."""
    sides, signs = relation.sides, relation.signs
    if not all(isinstance(side, Scalar) for side in sides) or not set(signs) <= set("<>≤≥"):
        return None
    if len(sides) == 3 and is_symbolic(sides[1]) and len({sign in "<≤" for sign in signs}) == 1:
        low, high = (sides[0], signs[0]), (sides[2], signs[1])
        if signs[0] in ">≥":
            low, high = high, low
    elif len(sides) == 2 and is_symbolic(sides[0]) != is_symbolic(sides[1]):
        bound = sides[1] if is_symbolic(sides[0]) else sides[0]
        is_upper = (signs[0] in "<≤") == is_symbolic(sides[0])
        low = (Scalar(-INFINITY), "<") if is_upper else (bound, signs[0])
        high = (bound, signs[0]) if is_upper else (Scalar(INFINITY), "<")
    else:
        return None
    opening, closing = "[" if low[1] in "≤≥" else "(", "]" if high[1] in "≤≥" else ")"
    return Group(opening, (low[0], high[0]), closing)


def symmetric_intervals(relation: Relation) -> SetUnion | None:
    """Returns (-2, -1] ∪ [1, 2) for `1 ≤ |z| < 2`; None for any other relation."""
    if len(relation.sides) != 3 or not isinstance(relation.sides[1], Scalar):
        return None
    middle = relation.sides[1].value
    inside = next((a[1] for a in middle.atoms if isinstance(a, tuple) and a[0] == "abs"), None)
    if inside is None or middle != functions.absolute(inside):
        return None
    positive = interval(Relation((relation.sides[0], Scalar(inside), relation.sides[2]), relation.signs))
    if positive is None or not _is_positive_or_zero(positive.items[0]):
        return None
    low, high = (Scalar(-item.value) for item in positive.items)
    opening, closing = "[" if positive.closing == "]" else "(", "]" if positive.opening == "[" else ")"
    return SetUnion((Group(opening, (high, low), closing), positive))


def _is_positive_or_zero(value: Scalar) -> bool:
    return value.value.rational is not None and value.value.rational >= 0


def bounded_side(relation: Relation) -> Value | None:
    """Returns the side of an inequality that it bounds: x of `a < x ≤ b`."""
    return next((side for side in relation.sides if is_symbolic(side)), None)


def differences(relation: Relation) -> list[Difference] | None:
    """Returns left minus right of each two neighbors; None if a side is no formula."""
    if not all(isinstance(side, Scalar) for side in relation.sides):
        return None
    found = []
    for left, sign, right in zip(relation.sides, relation.signs, relation.sides[1:], strict=False):
        reverse = {"<": ">", "≤": "≥"}.get(sign)
        difference = left.value - right.value
        found.append(Difference(reverse, -difference) if reverse else Difference(sign, difference))
    return found
