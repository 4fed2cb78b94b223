"""Compare two answers: structure by structure, scalars as exact numbers. No third-party imports of its own.

Every comparison says True, False, or None where it cannot tell.
"""

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

from . import numeric, polynomial
from .normalize import letters, normalize
from .polynomial import Polynomial
from .syntax import INFINITY, Group, Matrix, Pieces, Relation, Scalar, Value, Words

ITEMS_LIMIT = 100  # of a list whose order does not count


class Rules(NamedTuple):
    """What counts as the same answer where suites disagree.

    `ordered`    whether the order counts in a list without brackets (`1, 2`)
    `precision`  decimals from which on a decimal number is right if it is the correctly rounded value of an exact one
                 (`0.333333` for 1/3); with fewer it must be equal
    """

    ordered: bool = False
    precision: int = 6


DEFAULT = Rules()


def same(gold: Value, given: Value, rules: Rules = DEFAULT) -> bool | None:
    """Whether two values are the same answer."""
    if gold == given and rules == DEFAULT:
        return True
    if isinstance(gold, Words) or isinstance(given, Words):
        return _same_words(gold, given)
    if isinstance(gold, Relation) and isinstance(given, Relation):
        if "∈" not in gold.signs + given.signs:
            return _same_relation(gold, given, rules)
        gold, given = _content(gold), _content(given)
    gold, given = _content(gold, given), _content(given, gold, computed=True)
    if isinstance(gold, Scalar) and isinstance(given, Scalar):
        return same_scalar(gold, given, rules)
    if isinstance(gold, Matrix) and isinstance(given, Matrix):
        return _same_matrix(gold, given, rules)
    if isinstance(gold, Pieces) or isinstance(given, Pieces):
        return _same_unordered(_parts(gold), _parts(given), rules)
    if isinstance(gold, (Group, Scalar)) and isinstance(given, (Group, Scalar)):
        return _same_group(gold, given, rules)
    return False


def same_scalar(gold: Scalar, given: Scalar, rules: Rules = DEFAULT) -> bool | None:
    """Numbers and formulas: exactly, but `20%` may also be written 20 or 0.2, and long decimals may be rounded."""
    pairs = [(gold.value, given.value)]
    if gold.percent != given.percent:
        hundredth = polynomial.number(Fraction(1, 100))
        pairs.append((gold.value * hundredth, given.value) if gold.percent else (gold.value, given.value * hundredth))
    results = [_same_value(*pair) for pair in pairs]
    if True in results:
        return True
    if _is_rounded(given, gold, rules) or _is_rounded(gold, given, rules):
        return True
    return None if None in results else False


def _same_value(left: Polynomial, right: Polynomial) -> bool | None:
    difference = left - right
    if not difference:
        return True
    if difference.opaque:
        return numeric.vanishes(difference)
    return _is_letter(left) and _is_letter(right) and left.variable.lower() == right.variable.lower()


def _is_letter(value: Polynomial) -> bool:
    return value.variable is not None and len(value.variable) == 1


def _is_rounded(decimal: Scalar, exact: Scalar, rules: Rules) -> bool:
    """Whether a decimal number with enough decimals is what the other, which is none, rounds to."""
    if decimal.decimals is None or decimal.decimals < max(rules.precision, 1) or exact.decimals is not None:
        return False
    rational = exact.value.rational
    value = numeric.approximate(exact.value) if rational is None else rational
    if value is None:
        return False
    half = Fraction(1, 2 * 10**decimal.decimals)
    shown = decimal.value.rational
    if rational is not None:
        return abs(shown - rational) <= half
    return abs(value - _as(value, shown)) <= _as(value, half)


def _as(like, number: Fraction):
    """`number` in the arithmetic of `like` (an mpmath number)."""
    return like.context.mpf(number.numerator) / number.denominator


# ---- words


def _same_words(gold: Value, given: Value) -> bool:
    return isinstance(gold, Words) and isinstance(given, Words) and letters(gold.text) == letters(given.text)


def same_letters(gold: str, given: str) -> bool:
    """Whether two texts are equal but for spaces, case, punctuation and the commands that only change the look."""
    gold, given = letters(normalize(gold)), letters(normalize(given))
    return bool(gold) and gold == given


# ---- lists


def _all(results: Iterable[bool | None]) -> bool | None:
    """True if all are, False if one is, else None."""
    unsure = False
    for result in results:
        if result is False:
            return False
        unsure = unsure or result is None
    return None if unsure else True


def _parts(value: Value) -> Sequence[Value]:
    return value.parts if isinstance(value, Pieces) else (value,)


def _same_ordered(gold: Sequence[Value], given: Sequence[Value], rules: Rules) -> bool | None:
    if len(gold) != len(given):
        return False
    return _all(same(a, b, rules) for a, b in zip(gold, given, strict=True))


