"""Whether two exact scalars with functions in them are the same number: evaluated at points with hundreds of digits.

mpmath is imported when it is first needed (0.1 s). It sees numbers only: no text, so nothing that could be executed.
"""

import random
from functools import lru_cache
from typing import Any

from .polynomial import Polynomial, TooBig

_SIGNS = ((1, 1), (-1, -1), (1, -1), (-1, 1))  # of the variables at each point, every other one alike
_COARSE, _FINE = 60, 500  # digits: a difference shows at the first; equality is believed only at the second
_LOST = 0.2  # of the digits may be lost by cancellation
_FRACTION_BITS = 1000  # of a factor: a smaller number could hide a difference from the finer evaluation
_FAILURES = (TooBig, ValueError, ZeroDivisionError, OverflowError, TypeError, NotImplementedError)
_MAGNITUDE_BITS = 1 << 14  # of any intermediate result: what keeps power towers out


def preload() -> None:
    """Import what `vanishes` needs."""
    import mpmath  # noqa: F401


@lru_cache(maxsize=1024)
def vanishes(difference: Polynomial) -> bool | None:
    """Whether it is 0 for all real values of its variables; None if it cannot be evaluated or is too big.

    Where it is not real, though no i is written, the two formulas are outside their domain: `x√x` is `√(x³)`.
    """
    import mpmath

    context = mpmath.mp.clone()
    try:
        found = [_vanishes_at(difference, context, point) for point in range(len(_SIGNS))]
    except _FAILURES:
        return None
    return False not in found and True in found


def _vanishes_at(difference: Polynomial, context: Any, point: int) -> bool | None:
    """Whether it is 0 at one point; None outside the domain."""
    for digits in (_COARSE, _FINE):
        context.dps = digits
        evaluation = _Evaluation(context, point)
        value, scale = evaluation.value_and_scale(difference)
        limit = scale * context.mpf(10) ** -int(digits * (1 - _LOST))
        if abs(value) > limit:
            outside = evaluation.variables and not evaluation.imaginary and abs(context.im(value)) > limit
            return None if outside else False
    return True


def approximate(value: Polynomial) -> Any | None:
    """A real number without variables, to `_COARSE` digits; None if it is none."""
    import mpmath

    context = mpmath.mp.clone()
    context.dps = _COARSE
    evaluation = _Evaluation(context, 0)
    try:
        result = evaluation(value)
    except _FAILURES:
        return None
    return None if evaluation.variables or context.im(result) else context.re(result)


class _Evaluation:
    """Values of polynomials at one point; the same variable has the same value everywhere."""

    def __init__(self, context: Any, point: int):
        self._context = context
        self._point = point
        self.variables: set[str] = set()
        self.imaginary = False  # whether i was written somewhere

    def __call__(self, value: Polynomial) -> Any:
        return self.value_and_scale(value)[0]

    def value_and_scale(self, value: Polynomial) -> tuple[Any, Any]:
        """The sum of the terms, and of their sizes, to which a difference is to be compared."""
        total = scale = self._context.mpf(0)
        for (radicand, turn, atoms), factor in value.terms.items():
            if factor.numerator.bit_length() + factor.denominator.bit_length() > _FRACTION_BITS:
                raise TooBig("too many digits")
            term = self._context.mpf(factor.numerator) / factor.denominator
            if radicand > 1:
                term = term * self._context.sqrt(radicand)
            for atom, power in atoms:
                term = term * self._power(self._atom(atom), self._context.mpf(power))
            self.imaginary = self.imaginary or bool(turn)
            total += term * self._context.j if turn else term
            scale += abs(term)
        return self._checked(total), scale

    def _atom(self, atom: Any) -> Any:
        if isinstance(atom, str):
            return self._variable(atom)
        name, *arguments = atom
        if name == "root":
            return self._power(self(arguments[0]), self._context.mpf(1) / arguments[1])
        before, self.variables = self.variables, set()
        values = [self(argument) for argument in arguments]
        if name in ("floor", "ceil") and self.variables:
            raise ValueError("functions that differ may step alike at a few points")
        self.variables |= before
        if name == "inverse":
            return 1 / values[0]
        if name == "pow":
            return self._power(*values)
        if name == "log":
            return self._context.log(values[1]) / self._context.log(values[0])
        if name == "abs":
            return abs(values[0])
        return self._checked(getattr(self._context, name)(*values))

    def _variable(self, name: str) -> Any:
        if name in ("pi", "e"):
            return +getattr(self._context, name)
        self.variables.add(name)
        # Seeded by text: the same point in every process. Both signs, so that √(x²) is not x.
        sign = _SIGNS[self._point][sum(map(ord, name)) % 2]
        return self._context.mpf(sign * random.Random(f"{name} {self._point}").randrange(10**6, 4 * 10**6)) / 10**6

    def _power(self, base: Any, exponent: Any) -> Any:
        if base == 0:
            if self._context.re(exponent) <= 0:
                raise ZeroDivisionError("a power of 0")
            return base
        if abs(exponent) * abs(self._context.log(abs(base))) > _MAGNITUDE_BITS:
            raise TooBig("a power")
        return self._checked(base**exponent)

    def _checked(self, value: Any) -> Any:
        """The value, if it is finite and of ordinary size. Raises TooBig."""
        if not self._context.isfinite(value):
            raise ValueError("not finite")
        if value and abs(self._context.mag(value)) > _MAGNITUDE_BITS:
            raise TooBig("a number beyond all size")
        return value
