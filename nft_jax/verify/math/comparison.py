"""The comparison of two answers: structure by structure, and scalars as exact numbers.

Each comparison returns True for the same answer, False for another one, and None where it cannot decide.
"""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from . import numeric, polynomial, relations
from .normalize import letters, normalize
from .polynomial import Polynomial
from .relations import Difference
from .values import Group, Matrix, Relation, Scalar, SetUnion, Value, Words

ITEMS_LIMIT = 100  # of a list whose order does not count


class Rules(NamedTuple):
    """Options for cases in which test suites disagree on what the same answer is.

    Attributes:
      ordered: whether the order counts in a list without brackets (`1, 2`).
      precision: how many decimals a decimal number needs to be correct as the rounded value of an exact one
        (`0.333333` for 1/3); with fewer it must be equal.
    """

    ordered: bool = False
    precision: int = 6


DEFAULT = Rules()


def compare(reference: Value, given: Value, rules: Rules = DEFAULT) -> bool | None:
    """Compares two values of any kind."""
    if reference == given and rules == DEFAULT:
        return True
    if isinstance(reference, Words) or isinstance(given, Words):
        return _compare_words(reference, given)
    if isinstance(reference, Relation) and isinstance(given, Relation):
        if "∈" not in reference.signs + given.signs:
            return _compare_relations(reference, given, rules)
        reference, given = relations.solution(reference), relations.solution(given)
    reference = relations.solution(reference, given)
    given = relations.solution(given, reference, computed=True)
    if isinstance(reference, Scalar) and isinstance(given, Scalar):
        return _compare_scalars(reference, given, rules)
    if isinstance(reference, Matrix) and isinstance(given, Matrix):
        return _compare_matrices(reference, given, rules)
    if isinstance(reference, SetUnion) or isinstance(given, SetUnion):
        return _compare_unordered(_parts(reference), _parts(given), rules)
    if isinstance(reference, Group | Scalar) and isinstance(given, Group | Scalar):
        return _compare_groups(reference, given, rules)
    return False


# Words


def _compare_words(reference: Value, given: Value) -> bool:
    if not (isinstance(reference, Words) and isinstance(given, Words)):
        return False
    return letters(reference.text) == letters(given.text)


def has_same_letters(reference: str, given: str) -> bool:
    """Returns whether two texts are equal up to spaces, case, punctuation and commands of appearance."""
    reference, given = letters(normalize(reference)), letters(normalize(given))
    return bool(reference) and reference == given


# Scalars


def _compare_scalars(reference: Scalar, given: Scalar, rules: Rules) -> bool | None:
    """Compares exactly, but `20%` may also be written 20 or 0.2, and long decimals may be rounded."""
    pairs = [(reference.value, given.value)]
    if reference.percent != given.percent:
        hundredth = polynomial.number(Fraction(1, 100))
        if reference.percent:
            pairs.append((reference.value * hundredth, given.value))
        else:
            pairs.append((reference.value, given.value * hundredth))
    results = [_compare_polynomials(*pair) for pair in pairs]
    if True in results or _is_rounded(given, reference, rules) or _is_rounded(reference, given, rules):
        return True
    return None if None in results else False


def _compare_polynomials(left: Polynomial, right: Polynomial) -> bool | None:
    difference = left - right
    if not difference:
        return True
    if difference.has_functions:
        return numeric.vanishes(difference)
    return _is_letter(left) and _is_letter(right) and left.variable.lower() == right.variable.lower()


def _is_letter(value: Polynomial) -> bool:
    return value.variable is not None and len(value.variable) == 1


def _is_rounded(decimal: Scalar, exact: Scalar, rules: Rules) -> bool:
    """Returns whether a decimal number with enough decimals is what the other, which is no decimal, rounds to."""
    if decimal.decimals is None or decimal.decimals < max(rules.precision, 1) or exact.decimals is not None:
        return False
    rounded, half = decimal.value.rational, Fraction(1, 2 * 10**decimal.decimals)
    if exact.value.rational is not None:
        return abs(rounded - exact.value.rational) <= half
    value = numeric.approximate(exact.value)
    return value is not None and abs(value - _to_mpmath(rounded, value)) <= _to_mpmath(half, value)


def _to_mpmath(number: Fraction, like: Any) -> Any:
    """Returns `number` in the precision of `like`, a number of mpmath."""
    return like.context.mpf(number.numerator) / number.denominator


# Lists, sets, tuples, intervals and matrices


def _conjunction(results: Iterable[bool | None]) -> bool | None:
    """Returns True if all results are, False if one of them is, else None."""
    unsure = False
    for result in results:
        if result is False:
            return False
        unsure = unsure or result is None
    return None if unsure else True


def _parts(value: Value) -> Sequence[Value]:
    return value.parts if isinstance(value, SetUnion) else (value,)


