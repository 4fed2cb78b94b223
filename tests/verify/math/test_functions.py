"""Functions of exact scalars: roots, powers and their limits."""

from fractions import Fraction

import pytest

from nft_jax.verify.math.functions import binomial, factorial, power, root
from nft_jax.verify.math.polynomial import TooBig, atom, number


@pytest.mark.parametrize(
    "value", [Fraction(n, d) for n in (-50, -8, -1, 0, 1, 2, 12, 49, 999, 10**12 + 39) for d in (1, 2, 9, 98)]
)
def test_root_squared_is_the_radicand(value):
    result = root(number(value), 2)
    assert result * result == number(value) or result.has_functions


@pytest.mark.parametrize("whole", [1, 5, 101, 9973])
@pytest.mark.parametrize("radicand", [1, 2, 6, 101])
def test_root_takes_squares_out(whole, radicand):
    assert root(number(whole**2 * radicand), 2) == number(whole) * root(number(radicand), 2)
    assert not root(number(whole**2 * radicand), 2).has_functions


@pytest.mark.parametrize("degree", [2, 3, 5, 64])
def test_root_is_exact_for_whole_roots(degree):
    for base in (0, 1, 2, 7, 10**4):
        assert root(number(base**degree), degree) == number(base)
    assert root(number(Fraction(8, 27) ** degree), degree) == number(Fraction(8, 27))
    assert root(number(2**degree + 1), degree).rational is None


def test_power():
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
        lambda: factorial(number(5000)),
        lambda: binomial(number(10**5), number(5)),
    ],
)
def test_power_factorial_and_binomial_raise_too_big(value):
    with pytest.raises(TooBig):
        value()
