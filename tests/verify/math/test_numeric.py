"""`vanishes`: equality of formulas with functions, by evaluation."""

from fractions import Fraction

from nft_jax.verify.math.functions import function, inverse, power, root
from nft_jax.verify.math.numeric import vanishes
from nft_jax.verify.math.polynomial import atom, number


def test_vanishes_sees_differences_below_any_float():
    x = atom("x")
    sine = function("sin", x)
    cosine = function("cos", x)
    assert vanishes(sine * sine + cosine * cosine - number(1)) is True
    assert vanishes(sine * sine + cosine * cosine - number(1 + Fraction(1, 10**100))) is False
    assert vanishes(function("sin", x + number(Fraction(1, 10**90))) - sine) is False
    assert vanishes(root(x * x, 2) - x) is False
    assert vanishes(inverse(x + number(1)) * (x + number(1)) - number(1)) is True


def test_vanishes_is_none_where_nothing_can_be_evaluated():
    tower = number(10)
    for _ in range(3):
        tower = power(number(10), root(tower, 7) * number(10**9) + atom("x"))
    assert vanishes(tower - number(1)) is None
    assert vanishes(function("sin", number(10**400)) - number(1)) is None
