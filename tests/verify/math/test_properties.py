"""Random values in random forms, with SymPy as the oracle: equal ones are correct, unequal ones are not."""

import random
import secrets

import pytest

from helpers import random_answers
from nft_jax.verify import grade


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
        verdict = grade(rf"So it is $\boxed{{{given}}}$.", gold)
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
    faults = [pair for pair in pairs if (grade(rf"\boxed{{{pair[0]}}}", pair[1]).status == "correct") != pair[2]]
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


@pytest.mark.slow
def test_math_agrees_with_sympy_on_ten_thousand_random_answers():
    seed, faults = find_faults(10_000)
    assert not [fault for fault in faults if not fault[2]], f"false positives, seed {seed}"
    assert len(faults) <= 100, (seed, faults)
