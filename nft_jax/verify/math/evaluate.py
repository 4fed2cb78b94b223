"""The value of an expression at a point: an exact rational number, or else a ball that contains it (FLINT, Arb).

A ball proves that two numbers differ. That they are equal is believed when the ball of their difference contains 0 at
a precision beyond all the information in the expression: four times the bits of its numbers and magnitudes. So no size
of a term hides a difference. All work counts against a budget of steps, which no clock measures.
"""

import random
from fractions import Fraction
from typing import Any

from .arithmetic import Arithmetic, Budget, Undecided, Undefined, is_exact_zero
from .values import Expression, choose, operands, operations

PRECISION_LIMIT = 1 << 15  # bits
TERMS_LIMIT = 500  # of a sum
_KEY_BITS, _KEY_DIGITS = 2048, 560  # of an argument of an unknown function

# Operations that name a method of FLINT's complex balls.
FUNCTIONS = {
    "sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "sech", "csch",
    "asin", "acos", "atan", "asinh", "acosh", "atanh", "exp",
}  # fmt: skip
# Their values at 0, where these are rational.
_AT_ZERO = {**dict.fromkeys(("sin", "tan", "sinh", "tanh", "asin", "atan", "asinh", "atanh"), 0),
            **dict.fromkeys(("cos", "sec", "cosh", "sech", "exp"), 1)}  # fmt: skip


def preload() -> None:
    """Imports what `Evaluation` needs."""
    import flint  # noqa: F401


