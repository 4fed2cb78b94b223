"""The normal form of problems: which texts pose the same problem, and which answers are the same."""

import pytest

from nft_jax.data.normal_form import answer_key, normal_form


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Find $x$.", "find  x"),
        ("What is $x + 1$?", "What is\n$$x+1?$$"),
        ("Compute \\(x\\)", "Compute $x$:"),
        ("\\[xy + z = 160.\\]", "$x y+z=160$"),
        ("$\\left( 1, 2 \\right)$", "$(1,2)$"),
        ("$\\bigl(x\\Bigr)$", "(x)"),
        ("$\\dfrac{1}{2} \\tfrac{x}{y}$", "$\\frac 12 \\frac{x} {y}$"),
        ("$x_{1} + x^{10}$", "$x_1+x^{10}$"),
        ("$1,000,000$ and $2{,}000$ and $3,\\!000$", "1000000 and 2000 and 3000"),
        ("\\{1,2,\\ldots,9\\}", "$\\{ 1, 2, \\dots, 9 \\}$"),
        ("$5 \\text{ if } x \\leq 3$", "$5 \\mathrm{if} x ≤ 3$"),
        ("$3 \\times 4 \\cdot 5$", "$3 × 4 * 5$"),
        ("$\\displaystyle\\sum\\limits_{i}$", "\\sum_i"),
        ("\\begin{align*}x&=1,\\\\y&=2\\end{align*}", "x = 1\ny = 2"),
        ("“the angle’s” 3−2", '"the angle\'s" 3-2'),
        ("\\triangle ABC at 70\\%", "triangle ABC at 70%"),
        ("ｘ＋１", "x+1"),
        ("设 $x$ ，则", "设 x，则"),
    ],
)
def test_normal_form_ignores_layout(one, other):
    assert normal_form(one) == normal_form(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1+1", "1-1"),
        ("1 2", "12"),
        ("1.5", "15"),
        ("1,5", "15"),
        ("3:4", "34"),
        ("5!", "5"),
        ("\\sin x", "\\cos x"),
        ("\\tan 22.5", "\\tan 225"),
        ("x^{a+b}", "x^{a}+b"),
        ("x_2", "x^2"),
        ("\\frac{12}{5}", "\\frac{1}{25}"),
        ("\\{x\\}", "{x}"),
        ("(a+b)c", "a+(bc)"),
        ("x < 1", "x \\le 1"),
        ("x > 1", "x < 1"),
        ("|x|", "x"),
        ("面积", "周长"),
    ],
)
def test_normal_form_keeps_mathematics(one, other):
    assert normal_form(one) != normal_form(other)


def test_answer_key_of_numbers_and_text():
    for one, other in (("5", "5.0"), ("025", "25"), ("$1{,}000$", "1000"), ("1/2", "0.5"), ("7-2\\pi", "7 - 2 \\pi")):
        assert answer_key(one) == answer_key(other)
    for one, other in (("5", "-5"), ("5", "6"), ("1/0", "1"), ("(1,2)", "(2,1)"), ("", "0")):
        assert answer_key(one) != answer_key(other)
