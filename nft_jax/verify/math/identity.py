"""Whether two expressions are the same number or the same function."""

import random
from fractions import Fraction
from functools import lru_cache

from .evaluate import PIECEWISE, Budget, Evaluation, Undecided, Undefined, is_zero
from .values import Expression, number, operands, operations, symbols

CONSTANTS = {"pi", "e", "i"}
_SCALES = (1, 4, 20, 200)
_POINTS, _PIECEWISE_POINTS = 12, 36
_AGREEMENTS = 3  # points at which two functions must be defined and equal
_STEP = 64  # points are multiples of 1/64


def difference(left: Expression, right: Expression) -> Expression:
    """Returns left - right."""
    return ("add", left, ("negative", right))


def variables(*expressions: Expression) -> list[str]:
    """Returns the names that stand for no constant."""
    return sorted(set().union(*map(symbols, expressions)) - CONSTANTS)


def are_identical(left: Expression, right: Expression, budget: Budget) -> bool | None:
    """Returns whether two expressions are equal wherever they are defined; None if it cannot decide that.

    Variables are real. A function that is real where the other is not is another function.
    """
    if left == right:
        return True
    if left[0] == right[0] == "number":
        return False
    if "infinity" in operations(left) | operations(right):
        return False if _is_infinite(left) and _is_infinite(right) else None
    names = variables(left, right)
    try:
        if not names:
            return is_zero(difference(left, right), {}, budget)
        return _agree_at_points(left, right, names, budget)
    except (Undecided, Undefined):
        return None


def _is_infinite(value: Expression) -> bool:
    return value[0] == "infinity" or value[0] == "negative" and value[1][0] == "infinity"


def _agree_at_points(left: Expression, right: Expression, names: list[str], budget: Budget) -> bool | None:
    agreements = 0
    has_i = "i" in symbols(left) | symbols(right)
    for point in points(left, right, names):
        try:
            if is_zero(difference(left, right), point, budget):
                agreements += 1
            elif has_i or _is_real(left, point, budget) or _is_real(right, point, budget):
                return False
        except Undefined:
            continue
        except Undecided:
            if budget.left < 0:
                return None
    return True if agreements >= _AGREEMENTS else None


def _is_real(expression: Expression, point: dict[str, Fraction], budget: Budget) -> bool:
    value = Evaluation(256, point, budget).evaluate(expression)
    return not hasattr(value, "imag") or value.imag.contains(0)


def points(left: Expression, right: Expression, names: list[str]) -> list[dict[str, Fraction]]:
    """Returns where two expressions are compared: over four scales and all signs, and around their own numbers.

    The two expressions determine the points, so no answer can be made for them.
    """
    draw = random.Random(repr((left, right)))
    used = operations(left) | operations(right)
    whole = {name for name in names if used & {"sum", "product"}}
    count = _PIECEWISE_POINTS if used & PIECEWISE else _POINTS
    found = []
    for index in range(count):
        scale = _SCALES[index // 3 % len(_SCALES)]
        point = {}
        for name in names:
            if name in whole:
                point[name] = Fraction(draw.randrange(1, 9 + index))
                continue
            sign = (1, -1, draw.choice((1, -1)))[index % 3]
            point[name] = Fraction(sign * draw.randrange(scale * _STEP // 4, scale * _STEP), _STEP)
        found.append(point)
    if used & PIECEWISE and not whole:
        found += _points_around(_numbers(left) | _numbers(right), names, draw)
    return found


def _points_around(centers: set[Fraction], names: list[str], draw: random.Random) -> list[dict[str, Fraction]]:
    """Returns points on both sides of each center and of its negative and its root."""
    near = []
    for center in sorted(centers, key=lambda value: (abs(value), value))[:6]:
        root = Fraction(int(abs(center) ** 0.5 * _STEP), _STEP) if abs(center) < 10**12 else center
        near += [sign * size for size in {center, root} for sign in (1, -1)]
    moves = [Fraction(side * draw.randrange(1, _STEP // 2), _STEP) for side in (1, -1)]
    return [{name: center + move for name in names} for center in dict.fromkeys(near) for move in moves]


def _numbers(expression: Expression) -> set[Fraction]:
    if expression[0] == "number":
        return {expression[1]}
    return set().union(*map(_numbers, operands(expression))) if operands(expression) else set()


def substitute(expression: Expression, point: dict[str, Fraction]) -> Expression:
    """Returns an expression with numbers in place of variables."""
    if expression[0] == "symbol":
        return number(point[expression[1]]) if expression[1] in point else expression
    return tuple(substitute(part, point) if isinstance(part, tuple) else part for part in expression)


def are_proportional(left: Expression, right: Expression, budget: Budget) -> int:
    """Returns 1 or -1 if one is a constant multiple of the other, by the sign of the factor; else 0."""
    names = variables(left, right)
    if variables(left) != variables(right) or not names:
        return 0
    base = sign_of_factor = None
    agreements = 0
    for point in points(left, right, names):
        values = [substitute(side, point) for side in (left, right)]
        try:
            zeros = [is_zero(value, {}, budget) for value in values]
            if zeros[0] != zeros[1]:
                return 0
            if zeros[0]:
                continue
            if base is None:
                base = values
                sign_of_factor = _factor_sign(values, budget)
                continue
            cross = difference(("multiply", values[0], base[1]), ("multiply", values[1], base[0]))
            if not is_zero(cross, {}, budget):
                return 0
            agreements += 1
        except Undefined:
            continue
        except Undecided:
            if budget.left < 0:
                return 0
    return sign_of_factor if agreements >= _AGREEMENTS else 0


def _factor_sign(values: list[Expression], budget: Budget) -> int:
    value = Evaluation(256, {}, budget).evaluate(("divide", *values))
    value = getattr(value, "real", value)
    return 1 if value > 0 else -1


@lru_cache(maxsize=256)
def to_fraction(expression: Expression) -> tuple[Expression, Expression]:
    """Returns numerator and denominator of a quotient of sums and products; nothing is simplified."""
    name, *parts = expression
    one = number(1)
    if name == "divide":
        (a, b), (c, d) = map(to_fraction, parts)
        return ("multiply", a, d), ("multiply", b, c)
    if name == "multiply":
        (a, b), (c, d) = map(to_fraction, parts)
        return ("multiply", a, c), ("multiply", b, d)
    if name == "negative":
        top, bottom = to_fraction(parts[0])
        return ("negative", top), bottom
    if name == "add":
        top, bottom = to_fraction(parts[0])
        for part in parts[1:]:
            other, below = to_fraction(part)
            top = ("add", ("multiply", top, below), ("multiply", other, bottom)) if (below, bottom) != (one, one) else (
                "add", top, other)  # fmt: skip
            bottom = one if (below, bottom) == (one, one) else ("multiply", bottom, below)
        return top, bottom
    if name == "power" and parts[1][0] == "number" and parts[1][1].denominator == 1 and parts[1][1] < 0:
        return one, ("power", parts[0], number(-parts[1][1]))
    return expression, one
