"""Operations on numbers that are exact (fmpq) as long as possible, and balls (acb) else; each within a budget."""

import math
from typing import Any

STEPS = 60_000  # of one comparison; a step is one operation at up to 512 bits
EXACT_BITS = 1 << 18  # of a rational number: 20000! has so many


class Undecided(ArithmeticError):
    """The value, or whether it is 0, cannot be decided within the budget."""


class Undefined(ArithmeticError):
    """There is no value: a division by 0, the logarithm of 0."""


class Budget:
    """What is left of the steps of one comparison."""

    def __init__(self, steps: int = STEPS):
        self.left = steps

    def spend(self, steps: int) -> None:
        """Counts steps. Raises Undecided when none are left."""
        self.left -= steps
        if self.left < 0:
            raise Undecided(f"the work exceeds {STEPS} steps")


class Arithmetic:
    """Operations at one precision.

    Attributes:
      flint: the library, imported when the first number needs it.
      bits: the information in the operands so far, in bits.
    """

    def __init__(self, budget: Budget):
        import flint

        self.flint = flint
        self.bits = 0
        self._budget = budget

    def _count(self, value: Any) -> Any:
        """Adds the magnitude of a ball to the information."""
        if isinstance(value, self.flint.acb) and value.is_finite():
            size = abs(value)
            if not size.contains(0):
                mantissa, exponent = size.mid().man_exp()
                self.bits += abs(int(exponent) + int(mantissa).bit_length())
        return value

    def _ball(self, value: Any) -> Any:
        """Returns a ball around a value."""
        if not isinstance(value, self.flint.fmpq):
            return value
        bits = max(value.p.bit_length(), value.q.bit_length())
        self.bits += bits
        self._budget.spend(bits // 4096)
        return self.flint.acb(value)

    def _check(self, value: Any) -> Any:
        """Returns a rational number, or a ball around one that is too long."""
        bits = int(value.p.bit_length() + value.q.bit_length())
        self._budget.spend(bits >> 12)
        return value if bits <= EXACT_BITS else self._ball(value)

    def _add(self, *values: Any) -> Any:
        total = values[0]
        for value in values[1:]:
            if isinstance(total, self.flint.fmpq) and isinstance(value, self.flint.fmpq):
                total = self._check(total + value)
            else:
                total = self._ball(total) + self._ball(value)
        return total

    def _multiply(self, *values: Any) -> Any:
        total = values[0]
        for value in values[1:]:
            if isinstance(total, self.flint.fmpq) and isinstance(value, self.flint.fmpq):
                total = self._check(total * value)
            elif any(is_exact_zero(one) and is_finite(other) for one, other in ((total, value), (value, total))):
                total = self.flint.fmpq(0)
            else:
                total = self._count(self._ball(total) * self._ball(value))
        return total

    def _negative(self, value: Any) -> Any:
        return -value

    def _degree(self, value: Any) -> Any:
        return value

    def _divide(self, top: Any, bottom: Any) -> Any:
        if isinstance(bottom, self.flint.fmpq):
            if bottom == 0:
                raise Undefined("a division by 0")
            return self._multiply(top, 1 / bottom)
        if is_exact_zero(top) and not bottom.contains(0):
            return top
        return self._ball(top) / bottom

    def _power(self, base: Any, exponent: Any) -> Any:
        if isinstance(exponent, self.flint.fmpq):
            if exponent.q == 1:
                return self._whole_power(base, int(exponent.p))
            if exponent.q <= 1000:
                return self._whole_power(self._root(base, self.flint.fmpq(exponent.q)), int(exponent.p))
        if isinstance(base, self.flint.fmpq) and base == 0:
            raise Undefined("a power of 0")
        if isinstance(base, self.flint.fmpq) and base == 1 and is_finite(exponent):
            return base
        self._spend_series(2)
        return self._ball(base) ** self._ball(exponent)

    def _spend_series(self, count: int) -> None:
        """Counts the steps of functions that need a series: their work grows with the square of the precision."""
        self._budget.spend(count * (self.flint.ctx.prec // 512) ** 2 // 8)

    def _whole_power(self, base: Any, exponent: int) -> Any:
        if not isinstance(base, self.flint.fmpq):
            if exponent <= 0 and base.contains(0):
                raise Undecided("a power of 0 may not be positive")
            return base**exponent
        if base == 0:
            if exponent <= 0:
                raise Undefined("a power of 0 that is not positive")
            return base
        if base in (1, -1):
            return base if exponent % 2 else base * base
        if int(base.p.bit_length() + base.q.bit_length()) * abs(exponent) > EXACT_BITS:
            self.bits += exponent.bit_length()
            return self._ball(base) ** exponent
        return self._check(base**exponent)

    def _root(self, value: Any, degree: Any) -> Any:
        """Returns the principal root; of a negative number and an odd degree, the real one."""
        flint = self.flint
        if not isinstance(degree, flint.fmpq) or degree.q != 1:
            return self._power(value, self._divide(flint.fmpq(1), degree))
        if not 1 <= degree.p <= 1000:
            raise Undecided("the degree of a root is not a number up to 1000")
        degree = int(degree.p)
        if isinstance(value, flint.fmpq):
            sign = -1 if value < 0 else 1
            if value == 0 or degree == 1:
                return value
            if sign > 0 or degree % 2:
                top, bottom = abs(value.p).root(degree), value.q.root(degree)
                if top**degree == abs(value.p) and bottom**degree == value.q:
                    return flint.fmpq(sign * top, bottom)
                return flint.acb(self._ball(abs(value)).real.root(degree) * sign)
        value = self._ball(value)
        if value.imag.is_zero() and degree % 2 and value.real < 0:
            return flint.acb(-(-value.real).root(degree))
        return value.sqrt() if degree == 2 else value.root(degree)

    def _log(self, base: Any, value: Any) -> Any:
        if is_exact_zero(value) or is_exact_zero(base) or base == 1:
            raise Undefined("a logarithm of 0 or to base 1")
        if isinstance(value, self.flint.fmpq) and value == 1 and isinstance(base, self.flint.fmpq):
            return value - 1
        self._spend_series(2)
        ball = self._ball(value).log() / self._ball(base).log()
        if isinstance(value, self.flint.fmpq) and isinstance(base, self.flint.fmpq) and abs(ball) < 1 << 14:
            exponent = round(float(ball.real))
            if self._whole_power(base, exponent) == value:
                return self.flint.fmpq(exponent)
        return ball

    def _ln(self, value: Any) -> Any:
        if is_exact_zero(value):
            raise Undefined("the logarithm of 0")
        if isinstance(value, self.flint.fmpq) and value == 1:
            return self.flint.fmpq(0)
        self._spend_series(1)
        return self._ball(value).log()

    def _abs(self, value: Any) -> Any:
        return abs(value) if isinstance(value, self.flint.fmpq) else self.flint.acb(abs(value))

    # Functions of whole numbers

    def _factorial(self, value: Any) -> Any:
        if isinstance(value, self.flint.fmpq) and value.q == 1:
            if value < 0:
                raise Undefined("the factorial of a negative number")
            if value <= 20000:
                self._budget.spend(int(value.p) // 64)
                return self._check(self.flint.fmpq(self.flint.fmpz(math.factorial(int(value.p)))))
        self._spend_series(10)
        return (self._ball(value) + 1).gamma()

    def _double_factorial(self, value: Any) -> Any:
        """Returns the product of every second whole number down from one: 7!! = 7 * 5 * 3."""
        if not isinstance(value, self.flint.fmpq) or value.q != 1 or value > 20000:
            raise Undecided("the double factorial of what is no whole number up to 20000")
        if value < -1:
            raise Undefined("the double factorial of a negative number")
        self._budget.spend(int(value.p) // 64 + 1)
        return self._check(self.flint.fmpq(self.flint.fmpz(math.prod(range(int(value.p), 0, -2)))))

    def _binomial(self, top: Any, bottom: Any) -> Any:
        fmpq = self.flint.fmpq
        if isinstance(top, fmpq) and isinstance(bottom, fmpq) and top.q == bottom.q == 1 and top >= 0:
            if bottom < 0 or bottom > top:
                return fmpq(0)
            if top <= 20000:
                self._budget.spend(int(top.p) // 64)
                return self._check(fmpq(self.flint.fmpz(math.comb(int(top.p), int(bottom.p)))))
        self._spend_series(30)
        top, bottom = self._ball(top), self._ball(bottom)
        return (top + 1).gamma() * (bottom + 1).rgamma() * (top - bottom + 1).rgamma()

    def _floor(self, value: Any) -> Any:
        if isinstance(value, self.flint.fmpq):
            return self.flint.fmpq(value.floor())
        if not value.is_finite() or not abs(value.real) < self.flint.arb(2) ** EXACT_BITS:
            raise Undecided("a whole number is too long")  # FLINT would end the process for want of memory
        low, high = value.real.lower().floor(), value.real.upper().floor()
        if not value.imag.is_zero() or low.unique_fmpz() is None or low.unique_fmpz() != high.unique_fmpz():
            raise Undecided("a number is too close to a whole one")
        return self.flint.fmpq(low.unique_fmpz())

    def _ceil(self, value: Any) -> Any:
        return -self._floor(-value)

    def _mod(self, value: Any, modulus: Any) -> Any:
        if modulus == 0:
            raise Undefined("a remainder of a division by 0")
        return value - modulus * self._floor(value / modulus)

    def _max(self, *values: Any) -> Any:
        return max(self._ordered(values))

    def _min(self, *values: Any) -> Any:
        return min(self._ordered(values))

    def _gcd(self, *values: Any) -> Any:
        return self.flint.fmpq(self.flint.fmpz(math.gcd(*self._whole(values))))

    def _lcm(self, *values: Any) -> Any:
        return self.flint.fmpq(self.flint.fmpz(math.lcm(*self._whole(values))))

    def _ordered(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not all(isinstance(value, self.flint.fmpq) for value in values):
            raise Undecided("numbers are not rational")
        return values

    def _whole(self, values: tuple[Any, ...]) -> list[int]:
        if not all(isinstance(value, self.flint.fmpq) and value.q == 1 for value in values):
            raise Undecided("numbers are not whole")
        return [int(value.p) for value in values]


def is_exact_zero(value: Any) -> bool:
    return type(value).__name__ == "fmpq" and value == 0


def is_finite(value: Any) -> bool:
    return type(value).__name__ == "fmpq" or value.is_finite()
