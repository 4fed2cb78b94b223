"""Random values in random forms, by SymPy or by construction: equal ones are correct, unequal ones are not."""

import random
import secrets
from fractions import Fraction

import pytest

from helpers import random_answers
from nft_jax.verify import grade


def boxed(answer: str) -> str:
    return rf"So it is $\boxed{{{answer}}}$."


def find_faults(count: int) -> tuple[int, list[tuple[str, str, bool]]]:
    """Returns the seed of new pairs, and those whose verdict is not the expected one."""
    seed = secrets.randbelow(10**9)
    print(f"seed {seed}")
    draw, faults = random.Random(seed), []
    for index in range(count):
        kind, value = random_answers.random_answer(draw)
        gold = random_answers.render_answer(kind, value, draw)
        is_same = index % 2 == 0
        other = value if is_same else random_answers.change(kind, value, draw)
        given = random_answers.render_answer(kind, other, draw)
        verdict = grade(boxed(given), gold)
        if (verdict.status == "correct") != is_same:
            faults.append((given, gold, is_same))
    return seed, faults


def test_math_agrees_with_sympy_on_random_answers():
    seed, faults = find_faults(300)
    assert not [fault for fault in faults if not fault[2]], f"false positives, seed {seed}"
    assert len(faults) <= 3, (seed, faults)


@pytest.mark.parametrize("make_pair", [random_answers.sign_pair, random_answers.matrix_pair])
def test_math_keeps_signs_and_multiplies_matrices(make_pair):
    seed = secrets.randbelow(10**9)
    print(f"seed {seed}")
    draw = random.Random(seed)
    pairs = [make_pair(draw) for _ in range(300)]
    faults = [pair for pair in pairs if (grade(boxed(pair[0]), pair[1]).status == "correct") != pair[2]]
    assert faults == [], f"seed {seed}"


def test_math_reads_boxes_with_names_before_them_as_a_list():
    seed = secrets.randbelow(10**9)
    print(f"seed {seed}")
    draw = random.Random(seed)
    for _ in range(50):
        values = [random_answers.random_number(draw)]
        values.append(values[0] + draw.randrange(1, 9))
        values = [random_answers.render(value, draw).replace("{,}", "").replace(",", "") for value in values]
        names = draw.choice((("x", "y"), ("y_1", "y_2"), ("a", "b")))
        opening, closing = draw.choice((("$", "$"), (r"\(", r"\)"), (r"\( ", r" \)")))
        pairs = list(zip(names, values, strict=True))
        boxes = [rf"{opening}{name} = \boxed{{{value}}}{closing}" for name, value in pairs]
        gold = ", ".join(f"{name}={value}" for name, value in pairs)
        assert grade(" and ".join(boxes), gold).status == "correct", (seed, boxes, gold)
        assert grade(f"{boxes[0]} no, {boxes[1]}", gold).status != "correct", (seed, boxes, gold)


def _number_ways(value: Fraction) -> list[str]:
    """Returns ways to write a rational number."""
    top, bottom = value.numerator, value.denominator
    ways = [
        rf"\frac{{{top}}}{{{bottom}}}",
        f"{top}/{bottom}",
        rf"\dfrac{{{3 * top}}}{{{3 * bottom}}}",
        rf"x = \tfrac{{{top}}}{{{bottom}}}",
    ]
    ways += [
        rf"\left(\frac{{{top}}}{{{bottom}}}\right)",
        rf"\frac{{{top}}}{{{bottom}}}\text{{ cm}}",
    ]
    if bottom == 1:
        ways += [f"{top}", f"{top}.00", f"{top:,}", f"{top:,}".replace(",", "{,}"), f"{top:,}".replace(",", r",\!")]
    return ways


def test_math_ignores_formatting_and_rejects_other_numbers():
    draw = random.Random(0)
    for _ in range(300):
        value = Fraction(draw.randrange(-(10**7), 10**7), draw.choice([1, 1, 2, 3, 8, 35]))
        other = value + draw.choice([1, -1, Fraction(1, 1000), value or 1, -2 * value or 1])
        given, gold = draw.choice(_number_ways(value)), draw.choice(_number_ways(value))
        assert grade(boxed(given), gold).status == "correct", (given, gold)
        differing = draw.choice(_number_ways(other))
        assert grade(boxed(differing), gold).status == "incorrect", (differing, gold)


def _formula(draw: random.Random, depth: int) -> tuple[str, str]:
    """Returns the same formula twice, in different writing and order."""
    if depth == 0:
        leaf = draw.choice(["x", "y", r"\pi", r"\sqrt{3}", "2", "7", r"\frac{1}{5}", "i"])
        return leaf, {r"\sqrt{3}": r"\frac{3}{\sqrt3}", r"\frac{1}{5}": "0.2", "2": "(5-3)", r"\pi": "π"}.get(
            leaf, leaf
        )
    (a, b), (c, d) = _formula(draw, depth - 1), _formula(draw, depth - 1)
    kind = draw.randrange(4)
    if kind == 0:
        return f"({a})+({c})", f"({d})+({b})"
    if kind == 1:
        return f"({a})({c})", rf"({d}) \cdot ({b})"
    if kind == 2:
        return f"({a})-({c})", f"-(({d})-({b}))"
    return f"({a})^2", f"({b})*({b})"


def test_math_accepts_rearranged_formulas_and_rejects_changed_ones():
    draw = random.Random(1)
    for _ in range(150):
        one, other = _formula(draw, draw.randrange(1, 4))
        assert grade(boxed(one), other).status == "correct", (one, other)
        assert grade(boxed(other), one).status == "correct", (one, other)
        assert grade(boxed(one), one).status == "correct"
        assert grade(boxed(rf"{one} + \frac{{1}}{{10^{{30}}}}"), other).status == "incorrect", (one, other)
        assert grade(boxed(rf"\sin({one})"), rf"\sin({other})").status in ("correct", "incorrect")


@pytest.mark.slow
def test_math_agrees_with_sympy_on_ten_thousand_random_answers():
    seed, faults = find_faults(10_000)
    assert not [fault for fault in faults if not fault[2]], f"false positives, seed {seed}"
    assert len(faults) <= 100, (seed, faults)
