"""Functions of exact scalars: quotients, powers, roots, factorials and absolute values.

Each is computed exactly where the result is rational or a square root; elsewhere it stays an atom of a polynomial.
"""

import math
from fractions import Fraction

from .polynomial import BITS_LIMIT, IMAGINARY, Polynomial, TooBig, atom, number

POWER_LIMIT = 64  # of a sum with more than one term
FACTORIAL_LIMIT = 4000
RADICAND_LIMIT = 10**12  # squares are not taken out of a larger one, because that needs its prime factors


def inverse(value: Polynomial) -> Polynomial:
    """Returns 1 / value.

    Raises:
      ZeroDivisionError: for 0.
    """
    if not value:
        raise ZeroDivisionError("a division by 0")
    if len(value.terms) > 1:
        return number(1 / value.leading_factor) * atom(("inverse", value.to_monic()))
    ((radicand, imaginary, atoms), factor) = next(iter(value.terms.items()))
    # 1/√r = √r/r and 1/i = -i.
    key = (radicand, imaginary, tuple((a, -power) for a, power in atoms))
    return Polynomial({key: (-1 if imaginary else 1) / (factor * radicand)})


def power(base: Polynomial, exponent: Polynomial) -> Polynomial:
    """Returns base ** exponent.

    Raises:
      TooBig: for a result that is too long.
      ZeroDivisionError: for a negative power of 0.
    """
    value = exponent.rational
    if value is None:
        return atom(("pow", base, exponent))
    if value.denominator > 1:
        return _whole_power(root(base, value.denominator), value.numerator)
    return _whole_power(base, value.numerator)


def _whole_power(base: Polynomial, exponent: int) -> Polynomial:
    if exponent < 0:
        return _whole_power(inverse(base), -exponent)
    value = base.rational
    if value is not None:
        bits = max(value.numerator.bit_length(), value.denominator.bit_length())
        if value not in (0, 1, -1) and bits * exponent > BITS_LIMIT:
            raise TooBig(f"a power has more than {BITS_LIMIT} bits")
        return number(value ** (exponent if value not in (1, -1) else exponent % 2))
    if len(base.terms) == 1 and exponent <= BITS_LIMIT:
        return _product_power(base, exponent)
    if exponent > POWER_LIMIT:
        raise TooBig(f"a sum has an exponent above {POWER_LIMIT}")
    result = number(1)
    for _ in range(exponent):
        result = result * base
    return result


def _product_power(base: Polynomial, exponent: int) -> Polynomial:
    """Returns the power of a single term, by repeated squaring."""
    result = number(1)
    while exponent:
        if exponent & 1:
            result = result * base
        exponent >>= 1
        if exponent:
            base = base * base
    return result


def root(base: Polynomial, degree: int) -> Polynomial:
    """Returns the principal root: exactly where it is rational, or the square root of a rational number."""
    value = base.rational
    if value is None or (degree > 2 and value < 0) or degree > BITS_LIMIT:
        return atom(("root", base, degree))
    if degree == 2:
        return _square_root(value)
    top, bottom = _whole_root(value.numerator, degree), _whole_root(value.denominator, degree)
    return atom(("root", base, degree)) if top is None or bottom is None else number(Fraction(top, bottom))


def _whole_root(value: int, degree: int) -> int | None:
    """Returns the integer root of `value` of this degree, by bisection; None if there is none."""
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**degree < value else (low, middle)
    return low if low**degree == value else None


def _square_root(value: Fraction) -> Polynomial:
    """Returns √(p/q) = √(pq)/q, with all squares taken out of pq; √-1 = i."""
    product = abs(value.numerator) * value.denominator
    whole = math.isqrt(product)
    if whole * whole == product:
        result = number(Fraction(whole, value.denominator))
    elif product > RADICAND_LIMIT:
        result = atom(("root", number(abs(value)), 2))
    else:
        outside, inside = _split_squares(product)
        result = Polynomial({(inside, 0, ()): Fraction(outside, value.denominator)})
    return result * IMAGINARY if value < 0 else result


def _split_squares(value: int) -> tuple[int, int]:
    """Returns (a, b) with value = a²b and b square-free.

    It divides by the primes up to the cube root; the rest is then p, pq or p².
    """
    outside, inside, prime = 1, 1, 2
    while prime * prime * prime <= value:
        while value % (prime * prime) == 0:
            value //= prime * prime
            outside *= prime
        if value % prime == 0:
            value //= prime
            inside *= prime
        prime += 1 if prime == 2 else 2
    whole = math.isqrt(value)
    return (outside * whole, inside) if whole * whole == value else (outside, inside * value)


def factorial(value: Polynomial) -> Polynomial:
    """Returns value!

    Raises:
      TooBig: above `FACTORIAL_LIMIT`.
    """
    whole = value.rational
    if whole is None or whole.denominator > 1 or whole < 0:
        return atom(("factorial", value))
    if whole > FACTORIAL_LIMIT:
        raise TooBig(f"a factorial is above {FACTORIAL_LIMIT}!")
    return number(math.factorial(int(whole)))


def binomial(top: Polynomial, bottom: Polynomial) -> Polynomial:
    """Returns the binomial coefficient `top` over `bottom`.

    Raises:
      TooBig: for a `top` above `FACTORIAL_LIMIT`.
    """
    n, k = top.rational, bottom.rational
    if n is None or k is None or n.denominator > 1 or k.denominator > 1 or n < 0 or k < 0:
        return atom(("binomial", top, bottom))
    if n > FACTORIAL_LIMIT:
        raise TooBig(f"a binomial coefficient is of more than {FACTORIAL_LIMIT}")
    return number(math.comb(int(n), int(k)))


def absolute(value: Polynomial) -> Polynomial:
    """Returns |value|."""
    rational = value.rational
    return atom(("abs", value)) if rational is None else number(abs(rational))


def function(name: str, *arguments: Polynomial) -> Polynomial:
    """Returns a function as an atom, which only `numeric.py` evaluates; a rational number is rounded at once."""
    rational = arguments[0].rational
    if rational is not None and name in ("floor", "ceil"):
        return number(getattr(math, name)(rational))
    return atom((name, *arguments))
