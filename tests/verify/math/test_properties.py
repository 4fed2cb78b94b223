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


@pytest.mark.slow
def test_math_agrees_with_sympy_on_ten_thousand_random_answers():
    seed, faults = find_faults(10_000)
    assert not [fault for fault in faults if not fault[2]], f"false positives, seed {seed}"
    assert len(faults) <= 100, (seed, faults)
