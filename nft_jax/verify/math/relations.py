"""Equations and inequalities: what they say of a name, and whether two say the same."""

from collections.abc import Callable

from .evaluate import Budget, approximate
from .identity import are_identical, are_proportional, difference, substitute, to_fraction, variables
from .values import (
    INFINITY,
    MINUS_INFINITY,
    Expression,
    Group,
    NumberSet,
    Ratio,
    Relation,
    Scalar,
    SetExpression,
    Text,
    Value,
    number,
    operands,
    operations,
    parts,
    rename,
    symbols,
)  # fmt: skip
from .words import HEDGE

Compare = Callable[[Value, Value], bool | None]

MIRROR = {"<": ">", ">": "<", "≤": "≥", "≥": "≤", "=": "=", "≠": "≠", "≈": "≈", "≡": "≡"}
_ARITHMETIC = {"add", "negative", "multiply", "divide", "power", "symbol", "number", "root", "degree", "application"}
WORDS = "words "  # before a name that has words
_OF_VARIABLES = {"sin", "cos", "tan", "cot", "sec", "csc", "gcd", "lcm", "max", "min"}


def drop_approximations(relation: Relation) -> Value:
    """Returns x = 1/3 for `x = 1/3 ≈ 0.33`, but 0.33 for `x ≈ 0.33`; `6 ≈ 5` is 6, `0.33 ≈ 1/3` is 1/3."""
    if "≈" not in relation.signs:
        return relation
    cut = relation.signs.index("≈")
    if cut == 0:
        first, second = relation.sides[:2]
        is_rounded = "." in (getattr(first, "digits", None) or "") and getattr(second, "digits", "") is None
        return second if is_name(first) or is_rounded else first
    return Relation(relation.sides[: cut + 1], relation.signs[:cut])


def is_name(value: Value) -> bool:
    """Returns whether a value is a name: a variable, a function of one, a segment, tuples of them, or words."""
    if isinstance(value, Group | Ratio | SetExpression):
        parts = value[1 if isinstance(value, Group) else 0]
        return bool(parts) and all(map(is_name, parts))
    if isinstance(value, Text):
        return value.tokens[0][0] not in "-.0123456789" and not HEDGE.search(" ".join(value.tokens))
    return is_variable(value) and not value.percent


def is_variable(value: Value) -> bool:
    """Returns whether a scalar is a name."""
    if not isinstance(value, Scalar):
        return False
    name, expression = value.expression[0], value.expression
    if name == "symbol":
        return expression[1] not in ("pi", "e", "i")
    if name == "application":
        return True
    if name in _OF_VARIABLES:
        return bool(variables(expression))
    if name in ("abs", "multiply", "power"):
        names = variables(expression)
        return (
            bool(names)
            and all(part[:1].isupper() and len(part) < 3 for part in names)
            and _has_unit_factors(expression)
        )
    return False


def is_compound_name(value: Value) -> bool:
    """Returns whether an expression can be what a problem asks the value of: `m+n`, `x/y`, `x+1/x`; not `2x`, `x+5`.

    A formula of one variable is an equation to be solved, unless it holds both the variable and its reciprocal.
    """
    if not isinstance(value, Scalar):
        return False
    expression = value.expression
    names = variables(expression)
    if expression[0] == "series":
        return True
    if expression[0] == "abs":  # of complex numbers and vectors
        is_vector = all(name in ("z", "w") or name.startswith("vec ") for name in names)
        return is_vector and _has_unit_factors(expression[1])
    if expression[0] in ("floor", "ceil"):
        return bool(names)
    if not names or not operations(expression) <= _ARITHMETIC:
        return False
    if len(names) == 1:
        top = expression[1:] if expression[0] == "add" else ()
        return len(top) == 2 and {_is_reciprocal(part) for part in top} == {True, False} and all(map(variables, top))
    return _has_unit_factors(expression) or _is_coded(expression, names)


def _is_coded(expression: Expression, names: list[str]) -> bool:
    """Returns whether an expression is one number made of several, as `100m + n` and `a + 10b`; no `2x + y`."""
    terms = [part[1] if part[0] == "negative" else part for part in expression[1:]]
    terms = [term[1:] if term[0] == "multiply" else (number(1), term) for term in terms]
    is_sum = expression[0] == "add" and len(terms) == len(names) and not {"x", "y", "z", "t"} & set(names)
    return is_sum and all(len(term) == 2 and term[0][0] == "number" and term[1][0] == "symbol" for term in terms)


def has_reciprocal(expression: Expression) -> bool:
    """Returns whether an expression divides, or has a negative exponent: a reciprocal where it stands for a class."""
    return any(
        part[0] == "divide" or part[0] == "power" and part[2][0] == "number" and part[2][1] < 0
        for part in parts(expression)
    )


