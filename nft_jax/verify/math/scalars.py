"""Whether two scalars are the same answer: exactly, as percent, as rounded decimal, or with a unit."""

import re
from fractions import Fraction
from typing import NamedTuple

from .evaluate import Budget, Undecided, Undefined, approximate, is_within
from .functions import to_radians
from .identity import are_identical, difference, is_constant, variables
from .units import is_same_word, measure
from .values import Expression, Scalar, number, operations

_ROMAN = re.compile(r"(?=[IVXLCDM]{2})M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})")
_ROMAN_DIGITS = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_RADIAN = frozenset({("rad", 1)})
_FLOAT_DIGITS = (15, 17)  # significant digits of a number that a program printed as a 64-bit float
_FLOAT_ERROR = Fraction(1, 1 << 50)  # relative: four times its rounding


class Rules(NamedTuple):
    """Options for cases in which test suites disagree on what the same answer is.

    Attributes:
      ordered: whether the order counts in a list without brackets (`1, 2`).
      precision: how many decimals, and significant digits, a decimal number needs to be correct as the rounded value of
        an exact one (`0.333333` for 1/3); with fewer it must be equal.
      decimal_comma: whether a reference such as `1,22` is one number.
      any_names: whether other names of variables make the same answer: `2t` for `2x`.
    """

    ordered: bool = False
    precision: int = 6
    decimal_comma: bool = False
    any_names: bool = False


DEFAULT = Rules()


def compare_scalars(reference: Scalar, given: Scalar, rules: Rules, budget: Budget) -> bool | None:
    """Compares two scalars; None if it cannot decide."""
    left, right = reference.expression, given.expression
    units = [side.unit or "deg" * (side.expression[0] == "degree") for side in (reference, given)]
    if any(units) and (reference.percent or given.percent):
        return False
    if all(units) and units[0] != units[1]:
        one, other = map(measure, units)
        if {"".join(base for base, _ in size[1]) for size in (one, other) if size} == {"deg", "rad"}:
            degrees = [("degree", side) if size[1] != _RADIAN else side for side, size in ((left, one), (right, other))]
            return are_identical(*map(to_radians, degrees), budget)
        if (one is None) != (other is None) and not is_same_word(*units):
            return False
        if one and other and one != other:
            scaled = [("multiply", side, number(size[0])) for side, size in ((left, one), (right, other))]
            return one[1] == other[1] and are_identical(*scaled, budget)
    if given.product is not None and variables(left):  # `5 m` is a product if the other side has variables
        right = given.product
    elif reference.product is not None and variables(right):
        left = reference.product
    result = _compare_values(left, right, budget)
    if not result and ("degree" in operations(left)) != ("degree" in operations(right)):  # 45° is also π/4
        result = are_identical(to_radians(left), to_radians(right), budget) or result
    if reference.percent != given.percent:
        result = _compare_percent(reference, given, result, budget)
    if result:
        return True
    if _is_rounded(given, reference, rules, budget) or _is_rounded(reference, given, rules, budget):
        return True
    return result


def _compare_values(left: Expression, right: Expression, budget: Budget) -> bool | None:
    result = are_identical(left, right, budget)
    if result is False and left[0] == right[0] == "symbol" and len(left[1]) == len(right[1]) == 1:
        return left[1].lower() == right[1].lower()
    rests = _antiderivative(left, "C"), _antiderivative(right, "CcK")
    if result is False and all(rests):
        return is_constant(difference(*rests), budget)
    return result


def _antiderivative(expression: Expression, constants: str) -> Expression | None:
    """Returns a sum of functions without its constant C; None for anything else, such as Ax + By + C."""
    rest = [term for term in expression[1:] if term not in [("symbol", name) for name in constants]]
    total = ("add", *rest)
    is_one = expression[0] == "add" and len(rest) == len(expression) - 2
    return total if is_one and variables(total) and not {*"ABCcK"} & {*variables(total)} else None


