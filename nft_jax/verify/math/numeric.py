"""Decides whether exact scalars with functions are the same number: evaluates them with hundreds of digits.

mpmath is imported when it is first needed (0.1 s). It gets numbers only and no text, so nothing can be executed.
"""

import random
from functools import lru_cache
from typing import Any

from .polynomial import Polynomial, TooBig

_SIGNS = ((1, 1), (-1, -1), (1, -1), (-1, 1))  # of the variables with even and odd names, at each point
_COARSE, _FINE = 60, 500  # digits: a difference shows at the first; equality is believed only at the second
_LOSS = 0.2  # of the digits, which cancellation may cost
_FRACTION_BITS = 1000  # of a factor: a smaller difference than that could stay hidden from the finer evaluation
_FAILURES = (TooBig, ValueError, ZeroDivisionError, OverflowError, TypeError, NotImplementedError)
_MAGNITUDE_BITS = 1 << 14  # of any intermediate result, against power towers


def preload() -> None:
    """Imports what `vanishes` needs."""
    import mpmath  # noqa: F401


@lru_cache(maxsize=1024)
def vanishes(difference: Polynomial) -> bool | None:
    """Returns whether a difference is 0 for all real values of its variables; None if it cannot be evaluated.

    Points where it is not real, though no i is written, are outside the domain of the two formulas and don't count:
    `x√x` is `√(x³)`.
    """
    import mpmath

    context = mpmath.mp.clone()
    try:
        results = [_vanishes_at(difference, context, point) for point in range(len(_SIGNS))]
    except _FAILURES:
        return None
    return False not in results and True in results


def _vanishes_at(difference: Polynomial, context: Any, point: int) -> bool | None:
    """Returns whether a difference is 0 at one point; None outside its domain."""
    for digits in (_COARSE, _FINE):
        context.dps = digits
        evaluation = _Evaluation(context, point)
        value, scale = evaluation.evaluate_terms(difference)
        limit = scale * context.mpf(10) ** -int(digits * (1 - _LOSS))
        if abs(value) > limit:
            outside = evaluation.variables and not evaluation.imaginary and abs(context.im(value)) > limit
            return None if outside else False
    return True


def approximate(value: Polynomial) -> Any | None:
    """Returns a real number without variables to `_COARSE` digits; None for anything else."""
    import mpmath

    context = mpmath.mp.clone()
    context.dps = _COARSE
    evaluation = _Evaluation(context, 0)
    try:
        result = evaluation.evaluate(value)
    except _FAILURES:
        return None
    return None if evaluation.variables or context.im(result) else context.re(result)


class _Evaluation:
    """Values of polynomials at one point, where each variable has one value.

    Attributes:
      variables: the names of the variables that occurred.
      imaginary: whether i occurred.
    """

    def __init__(self, context: Any, point: int):
        self._context = context
        self._point = point
        self.variables: set[str] = set()
        self.imaginary = False

    def evaluate(self, value: Polynomial) -> Any:
        """Returns the value of a polynomial.

        Raises:
          TooBig: for a number that is too large.
          ValueError: for a value that is not finite, or that a few points can't decide.
          ZeroDivisionError: for a division by 0.
        """
        return self.evaluate_terms(value)[0]

    def evaluate_terms(self, value: Polynomial) -> tuple[Any, Any]:
        """Returns the sum of the terms, and the sum of their sizes, which is the scale of a difference."""
        total = scale = self._context.mpf(0)
        for (radicand, imaginary, atoms), factor in value.terms.items():
            if factor.numerator.bit_length() + factor.denominator.bit_length() > _FRACTION_BITS:
                raise TooBig(f"a fraction has more than {_FRACTION_BITS} bits")
            term = self._context.mpf(factor.numerator) / factor.denominator
            if radicand > 1:
                term = term * self._context.sqrt(radicand)
            for atom, power in atoms:
                term = term * self._raise_to(self._evaluate_atom(atom), self._context.mpf(power))
            self.imaginary = self.imaginary or bool(imaginary)
            total += term * self._context.j if imaginary else term
            scale += abs(term)
        return self._check(total), scale

    def _evaluate_atom(self, atom: Any) -> Any:
        if isinstance(atom, str):
            return self._evaluate_variable(atom)
        name, *arguments = atom
        if name == "root":
            return self._raise_to(self.evaluate(arguments[0]), self._context.mpf(1) / arguments[1])
        before, self.variables = self.variables, set()
        values = [self.evaluate(argument) for argument in arguments]
        if name in ("floor", "ceil") and self.variables:
            raise ValueError("step functions that differ may agree at a few points")
        self.variables |= before
        if name == "inverse":
            return 1 / values[0]
        if name == "pow":
            return self._raise_to(*values)
        if name == "log":
            return self._context.log(values[1]) / self._context.log(values[0])
        if name == "abs":
            return abs(values[0])
        return self._check(getattr(self._context, name)(*values))

    def _evaluate_variable(self, name: str) -> Any:
        if name in ("pi", "e"):
            return +getattr(self._context, name)
        self.variables.add(name)
        # Text seeds it, so that every process takes the same point. Both signs occur, so that √(x²) is not x.
        sign = _SIGNS[self._point][sum(map(ord, name)) % 2]
        return self._context.mpf(sign * random.Random(f"{name} {self._point}").randrange(10**6, 4 * 10**6)) / 10**6

    def _raise_to(self, base: Any, exponent: Any) -> Any:
        if base == 0:
            if self._context.re(exponent) <= 0:
                raise ZeroDivisionError("a negative power of 0")
            return base
        if abs(exponent) * abs(self._context.log(abs(base))) > _MAGNITUDE_BITS:
            raise TooBig("a power is beyond all size")
        return self._check(base**exponent)

    def _check(self, value: Any) -> Any:
        """Returns the value if it is finite and of ordinary size. Raises ValueError or TooBig."""
        if not self._context.isfinite(value):
            raise ValueError("a value is not finite")
        if value and abs(self._context.mag(value)) > _MAGNITUDE_BITS:
            raise TooBig("a number is beyond all size")
        return value
