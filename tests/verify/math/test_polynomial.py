"""`Polynomial`: arithmetic against Python's, and long numbers."""

import cmath
import random
from fractions import Fraction

from nft_jax.verify.math.functions import function, power
from nft_jax.verify.math.numeric import vanishes
from nft_jax.verify.math.polynomial import Polynomial, number


def _random(draw: random.Random) -> tuple[Polynomial, complex]:
    """Returns a number in Q(√2, √3, √6, i), and its value in floating point."""
    total, value = number(0), 0j
    for radicand in (1, 2, 3, 6):
        for imaginary in (0, 1):
            factor = Fraction(draw.randrange(-5, 6), draw.randrange(1, 5))
            total = total + Polynomial({(radicand, imaginary, ()): factor})
            value += float(factor) * radicand**0.5 * 1j**imaginary
    return total, value


def _float(value: Polynomial) -> complex:
    return sum(float(factor) * key[0] ** 0.5 * 1j ** key[1] for key, factor in value.terms.items())


def test_polynomial_arithmetic_agrees_with_floating_point():
    draw = random.Random(0)
    for _ in range(200):
        (a, x), (b, y) = _random(draw), _random(draw)
        assert cmath.isclose(_float(a + b), x + y, abs_tol=1e-9)
        assert cmath.isclose(_float(a - b), x - y, abs_tol=1e-9)
        assert cmath.isclose(_float(a * b), x * y, abs_tol=1e-6)
        assert a * b == b * a
        assert (a + b) * a == a * a + b * a
        assert hash(a * b) == hash(b * a)


def test_polynomials_of_long_numbers_are_compared_without_decimal_text():
    long = power(number(7), number(10_000))  # Python refuses to write more than 4300 digits
    x = function("sin", long) * function("cos", long)
    assert x == function("cos", long) * function("sin", long)
    assert vanishes(x - number(1)) is None
    assert repr(x + long)