def _is_reciprocal(part: Expression) -> bool:
    return part[0] == "divide" and bool(variables(part[2])) and not variables(part[1])


def _has_unit_factors(expression: Expression) -> bool:
    """Returns whether an expression has numbers only as exponents and degrees of roots."""
    if expression[0] == "number":
        return False
    parts = operands(expression)
    return all(map(_has_unit_factors, parts[:1] if expression[0] in ("power", "root", "application") else parts))


def value_of(value: Value, compare: Compare, is_reference: bool) -> Value:
    """Returns what an equation states of a name (5 for `x = 5`); any other value as it is.

    A given answer may also state the value of a compound (`m+n = 12`), or the result of a true calculation. The sides
    behind the name must be equal: `x = 5 = 6` states nothing.
    """
    if not isinstance(value, Relation):
        return value
    value = drop_approximations(value)
    if not isinstance(value, Relation) or not set(value.signs) <= {"=", "∈"}:
        return value
    first, last = value.sides[0], value.sides[-1]
    if "∈" in value.signs:
        return last if len(value.sides) == 2 and is_name(first) and isinstance(last, Group | NumberSet) else value
    is_turned = is_name(last) or not is_reference and is_compound_name(last)  # 7 = a+b
    if _is_constant_side(first) and isinstance(last, Scalar) and is_turned and len(value.sides) == 2:
        return first
    starts = 1 if is_name(first) or (not is_reference and is_compound_name(first)) else 0
    own = _names(last)
    is_solved = not (isinstance(first, Scalar) and first.expression[0] == "symbol" and first.expression[1] in own)
    if starts and (is_name(last) and len(value.sides) > 2 or not is_solved):
        return value
    if starts == 0 and not all(map(_is_constant_side, value.sides)):
        return value
    checked = [side for side in value.sides[starts:-1] if _names(side) <= own and not is_name(side)]
    return last if all(compare(last, side) for side in checked) else value


def _is_constant_side(value: Value) -> bool:
    return isinstance(value, Scalar) and not variables(value.expression)


def is_calculation(value: Value) -> bool:
    """Returns whether a value is arithmetic of rational numbers that waits for its result: `3+3`, and no `\\frac12`."""
    used = operations(value.expression) if isinstance(value, Scalar) else {"?"}
    return used <= _ARITHMETIC - {"symbol", "root", "application", "degree"} and bool(used & {"add", "multiply"})


def _names(value: Value) -> set[str]:
    return set(variables(value.expression)) if isinstance(value, Scalar) else set()


def spread_names(value: Value) -> Value:
    """Returns the list `x = 1, y = 1` for the chain `x = y = 1`, and `x ≠ 1, x ≠ 2` for `x ≠ 1, 2`; else the value."""
    if isinstance(value, Group) and not value.opening and isinstance(value.items[0], Relation):
        first, *rest = value.items
        if first.signs == ("≠",) and is_variable(first.sides[0]) and all(map(_is_constant_side, rest)):
            return value._replace(items=(first, *(first._replace(sides=(first.sides[0], side)) for side in rest)))
        return value
    if not isinstance(value, Relation) or set(value.signs) != {"="} or len(value.sides) < 3:
        return value
    *names, last = value.sides
    simple = all(is_variable(name) and name.expression[0] == "symbol" for name in names)
    if not simple or not _is_constant_side(last):
        return value
    return Group("", tuple(Relation((name, last), ("=",)) for name in names), "")


def to_interval(relation: Relation) -> Group | None:
    """Returns `a < x ≤ b`, `x ≥ a` and their mirror images as intervals; None for any other relation."""
    sides, signs = relation.sides, relation.signs
    if not all(isinstance(side, Scalar) for side in sides) or not set(signs) <= set("<>≤≥"):
        return None
    if signs[0] in ">≥":
        sides, signs = sides[::-1], tuple(MIRROR[sign] for sign in signs[::-1])
    if not set(signs) <= set("<≤"):
        return None
    if len(sides) == 3 and is_variable(sides[1]):
        low, high = (sides[0], signs[0]), (sides[2], signs[1])
    elif len(sides) == 2 and is_variable(sides[0]) != is_variable(sides[1]):
        if is_variable(sides[0]):
            low, high = (Scalar(MINUS_INFINITY), "<"), (sides[1], signs[0])
        else:
            low, high = (sides[0], signs[0]), (Scalar(INFINITY), "<")
    else:
        return None
    return Group("[" if low[1] == "≤" else "(", (low[0], high[0]), "]" if high[1] == "≤" else ")")