def _compare_percent(reference: Scalar, given: Scalar, plain: bool | None, budget: Budget) -> bool | None:
    """Returns whether p% is the other number: p/100, or p itself if it is at least 1."""
    percent, other = (reference, given) if reference.percent else (given, reference)
    hundredth = are_identical(("divide", percent.expression, number(100)), other.expression, budget)
    if hundredth or not plain:
        return hundredth if hundredth is not False or plain is False else plain
    try:
        size = approximate(percent.expression, budget)
    except (Undecided, Undefined):
        return None
    return size is not None and bool(abs(size) >= 1)


def _is_rounded(decimal: Scalar, exact: Scalar, rules: Rules, budget: Budget) -> bool:
    """Returns whether a decimal number with enough digits is what the other, which is no decimal, rounds to."""
    digits = decimal.digits
    if digits is None or "." not in digits or "e" in digits or len(digits) > 60:
        return False
    decimals = len(digits.partition(".")[2])
    significant = len(digits.lstrip("-0.").replace(".", "").rstrip("0"))
    is_float = _FLOAT_DIGITS[0] <= significant <= _FLOAT_DIGITS[1]
    if (
        decimals < max(rules.precision, 1)
        or significant < rules.precision
        or (exact.digits is not None and not is_float)
    ):
        return False
    value = Fraction(digits)
    error = max(Fraction(1, 2 * 10**decimals), abs(value) * _FLOAT_ERROR * is_float)
    return _is_near(decimal, exact, value, error, budget)


def _is_near(decimal: Scalar, exact: Scalar, value: Fraction, error: Fraction, budget: Budget) -> bool:
    """Returns whether a number is at most `error` away from the value of a decimal."""
    if variables(exact.expression):
        return False
    size = exact.expression
    if exact.percent != decimal.percent:
        size = ("multiply", size, number(Fraction(1, 100) if exact.percent else 100))
    try:
        ball = approximate(size, budget, 512)
    except (Undecided, Undefined):
        return False
    return ball is not None and is_within(ball, value, error)


def is_decimal(value: Scalar) -> bool:
    r"""Returns whether a number is written with decimals, or as `3.1 \times 10^5`."""
    return _rounded_to(value) is not None


def is_rounding(decimal: Scalar, exact: Scalar, budget: Budget) -> bool:
    """Returns whether a decimal number, of any number of digits, is what another number rounds to."""
    rounded = _rounded_to(decimal)
    return rounded is not None and decimal.unit == exact.unit and _is_near(decimal, exact, *rounded, budget)


def _rounded_to(value: Scalar) -> tuple[Fraction, Fraction] | None:
    """Returns a decimal number and half of the unit of its last digit; None if it has no decimals nor power of ten."""
    digits, (name, *parts) = value.digits or "", value.expression
    if name == "multiply" and parts[0][0] == "number" and parts[1][:2] == ("power", number(10)) and parts[0][1] < 10**9:
        power = parts[1][2]
        digits = f"{float(parts[0][1])}e{power[1]}" if power[0] == "number" and abs(power[1]) < 100 else ""
    match = re.fullmatch(r"-?\d*(?:\.(\d+))?(?:e([-+]?\d{1,2}))?", digits)
    if match is None or match.group(1, 2) == (None, None):
        return None
    return Fraction(digits), Fraction(10) ** (int(match[2] or 0) - len(match[1] or "")) / 2


def is_roman(reference: Scalar, given: Scalar) -> bool:
    """Returns whether the given letters are a Roman numeral of the reference."""
    letters, expression = [], given.expression
    while expression[0] == "multiply":
        letters.append(expression[2])
        expression = expression[1]
    names = [part[1] for part in [expression, *reversed(letters)] if part[0] == "symbol"]
    if len(names) != len(letters) + 1 or not _ROMAN.fullmatch("".join(names)) or reference.digits is None:
        return False
    values = [_ROMAN_DIGITS[name] for name in names]
    total = sum(-v if v < max(values[i + 1 :], default=0) else v for i, v in enumerate(values))
    return reference.expression == number(total)
