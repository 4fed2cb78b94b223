"""The table of rules in the verifier's README, and work that is bounded without a clock."""

import re
from pathlib import Path

import pytest

from nft_jax.verify import check_reference, grade
from nft_jax.verify.math.evaluate import Budget, is_zero
from nft_jax.verify.math.reader import read
from nft_jax.verify.math.values import Text

README = Path(__file__).resolve().parents[3] / "nft_jax" / "verify" / "README.md"
ROWS = re.findall(r"^\| `(.+?)` \| `(.+?)` \| (correct|incorrect) \|", README.read_text(encoding="utf-8"), re.M)


def test_readme_has_rules():
    assert len(ROWS) > 40


@pytest.mark.parametrize(("given", "gold", "status"), ROWS)
def test_math_follows_the_rules_of_its_readme(given, gold, status):
    assert grade(rf"\boxed{{{given}}}", gold).status == status
    assert check_reference(gold) is None


@pytest.mark.parametrize(
    ("given", "gold"),
    [
        (r"\sqrt[5]{3999!}", "7"),
        (r"\sqrt[5]{3999!}+1", r"\sqrt[5]{3999!}"),
        (r"\sum_{n=0}^{\infty}(n+1)(n+2)x^n", r"\frac{2}{(1-x)^3}"),
        (r"\sum_{k=1}^{500}\sum_{j=1}^{500}\sum_{i=1}^{500} ijk", "1"),
        ("9^{9^{9^{9}}}", "9^{9^{9}}"),
        ("((((2^{999})^{999})^{999})^{999})", "2"),
        (r"1\frac{1}{" * 30 + "x" + "}" * 30, "y"),
        ("(" * 30 + "x" + ")^2" * 30, "x"),  # this would never end if brackets were read twice
        (r"\binom{10^9}{10^8}", "3"),
        ("(" * 500 + "x" + ")" * 500, "x"),
        (",".join("x" * 400), "5"),
        (",".join(map(str, range(400))), ",".join(map(str, range(399)))),
        ("x^{999999}-1", "(x-1)"),
        (r"\sin(10^{300000})", r"\cos(10^{300000})"),
        ("5", "7" * 5_000_000),
        ("7" * 4000, "5"),
        ("all real numbers except " * 80 + "2", "5"),
        (r"\lfloor \cosh 10^{16} \rfloor", r"\lfloor \cosh 10^{16} \rfloor + 1"),  # needs 10^16 bits
    ],
)
def test_grade_bounds_its_work_by_steps(given, gold, monkeypatch):
    spent = []
    spend = Budget.spend
    monkeypatch.setattr(Budget, "spend", lambda self, steps: (spent.append(steps), spend(self, steps))[1])
    assert grade(rf"\boxed{{{given}}}", gold).status in ("incorrect", "unparsed")
    assert sum(spent) < 100_000


@pytest.mark.parametrize("exponent", [20, 100, 1000, 2000])
def test_is_zero_finds_any_difference_that_a_large_term_hides(exponent):
    huge = rf"e^{{{exponent}}}"
    zero, tiny = (
        read(text).expression
        for text in (rf"{huge}(\sin^2 1+\cos^2 1-1)", rf"{huge}(\sin^2 1+\cos^2 1-1)+e^{{-{exponent}}}")
    )
    assert is_zero(zero, {}, Budget(10**9))
    assert not is_zero(tiny, {}, Budget(10**9))


@pytest.mark.parametrize("text", ["奇数", "да", "x⁵∘", r"\foo{\bar}", "1 2", "5!!!", "(1,2", "2024-01-02"])
def test_read_keeps_what_the_grammar_does_not_cover_whole(text):
    value = read(text)
    assert isinstance(value, Text)
    assert grade(rf"\boxed{{{text}}}", text).status == "correct"
    assert grade(rf"\boxed{{{text}'}}", text).status != "correct"
