"""Whether two expressions are the same number or the same function."""

import contextlib
import itertools
import math
import random
from fractions import Fraction
from functools import lru_cache

from .evaluate import Budget, Evaluation, Undecided, Undefined, approximate, is_zero
from .values import Expression, number, operands, operations, parts, symbols

CONSTANTS = {"pi", "e", "i"}
_OF_WHOLE = {"factorial", "double_factorial", "binomial", "sum", "product"}
_PIECEWISE = {
    "abs", "max", "min", "root", "floor", "ceil", "mod", "atan", "asin", "acos", "log", "ln", *_OF_WHOLE,
}  # fmt: skip
_SCALES = (1, 4, 20, 200)
_WIDE_SCALES = (*_SCALES, 10**4, 10**8, 10**16, Fraction(1, 10**4), Fraction(1, 10**8))
_POINTS, _PIECEWISE_POINTS = 12, 54
_LARGEST = 10**30  # of the numbers around which a form may change
# In |ln x - 9| and |√x - 9| it changes at these functions of 9.
_INVERSES = {"log": math.exp, "ln": math.exp, "root": lambda value: value**2, "power": lambda value: value**2}
_CENTERS_LIMIT = 16
_AGREEMENTS = 3  # points at which two functions must be defined and equal


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
    if _is_infinite(left) or _is_infinite(right):
        return False if _is_infinite(left) and _is_infinite(right) else None
    names = variables(left, right)
    try:
        if not names:
            return is_zero(difference(left, right), {}, budget)
        return _agree_at_points(left, right, names, budget)
    except (Undecided, Undefined):
        return None if names else _have_identical_parts(left, right, budget)


def _have_identical_parts(left: Expression, right: Expression, budget: Budget) -> bool | None:
    """Returns True if two numbers are one operation on identical parts: `7^{7^7}` and `7^{823543}`."""
    pairs = list(zip(left[1:], right[1:], strict=False))
    if left[0] != right[0] or len(left) != len(right) or left[0] == "symbol":
        return None
    return all(a == b or isinstance(a, tuple) and are_identical(a, b, budget) for a, b in pairs) or None


def _is_infinite(value: Expression) -> bool:
    return value[0] == "infinity" or value[0] == "negative" and value[1][0] == "infinity"


def _agree_at_points(left: Expression, right: Expression, names: list[str], budget: Budget) -> bool | None:
    agreements = 0
    has_i = "i" in symbols(left) | symbols(right)
    scattered, near = points(left, right, names, budget)
    for index, point in enumerate(scattered + near):
        try:
            if is_zero(difference(left, right), point, budget):
                agreements += 1
            elif has_i or _is_real(left, point, budget) or _is_real(right, point, budget):
                return False
        except Undefined:
            continue
        except Undecided:
            if budget.left < 0 or index >= len(scattered):  # another form may begin there
                return None
    return True if agreements >= _AGREEMENTS else None


def _is_real(expression: Expression, point: dict[str, Fraction], budget: Budget) -> bool:
    value = Evaluation(256, point, budget).evaluate(expression)
    return not hasattr(value, "imag") or value.imag.contains(0)


Point = dict[str, Fraction]