def _compare_ordered(reference: Sequence[Value], given: Sequence[Value], rules: Rules) -> bool | None:
    if len(reference) != len(given):
        return False
    return _conjunction(compare(a, b, rules) for a, b in zip(reference, given, strict=True))


def _compare_unordered(reference: Sequence[Value], given: Sequence[Value], rules: Rules) -> bool | None:
    """Returns whether each item of one side is in the other; repetitions and order don't count."""
    if max(len(reference), len(given)) > ITEMS_LIMIT:
        return None
    covered = _conjunction(_contains(given, item, lambda a, b: compare(a, b, rules)) for item in reference)
    return covered and _conjunction(_contains(reference, item, lambda a, b: compare(b, a, rules)) for item in given)


def _contains(others: Sequence[Any], item: Any, compare_items: Callable[[Any, Any], bool | None]) -> bool | None:
    unsure = False
    for other in others:
        result = compare_items(item, other)
        if result:
            return True
        unsure = unsure or result is None
    return None if unsure else False


def _compare_groups(reference: Group | Scalar, given: Group | Scalar, rules: Rules) -> bool | None:
    """Compares sets and lists without order, tuples and intervals with it; a list without brackets may be either."""
    if _is_decimal_comma(reference, given) or _is_decimal_comma(given, reference):
        return True
    reference, given = (Group("", (v,), "") if isinstance(v, Scalar) else v for v in (reference, given))
    reference, given = _flatten_like(reference, given), _flatten_like(given, reference)
    brackets = {(group.opening, group.closing) for group in (reference, given)}
    if brackets <= {("", ""), ("{", "}")}:
        in_order = rules.ordered and brackets == {("", "")}
        return (_compare_ordered if in_order else _compare_unordered)(reference.items, given.items, rules)
    if len(brackets) == 1 or brackets == {("", ""), ("(", ")")}:
        return _compare_ordered(reference.items, given.items, rules)
    return False


def _flatten_like(group: Group, other: Group) -> Group:
    """Removes the grouping of `x=1, y=2; x=3, y=4` if the other answer has none."""

    def is_list(item: Value) -> bool:
        return isinstance(item, Group) and not item.opening

    if not any(map(is_list, group.items)) or any(map(is_list, other.items)):
        return group
    items = [part for item in group.items for part in (item.items if is_list(item) else [item])]
    return Group(group.opening, tuple(items), group.closing)


def _is_decimal_comma(group: Value, number: Value) -> bool:
    """Returns whether a list is a number with a decimal comma: `1,22` for 1.22."""
    if not (isinstance(group, Group) and not group.opening and len(group.items) == 2 and isinstance(number, Scalar)):
        return False
    whole, part = group.items
    if not all(isinstance(i, Scalar) and i.decimals == 0 for i in (whole, part)) or not number.decimals:
        return False
    shift = Fraction(1, 10**number.decimals)
    value = whole.value.rational + part.value.rational * shift
    return part.value.rational < 10**number.decimals and value == number.value.rational


def _compare_matrices(reference: Matrix, given: Matrix, rules: Rules) -> bool | None:
    if len(reference.rows) != len(given.rows):
        return False
    return _conjunction(_compare_ordered(a, b, rules) for a, b in zip(reference.rows, given.rows, strict=True))


# Relations


def _compare_relations(reference: Relation, given: Relation, rules: Rules) -> bool | None:
    """Compares side by side, or as equations and inequalities that are multiples of each other."""
    reference, given = relations.shorten_chain(reference), relations.shorten_chain(given)
    if not isinstance(reference, Relation) or not isinstance(given, Relation):
        return compare(reference, given, rules)
    if reference.signs == given.signs and _compare_ordered(reference.sides, given.sides, rules):
        return True
    intervals = relations.interval(reference), relations.interval(given)
    if None not in intervals and relations.bounded_side(reference) == relations.bounded_side(given):
        return compare(*intervals, rules)
    pair = relations.differences(reference), relations.differences(given)
    if None in pair or len(pair[0]) != len(pair[1]):
        return False
    return _conjunction(_contains(pair[1], difference, _compare_differences) for difference in pair[0])


def _compare_differences(left: Difference, right: Difference) -> bool | None:
    """Returns whether one is a multiple of the other: any multiple of an equation, a positive one of an inequality."""
    if left.sign != right.sign or not left.value or not right.value:  # `1 = 1` states nothing
        return False
    any_multiple = left.sign in "=≠"
    same_direction = (left.value.leading_factor > 0) == (right.value.leading_factor > 0)
    if left.value.to_monic() == right.value.to_monic() and (any_multiple or same_direction):
        return True
    if not (left.value.has_functions or right.value.has_functions):
        return False
    equal = numeric.vanishes(left.value - right.value)
    return equal or (numeric.vanishes(left.value + right.value) if any_multiple else equal)
