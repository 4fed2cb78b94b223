"""Exact scalars: arithmetic against Python's, roots, limits."""

import cmath
import random
from fractions import Fraction

import pytest

from nft_jax.verify.math import polynomial
from nft_jax.verify.math.numeric import vanishes
from nft_jax.verify.math.polynomial import Polynomial, TooBig, atom, inverse, number, power, root


def _random(draw: random.Random) -> tuple[Polynomial, complex]:
    """A number in Q(√2, √3, √6, i), and its value in floating point."""
    total, value = number(0), 0j
    for radicand in (1, 2, 3, 6):
        for turn in (0, 1):
            factor = Fraction(draw.randrange(-5, 6), draw.randrange(1, 5))
            total = total + Polynomial({(radicand, turn, ()): factor})
            value += float(factor) * radicand**0.5 * 1j**turn
    return total, value


def _float(value: Polynomial) -> complex:
    return sum(float(factor) * key[0] ** 0.5 * 1j ** key[1] for key, factor in value.terms.items())


def test_arithmetic_agrees_with_floating_point():
    draw = random.Random(0)
    for _ in range(200):
        (a, x), (b, y) = _random(draw), _random(draw)
        assert cmath.isclose(_float(a + b), x + y, abs_tol=1e-9)
        assert cmath.isclose(_float(a - b), x - y, abs_tol=1e-9)
        assert cmath.isclose(_float(a * b), x * y, abs_tol=1e-6)
        assert a * b == b * a
        assert (a + b) * a == a * a + b * a
        assert hash(a * b) == hash(b * a)


@pytest.mark.parametrize(
    "value", [Fraction(n, d) for n in (-50, -8, -1, 0, 1, 2, 12, 49, 999, 10**12 + 39) for d in (1, 2, 9, 98)]
)
def test_a_square_root_squares_to_its_radicand(value):
    found = root(number(value), 2)
    assert found * found == number(value) or found.opaque


@pytest.mark.parametrize("whole", [1, 5, 101, 9973])
@pytest.mark.parametrize("radicand", [1, 2, 6, 101])
def test_squares_are_taken_out_of_a_root(whole, radicand):
    assert root(number(whole**2 * radicand), 2) == number(whole) * root(number(radicand), 2)
    assert not root(number(whole**2 * radicand), 2).opaque


@pytest.mark.parametrize("degree", [2, 3, 5, 64])
def test_whole_roots_are_exact(degree):
    for base in (0, 1, 2, 7, 10**4):
        assert root(number(base**degree), degree) == number(base)
    assert root(number(Fraction(8, 27) ** degree), degree) == number(Fraction(8, 27))
    assert root(number(2**degree + 1), degree).rational is None


def test_powers():
    x = atom("x")
    assert power(x + number(1), number(2)) == x * x + x + x + number(1)
    assert power(x, number(-2)) * x * x == number(1)
    assert power(number(Fraction(2, 3)), number(-3)) == number(Fraction(27, 8))
    assert power(number(4), number(Fraction(3, 2))) == number(8)
    assert power(number(-1), number(10**9 + 1)) == number(-1)
    with pytest.raises(ZeroDivisionError):
        power(number(0), number(-1))


@pytest.mark.parametrize(
    "value",
    [
        lambda: power(number(2), number(10**6)),
        lambda: power(atom("x") + number(1), number(65)),
        lambda: power(power(number(10), number(4000)), number(10)),
        lambda: polynomial.factorial(number(5000)),
        lambda: polynomial.binomial(number(10**5), number(5)),
    ],
)
def test_what_is_too_big_is_said_at_once(value):
    with pytest.raises(TooBig):
        value()


def test_vanishing_is_decided_beyond_any_float():
    x = atom("x")
    sine = polynomial.function("sin", x)
    cosine = polynomial.function("cos", x)
    assert vanishes(sine * sine + cosine * cosine - number(1)) is True
    assert vanishes(sine * sine + cosine * cosine - number(1 + Fraction(1, 10**100))) is False
    assert vanishes(polynomial.function("sin", x + number(Fraction(1, 10**90))) - sine) is False
    assert vanishes(root(x * x, 2) - x) is False
    assert vanishes(inverse(x + number(1)) * (x + number(1)) - number(1)) is True


def test_what_cannot_be_evaluated_is_undecided():
    tower = number(10)
    for _ in range(3):
        tower = polynomial.power(number(10), root(tower, 7) * number(10**9) + atom("x"))
    assert vanishes(tower - number(1)) is None
    assert vanishes(polynomial.function("sin", number(10**400)) - number(1)) is None


def test_long_numbers_are_compared_and_sorted_without_being_written_in_decimal():
    long = power(number(7), number(10_000))  # Python refuses to write more than 4300 digits
    x = polynomial.function("sin", long) * polynomial.function("cos", long)
    assert x == polynomial.function("cos", long) * polynomial.function("sin", long)
    assert vanishes(x - number(1)) is None
    assert repr(x + long)