def points(left: Expression, right: Expression, names: list[str], budget: Budget) -> tuple[list[Point], list[Point]]:
    """Returns where two expressions are compared: over several scales and all signs, and around their own numbers.

    The numbers that a sum or product ends with, and those of which there are factorials, are whole and positive.

    The two expressions determine the points, so no answer can be made for them.

    Raises:
      Undecided: if they may change their form at too many places.
    """
    draw = random.Random(repr((left, right)))
    pieces = [piece for side in (left, right) for piece in _pieces(side)]
    whole = _whole_names(left) | _whole_names(right)
    if any(_may_vanish(part, whole) for side in (left, right) for part in parts(side)):
        raise Undecided("a product may be 0 at all whole numbers that are tried")
    count, scales = (_PIECEWISE_POINTS, _WIDE_SCALES) if pieces else (_POINTS, _SCALES)
    found = []
    for index in range(count):
        scale = scales[index // 3 % len(scales)]
        point = {}
        for name in names:
            if name in whole:
                point[name] = Fraction(draw.randrange(1, 450 if index % 4 == 3 else 9 + index))
                continue
            sign = (1, -1, draw.choice((1, -1)))[index % 3]
            size = draw.choice(scales) if pieces and len(names) > 1 and index % 2 else scale
            bottom = draw.randrange(1 << 15, 1 << 16)
            point[name] = sign * size * Fraction(draw.randrange(bottom // 4, bottom), bottom)
        found.append(point)
    if {"floor", "ceil", "mod"} & (operations(left) | operations(right)):  # these may differ at single points
        steps = [*range(12, 120, 12), *range(120, 132), *range(-6, 0)]
        for step in steps:
            found.append(
                {name: Fraction(max(step // 12, 1) if name in whole else Fraction(step, 12)) for name in names}
            )
    near, far = _points_around(pieces, names, whole, draw, budget)
    return found + far, near


def _may_vanish(part: Expression, whole: set[str]) -> bool:
    r"""Returns whether an expression is a product such as `\prod_{k=1}^{500}(n-k)`, with many zeros."""
    return part[0] == "product" and not variables(part[3]) and bool(symbols(part) & whole)


def _whole_names(expression: Expression) -> set[str]:
    """Returns the variables in limits of sums, in factorials and binomials, and n of `\\lfloor n/2\\rfloor`."""
    own = operands(expression)[: 2 if expression[0] in ("sum", "product") else None]
    inner = [symbols(part) for part in own if expression[0] in _OF_WHOLE]
    inner += [symbols(part) & set("kmn") for part in own if expression[0] in ("floor", "ceil")]
    return set().union(*inner, *map(_whole_names, operands(expression)))


def _pieces(expression: Expression) -> list[Expression]:
    """Returns the arguments of operations that have several forms, as absolute values have."""
    name, inner = expression[0], operands(expression)
    if name == "power":  # e^x and x^2 have one form
        has_forms = variables(inner[0]) and not (inner[1][0] == "number" and inner[1][1].denominator == 1)
    else:
        has_forms = name in _PIECEWISE and variables(expression)
    own = inner if has_forms else ()
    return [*own, *(piece for part in inner for piece in _pieces(part))]


def _points_around(
    pieces: list[Expression], names: list[str], whole: set[str], draw: random.Random, budget: Budget
) -> tuple[list[Point], list[Point]]:
    """Returns points beside each number in the pieces, its negative and its root; and some that are far from these."""
    centers: set[Fraction] = set()
    for number_ in {inner for piece in pieces for inner in _constants(piece)}:
        with contextlib.suppress(Undefined):
            value = approximate(number_, budget, 64)
            if value is None:
                continue
            if not abs(value) < _LARGEST:
                raise Undecided("its form may change at numbers that are too large")
            is_exact = hasattr(value, "p")
            centers.add(Fraction(int(value.p), int(value.q)) if is_exact else Fraction(round(float(value) * 64), 64))
    if len(centers) > _CENTERS_LIMIT:
        raise Undecided("it may change its form at too many places")
    used = set().union(*map(operations, pieces))
    inverses = [_INVERSES[name] for name in sorted(used & _INVERSES.keys()) if not whole]
    around, beyond = [], [] if whole or not pieces else [_reach(pieces)]
    for center in sorted(centers):
        around += sorted({center, Fraction(abs(center) ** 0.5)})
        for inverse in inverses:
            with contextlib.suppress(OverflowError):
                beyond.append(Fraction(inverse(float(center))))

    def points_beside(sizes):
        signs = 1, -1
        places = itertools.product(dict.fromkeys(sizes), signs, signs)
        return [_beside(sign * size, side, names, whole, draw) for size, sign, side in places]

    near, far = points_beside(around), points_beside(beyond)
    if len(names) > 1:  # also with one much larger than the others
        far += [{name: draw.choice(near)[name] for name in names} for _ in range(len(near) // 2)]
        for large, sign, other in itertools.product(() if whole or not pieces else names, (1, -1), (1, -1)):
            size, rest = sign * max(_WIDE_SCALES), other * min(_WIDE_SCALES)
            far.append({name: draw.randrange(1, 99) * (size if name == large else rest) for name in names})
    return near, far


def _beside(center: Fraction, side: int, names: list[str], whole: set[str], draw: random.Random) -> Point:
    """Returns a point on one side of a number, in all variables."""
    beside = center + Fraction(side * draw.randrange(1, 32), 64)
    counted = Fraction(max(round(center) + side * draw.randrange(1, 4), 1))
    return {name: counted if name in whole else beside for name in names}


def _reach(pieces: list[Expression]) -> Fraction:
    """Returns a number beyond those at which sums and products of the numbers in the pieces change their sign."""
    sizes = [abs(part[1]) for piece in pieces for part in parts(piece) if part[0] == "number" and part[1]]
    return min(math.prod((max(size, 1 / size) + 1 for size in sizes), start=Fraction(2)), Fraction(_LARGEST))


def _constants(expression: Expression) -> set[Expression]:
    """Returns the largest parts of an expression that have no variables, and the sums of those in one sum."""
    if not variables(expression):
        return {expression}
    inner = operands(expression)
    fixed = [part for part in inner if not variables(part)]
    total = {("add", *fixed)} if expression[0] == "add" and len(fixed) > 1 else set()
    return total.union(*map(_constants, inner))


def substitute(expression: Expression, values: dict[str, Expression]) -> Expression:
    """Returns an expression with others in place of variables."""
    if expression[0] == "symbol":
        return values.get(expression[1], expression)
    return tuple(substitute(part, values) if isinstance(part, tuple) else part for part in expression)


def is_constant(expression: Expression, budget: Budget) -> bool | None:
    """Returns whether an expression has one value wherever it is defined; None if it cannot decide that."""
    point = {name: number(Fraction(index + 5, 7)) for index, name in enumerate(variables(expression))}
    return are_identical(expression, substitute(expression, point), budget)


def are_proportional(left: Expression, right: Expression, budget: Budget) -> int:
    """Returns 1 or -1 if one is a constant multiple of the other, by the sign of the factor; else 0."""
    names = variables(left, right)
    if variables(left) != variables(right) or not names:
        return 0
    base = sign_of_factor = None
    agreements, varies = 0, False
    for point in itertools.chain(*points(left, right, names, budget)):
        exact = {name: number(value) for name, value in point.items()}
        values = [substitute(side, exact) for side in (left, right)]
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
            varies = varies or not is_zero(difference(values[0], base[0]), {}, budget)
        except Undefined:
            continue
        except Undecided:
            if budget.left < 0:
                return 0
    return sign_of_factor if agreements >= _AGREEMENTS and varies else 0


def _factor_sign(values: list[Expression], budget: Budget) -> int:
    value = Evaluation(256, {}, budget).evaluate(("divide", *values))
    value = getattr(value, "real", value)
    return 1 if value > 0 else -1


@lru_cache(maxsize=256)
def to_fraction(expression: Expression) -> tuple[Expression, Expression]:
    """Returns numerator and denominator of a quotient of sums and products; nothing is simplified."""
    name, *inner = expression
    one = number(1)
    if name == "divide":
        (a, b), (c, d) = map(to_fraction, inner)
        return ("multiply", a, d), ("multiply", b, c)
    if name == "multiply":
        (a, b), (c, d) = map(to_fraction, inner)
        return ("multiply", a, c), ("multiply", b, d)
    if name == "negative":
        top, bottom = to_fraction(inner[0])
        return ("negative", top), bottom
    if name == "add":
        top, bottom = to_fraction(inner[0])
        for part in inner[1:]:
            other, below = to_fraction(part)
            top = ("add", ("multiply", top, below), ("multiply", other, bottom)) if (below, bottom) != (one, one) else (
                "add", top, other)  # fmt: skip
            bottom = one if (below, bottom) == (one, one) else ("multiply", bottom, below)
        return top, bottom
    if name == "power" and inner[1][0] == "number" and inner[1][1].denominator == 1 and inner[1][1] < 0:
        return one, ("power", inner[0], number(-inner[1][1]))
    return expression, one