def is_zero(expression: Expression, point: dict[str, Fraction], budget: Budget) -> bool:
    """Returns whether an expression is 0 at a point.

    Raises:
      Undecided: if it cannot decide that.
      Undefined: if it has no value there.
    """
    precision = 96
    while True:
        evaluation = Evaluation(precision, point, budget)
        value = evaluation.evaluate(expression)
        if isinstance(value, evaluation.flint.fmpq):
            return value == 0
        if value.is_finite() and not value.contains(0):
            return False
        needed = _needed_bits(evaluation)
        is_small = value.is_finite() and bool(value.abs_upper() * (1 << precision // 2) < 1)
        if is_small and precision >= needed:  # a ball that lost its digits would prove nothing
            return True
        precision = max(precision * 4, needed)
        if precision > PRECISION_LIMIT:
            raise Undecided(f"whether it is 0 would need {precision} bits")


def _needed_bits(evaluation: "Evaluation") -> int:
    """Returns the precision at which a difference that is not 0 would show."""
    return 512 + 4 * evaluation.bits


def is_within(ball: Any, value: Fraction, error: Fraction) -> bool:
    """Returns whether all of a real number or ball is at most `error` away from a value."""
    import flint

    center, radius = (flint.fmpq(part.numerator, part.denominator) for part in (value, error))
    return bool(abs(ball - center) <= radius)


def approximate(expression: Expression, budget: Budget, precision: int = 256) -> Any | None:
    """Returns a real number without variables as a rational or a real ball; None if it is not real."""
    evaluation = Evaluation(precision, {}, budget)
    value = evaluation.evaluate(expression)
    if isinstance(value, evaluation.flint.fmpq):
        return value
    return value.real if value.is_finite() and value.imag.is_zero() else None


class Evaluation(Arithmetic):
    """Values of expressions at one point and one precision."""

    def __init__(self, precision: int, point: dict[str, Fraction], budget: Budget):
        super().__init__(budget)
        self._precision = precision
        self._point = dict(point)
        self._cost = 1 + precision // 512

    def evaluate(self, expression: Expression) -> Any:
        """Returns a rational number (fmpq) or a complex ball (acb). Raises Undecided or Undefined."""
        before, self.flint.ctx.prec = self.flint.ctx.prec, self._precision
        try:
            return self._evaluate(expression)
        except ZeroDivisionError as error:
            raise Undefined("a division by 0") from error
        except (OverflowError, ValueError, MemoryError, NotImplementedError) as error:
            raise Undecided(str(error)) from error
        finally:
            self.flint.ctx.prec = before

    def _evaluate(self, expression: Expression) -> Any:
        self._budget.spend(self._cost)
        name = expression[0]
        if name == "number":
            value = expression[1]
            return self.flint.fmpq(value.numerator, value.denominator)
        if name == "symbol":
            return self._evaluate_symbol(expression[1])
        if name in ("sum", "product", "series", "application"):
            return getattr(self, f"_evaluate_{name}")(*expression[1:])
        method = getattr(self, f"_{name}", None)
        values = [self._evaluate(operand) for operand in operands(expression)]
        if method is None:
            if name not in FUNCTIONS:
                raise Undecided(f"{name} has no value")
            if is_exact_zero(values[0]) and name in _AT_ZERO:
                return self.flint.fmpq(_AT_ZERO[name])
            ball = self._ball(values[0])
            self._spend_series(1)
            if name in ("tanh", "coth"):  # they come within exp(-2x) of 1
                self._count(ball.exp())
            value = getattr(ball, name)()
        else:
            value = method(*values)
        return self._count(value)

    def _evaluate_symbol(self, name: str) -> Any:
        flint = self.flint
        value = self._point.get(name)
        if value is not None:  # also of i, where it counts the terms of a sum
            return flint.fmpq(value.numerator, value.denominator)
        if name == "pi":
            return flint.acb(flint.arb.pi())
        if name == "e":
            return flint.acb(flint.arb.const_e())
        if name == "i":
            return flint.acb(0, 1)
        raise Undecided(f"{name} has no value")

    # Bound variables, and functions of which only the name is known

    def _bounds(self, low: Expression, high: Expression) -> range:
        low, high = self._evaluate(low), self._evaluate(high)
        first, last = self._whole((low, high))
        if last - first >= TERMS_LIMIT:
            raise Undecided(f"a sum has more than {TERMS_LIMIT} terms")
        return range(first, last + 1)

    def _terms(self, index: str, low: Expression, high: Expression, body: Expression) -> list[Any]:
        before, terms = self._point.get(index), []
        for value in self._bounds(low, high):
            self._point[index] = Fraction(value)
            terms.append(self._evaluate(body))
        self._point[index] = before
        return terms

    def _evaluate_sum(self, index: str, low: Expression, high: Expression, body: Expression) -> Any:
        return self._add(self.flint.fmpq(0), *self._terms(index, low, high, body))

    def _evaluate_product(self, index: str, low: Expression, high: Expression, body: Expression) -> Any:
        return self._multiply(self.flint.fmpq(1), *self._terms(index, low, high, body))

    def _evaluate_series(self, kind: str, index: str, *parts: Expression) -> Any:
        """Returns a value that only the same limits and the same body have: an infinite sum, an integral, a limit."""
        before, keys = self._point.get(index), [kind]
        for factor in (1, -1, 30):
            self._point[index] = factor * _draw("index")
            keys += map(self._key, parts)
        self._point[index] = before
        return self._unknown(keys)

    def _evaluate_application(self, name: str, *arguments: Expression) -> Any:
        is_pair = len(arguments) == 2 and all(argument[0] == "number" for argument in arguments)
        if is_pair and name in ("C", "P", "nCr", "nPr"):
            return self._evaluate(choose(*arguments, ordered="P" in name))
        return self._unknown([name, *map(self._key, arguments)])

    def _key(self, expression: Expression) -> str:
        """Returns text that determines the value of an argument: the digits of an irrational one."""
        if operands(expression) == () and expression[0] not in ("number", "symbol"):
            return expression[0]
        if expression[0] == "negative" and expression[1][0] == "infinity":
            return "-infinity"
        value = self._evaluate(expression)
        if isinstance(value, self.flint.fmpq):
            if max(value.p.bit_length(), value.q.bit_length()) > 10_000:
                raise Undecided("an argument is too long")
            return str(value)
        precise = Evaluation(_KEY_BITS, self._point, self._budget)
        value = precise.evaluate(expression)
        if _needed_bits(precise) > _KEY_BITS or value.rel_accuracy_bits() < _KEY_BITS - 150:
            raise Undecided("an argument needs more digits than a key has")
        return f"{value.real.str(_KEY_DIGITS, radius=False)},{value.imag.str(_KEY_DIGITS, radius=False)}"

    def _unknown(self, keys: list[str]) -> Any:
        value = _draw("|".join(keys))
        return self.flint.fmpq(value.numerator, value.denominator)


def _draw(key: str) -> Fraction:
    """Returns a rational number that the text determines."""
    return Fraction(random.Random(key).randrange(1 << 40, 1 << 41), 1 << 40)


def sign(expression: Expression, budget: Budget) -> int:
    """Returns the sign of a real number: -1, 0 or 1. Raises Undecided or Undefined."""
    if is_zero(expression, {}, budget):
        return 0
    if {"application", "series"} & operations(expression):
        raise Undecided("the sign of an unknown function")
    precision = 96
    while precision <= PRECISION_LIMIT:
        value = approximate(expression, budget, precision)
        if value is None:
            raise Undecided("it is not real")
        if value > 0:
            return 1
        if value < 0:
            return -1
        precision *= 4
    raise Undecided("its sign cannot be decided")