def _same_unordered(gold: Sequence[Value], given: Sequence[Value], rules: Rules) -> bool | None:
    """Whether each of one side is in the other: repetitions and order don't count."""
    if max(len(gold), len(given)) > ITEMS_LIMIT:
        return None
    found = _all(_is_in(item, given, lambda a, b: same(a, b, rules)) for item in gold)
    return found and _all(_is_in(item, gold, lambda a, b: same(b, a, rules)) for item in given)


def _is_in(item: Value, others: Sequence[Value], compare: Callable) -> bool | None:
    unsure = False
    for other in others:
        result = compare(item, other)
        if result:
            return True
        unsure = unsure or result is None
    return None if unsure else False


def _same_group(gold: Group | Scalar, given: Group | Scalar, rules: Rules) -> bool | None:
    """Sets and lists without order, tuples and intervals with it; a list without brackets may stand for both."""
    comma = _decimal_comma(gold, given) or _decimal_comma(given, gold)
    if comma:
        return True
    gold, given = (Group("", (v,), "") if isinstance(v, Scalar) else v for v in (gold, given))
    gold, given = _alike(gold, given), _alike(given, gold)
    brackets = {(group.opening, group.closing) for group in (gold, given)}
    if brackets <= {("", ""), ("{", "}")}:
        in_order = rules.ordered and brackets == {("", "")}
        return (_same_ordered if in_order else _same_unordered)(gold.items, given.items, rules)
    if len(brackets) == 1 or brackets == {("", ""), ("(", ")")}:
        return _same_ordered(gold.items, given.items, rules)
    return False


def _alike(group: Group, other: Group) -> Group:
    """`x=1, y=2; x=3, y=4` without its grouping, if the other answer shows none."""
    grouped = [any(isinstance(i, Group) and not i.opening for i in g.items) for g in (group, other)]
    if not grouped[0] or grouped[1]:
        return group
    flat = [i for item in group.items for i in (item.items if isinstance(item, Group) and not item.opening else [item])]
    return Group(group.opening, tuple(flat), group.closing)


def _decimal_comma(listed: Value, number: Value) -> bool:
    """`1,22` against the decimal number 1.22."""
    if not (isinstance(listed, Group) and not listed.opening and len(listed.items) == 2 and isinstance(number, Scalar)):
        return False
    whole, part = listed.items
    if not all(isinstance(i, Scalar) and i.decimals == 0 for i in (whole, part)) or not number.decimals:
        return False
    shift = Fraction(1, 10**number.decimals)
    value = whole.value.rational + part.value.rational * shift
    return part.value.rational < 10**number.decimals and value == number.value.rational


def _same_matrix(gold: Matrix, given: Matrix, rules: Rules) -> bool | None:
    if len(gold.rows) != len(given.rows):
        return False
    return _all(_same_ordered(a, b, rules) for a, b in zip(gold.rows, given.rows, strict=True))


# ---- relations


def _content(value: Value, other: Value | None = None, computed: bool = False) -> Value:
    """A relation as what it says of its variable, for a comparison with something that is no relation.

    `computed`: the result of a calculation too (`2 + 3 = 5`), which a reference answer is not taken for.
    """
    if not isinstance(value, Relation) or isinstance(other, Relation):
        return value
    value = _without_approximations(value)
    if not isinstance(value, Relation):
        return value
    if set(value.signs) <= {"=", "∈"}:
        first, last = value.sides[0], value.sides[-1]
        if _is_symbolic(last) and isinstance(first, Scalar) and first.value.rational is not None:
            return first
        result = computed and isinstance(first, Scalar) and not first.value.atoms
        return last if _is_symbolic(first) or len(value.sides) > 2 or result else value
    return _interval(value) or _mirrored(value) or value


def _without_approximations(relation: Relation) -> Value:
    """`x = 1/3 ≈ 0.33` is x = 1/3, but `x ≈ 0.33` is x = 0.33."""
    if "≈" not in relation.signs:
        return relation
    cut = relation.signs.index("≈")
    if cut == 0:
        return relation.sides[1] if _is_symbolic(relation.sides[0]) else relation.sides[0]
    return Relation(relation.sides[: cut + 1], relation.signs[:cut])


def _is_symbolic(value: Value) -> bool:
    """Whether it names something: variables, their products and quotients, tuples of them; no number."""
    if isinstance(value, Words):
        return True
    if isinstance(value, Group):
        return all(_is_symbolic(item) for item in value.items)
    if not isinstance(value, Scalar) or len(value.value.terms) != 1:
        return False
    ((radicand, turn, atoms), factor) = next(iter(value.value.terms.items()))
    return radicand == 1 and not turn and factor == 1 and bool(atoms) and not value.value.opaque


