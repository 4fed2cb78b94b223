"""`parse`: the kinds of values, and what it refuses."""

from fractions import Fraction

import pytest

from nft_jax.verify.math.polynomial import TooBig, atom, number
from nft_jax.verify.math.reader import LENGTH_LIMIT, parse
from nft_jax.verify.math.scanner import DEPTH_LIMIT, Unreadable
from nft_jax.verify.math.values import INFINITY, Group, Matrix, Relation, Scalar, SetUnion, Words

ONE, TWO = Scalar(number(1), decimals=0), Scalar(number(2), decimals=0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.50", Scalar(number(Fraction(1, 2)), decimals=2)),
        (r"50\%", Scalar(number(50), decimals=0, percent=True)),
        ("1, 2", Group("", (ONE, TWO), "")),
        ("(1, 2)", Group("(", (ONE, TWO), ")")),
        ("]1, 2]", Group("(", (ONE, TWO), "]")),
        (r"\{1, 2\}", Group("{", (ONE, TWO), "}")),
        ("1:2:1", Group(":", (ONE, TWO, ONE), ":")),
        (
            r"(-\infty, 1) \cup [2, 2]",
            SetUnion((Group("(", (Scalar(-INFINITY), ONE), ")"), Group("[", (TWO, TWO), "]"))),
        ),
        (r"1 \le x < 2", Relation((ONE, Scalar(atom("x")), TWO), ("≤", "<"))),
        (r"\begin{pmatrix} 1 & 2 \\ 2 & 1 \end{pmatrix}", Matrix(((ONE, TWO), (TWO, ONE)))),
        ("an even number", Words("an even number")),
    ],
)
def test_parse_returns_each_kind_of_value(text, value):
    assert parse(text) == value


@pytest.mark.parametrize("text", ["", "(1", "(1]", "x_{}", "x_", r"\frac{1}", r"\unknown", "1 2", r"\sqrt[0]{2}", "|1"])
def test_parse_refuses_what_does_not_follow_the_grammar(text):
    with pytest.raises(Unreadable):
        parse(text)


@pytest.mark.parametrize("text", ["(" * DEPTH_LIMIT + "(1)" + ")" * DEPTH_LIMIT, "1" * (LENGTH_LIMIT + 1)])
def test_parse_refuses_what_is_too_deep_or_too_long(text):
    with pytest.raises(TooBig):
        parse(text)