def bounded_side(relation: Relation) -> Value | None:
    """Returns the side of an inequality that it bounds: x of `a < x ≤ b`."""
    if len(relation.sides) == 3:
        return relation.sides[1]
    names = [side for side in relation.sides if is_variable(side)]
    return names[0] if len(names) == 1 else None


def rename_argument(value: Value, other: Value) -> Value:
    """Returns `f(x) = 2x` for `f(t) = 2t` if the other relation is of f(x); else the value as it is."""
    if not (isinstance(value, Relation) and isinstance(other, Relation)):
        return value
    own, target = (getattr(relation.sides[0], "expression", ("",)) for relation in (value, other))
    if own[:2] != target[:2] or (own[0], len(own), len(target)) != ("application", 3, 3):
        return value
    if not own[2][0] == target[2][0] == "symbol":
        return value
    names = set().union(*map(_names, value.sides))
    return value if target[2][1] in names else rename(value, {own[2][1]: target[2][1]})


def are_names_compatible(left: Value, right: Value) -> bool:
    """Returns whether two names may stand for the same: equal ones, `y` and `f(x)`, or one in words."""
    if left == right:
        return True
    names = [value.expression for value in (left, right) if isinstance(value, Scalar)]
    if len(names) < 2:
        return all(isinstance(value, Scalar | Text) for value in (left, right))
    words = [name for name in names if name[0] == "symbol" and name[1].startswith(WORDS)]
    is_function = [name[0] == "application" and {part[0] for part in name[2:]} == {"symbol"} for name in names]
    is_free = all(name[0] not in _OF_VARIABLES for name in names)
    return len(words) == 1 and is_free or any(is_function) and ("symbol", "y") in names


def are_equivalent(reference: Relation, given: Relation, compare_sides: Compare, budget: Budget) -> bool | None:
    """Returns whether two relations say the same: side by side in either direction, or as multiples."""
    for sides, signs in (
        (given.sides, given.signs),
        (given.sides[::-1], tuple(MIRROR.get(sign, "") for sign in given.signs[::-1])),
    ):
        if signs == reference.signs and all(map(compare_sides, reference.sides, sides)):
            return True
    if len(reference.sides) != 2 or len(given.sides) != 2:
        return None if len(reference.sides) == len(given.sides) else False
    pair = _difference(reference), _difference(given)
    if None in pair:
        return False
    (sign, left), (other_sign, right) = pair
    if sign != other_sign:
        return False
    factor = are_proportional(left, right, budget)
    if factor and (sign in "=≠" or factor > 0):
        return True
    if sign in "=≠" and {"divide"} & (operations(left) | operations(right)):
        return bool(are_proportional(to_fraction(left)[0], to_fraction(right)[0], budget))
    return False


def are_numbers(left: Value, right: Value) -> bool:
    """Returns whether two answers for all k are numbers, not functions of k: `x = 2k`, `kπ`; not `f(k) = 2k`, `2k`."""
    pair = (left, right)
    names = {getattr(value.sides[0], "expression", ()) for value in pair if isinstance(value, Relation)}
    sides = [value.sides[1] if isinstance(value, Relation) and value.signs == ("=",) else value for value in pair]
    if not all(isinstance(side, Scalar) for side in sides):
        return False
    if names:
        return len(names) == 1 and names.pop()[:1] == ("symbol",)
    return all("pi" in symbols(side.expression) for side in sides)


def are_shifted(left: Expression, right: Expression, name: str, budget: Budget) -> bool:
    """Returns whether two formulas have the same values at all whole numbers: `5π/4 + kπ` and `π/4 - kπ`."""
    start, other, after = (substitute(side, {name: number(at)}) for side, at in ((left, 0), (right, 0), (right, 1)))
    shift = ("divide", difference(start, other), difference(after, other))
    size = None if variables(shift) else approximate(shift, budget)
    if size is None or not abs(size) < 10**30:
        return False
    index = ("symbol", name)
    moved = (("add", number(round(float(size))), part) for part in (index, ("negative", index)))
    return any(are_identical(left, substitute(right, {name: part}), budget) for part in moved)


def _difference(relation: Relation) -> tuple[str, Expression] | None:
    """Returns (sign, left minus right) with the sign turned to `=`, `≠`, `>` or `≥`; None if a side is no formula."""
    left, right = relation.sides
    sign = relation.signs[0]
    if not (isinstance(left, Scalar) and isinstance(right, Scalar)) or sign not in "=≠<>≤≥":
        return None
    if sign in "<≤":
        left, right, sign = right, left, MIRROR[sign]
    return sign, difference(left.expression, right.expression)