def _interval(relation: Relation) -> Group | None:
    """`a < x ≤ b`, `x ≥ a` and their mirror images as intervals; None for any other inequality."""
    sides, signs = relation.sides, relation.signs
    if not all(isinstance(side, Scalar) for side in sides) or not set(signs) <= set("<>≤≥"):
        return None
    if len(sides) == 3 and _is_symbolic(sides[1]) and len({sign in "<≤" for sign in signs}) == 1:
        low, high = (sides[0], signs[0]), (sides[2], signs[1])
        if signs[0] in ">≥":
            low, high = high, low
    elif len(sides) == 2 and _is_symbolic(sides[0]) != _is_symbolic(sides[1]):
        endless = Scalar(polynomial.atom(INFINITY))
        bound = sides[1] if _is_symbolic(sides[0]) else sides[0]
        upper = (signs[0] in "<≤") == _is_symbolic(sides[0])
        low = (Scalar(-endless.value), "<") if upper else (bound, signs[0])
        high = (bound, signs[0]) if upper else (endless, "<")
    else:
        return None
    left, right = "[" if low[1] in "≤≥" else "(", "]" if high[1] in "≤≥" else ")"
    return Group(left, (low[0], high[0]), right)


def _mirrored(relation: Relation) -> Pieces | None:
    """`1 ≤ |z| < 2` as [-2, -1) ∪ … ; None for anything else."""
    if len(relation.sides) != 3 or not isinstance(relation.sides[1], Scalar):
        return None
    inside = next((a[1] for a in relation.sides[1].value.atoms if isinstance(a, tuple) and a[0] == "abs"), None)
    if inside is None or relation.sides[1].value != polynomial.absolute(inside):
        return None
    right = _interval(Relation((relation.sides[0], Scalar(inside), relation.sides[2]), relation.signs))
    if right is None or _is_negative(right.items[0]):
        return None
    low, high = (Scalar(-item.value) for item in right.items)
    left = Group("[" if right.closing == "]" else "(", (high, low), "]" if right.opening == "[" else ")")
    return Pieces((left, right))


def _is_negative(value: Scalar) -> bool:
    return value.value.rational is None or value.value.rational < 0


def _same_relation(gold: Relation, given: Relation, rules: Rules) -> bool | None:
    """Side by side, or as equations and inequalities that are multiples of each other."""
    gold, given = _last_of_chain(gold), _last_of_chain(given)
    if not isinstance(gold, Relation) or not isinstance(given, Relation):
        return same(gold, given, rules)
    if gold.signs == given.signs and _same_ordered(gold.sides, given.sides, rules):
        return True
    intervals = _interval(gold), _interval(given)
    if None not in intervals and _subject(gold) == _subject(given):
        return same(*intervals, rules)
    ours, theirs = _differences(gold), _differences(given)
    if ours is None or theirs is None or len(ours) != len(theirs):
        return False
    return _same_differences(ours, theirs)


def _last_of_chain(relation: Relation) -> Value:
    """`z = 1 + 1 = 2` is z = 2."""
    relation = _without_approximations(relation)
    if isinstance(relation, Relation) and set(relation.signs) == {"="} and _is_symbolic(relation.sides[0]):
        return Relation((relation.sides[0], relation.sides[-1]), ("=",))
    return relation


def _subject(relation: Relation) -> Value | None:
    """What an inequality that is an interval speaks of."""
    return next((side for side in relation.sides if _is_symbolic(side)), None)


def _differences(relation: Relation) -> list[tuple[str, Polynomial]] | None:
    """(sign, left - right) of neighbours, each sign one of `=`, `≠`, `>`, `≥`; None if a side is no formula."""
    if not all(isinstance(side, Scalar) for side in relation.sides):
        return None
    found = []
    for left, sign, right in zip(relation.sides, relation.signs, relation.sides[1:], strict=False):
        difference = left.value - right.value
        mirrored = {"<": ">", "≤": "≥"}.get(sign)
        found.append((mirrored or sign, -difference if mirrored else difference))
    return found


def _same_differences(ours: list[tuple[str, Polynomial]], theirs: list[tuple[str, Polynomial]]) -> bool | None:
    """Whether they are the same up to order and multiples: any multiple of an equation, positive ones of the rest."""
    results = []
    for sign, mine in ours:
        rivals = [other for other_sign, other in theirs if other_sign == sign]
        results.append(_is_in(mine, rivals, lambda a, b, sign=sign: _proportional(a, b, sign in "=≠")))
    return _all(results)


def _proportional(left: Polynomial, right: Polynomial, any_sign: bool) -> bool | None:
    if not left or not right:  # `1 = 1` says nothing: only the same text is the same answer
        return False
    if (left.scaled() == right.scaled()) and (any_sign or (left.lead > 0) == (right.lead > 0)):
        return True
    if not (left.opaque or right.opaque):
        return False
    same_sign = numeric.vanishes(left - right)
    return same_sign or (numeric.vanishes(left + right) if any_sign else same_sign)
