"""Families of answers that one rule decides: random pairs of each, whose sameness is known."""

import random
import secrets

import pytest

from helpers import random_kinds, random_marks, random_traps, random_words
from nft_jax.verify import grade

KINDS = random_kinds.KINDS + random_marks.KINDS + random_traps.KINDS + random_words.KINDS


@pytest.mark.parametrize("make_pair", KINDS, ids=lambda kind: kind.__name__)
def test_math_decides_every_pair_of_a_kind(make_pair):
    seed = secrets.randbelow(10**9)
    print(f"seed {seed}")
    draw = random.Random(seed)
    pairs = [make_pair(draw) for _ in range(120)]
    faults = [pair for pair in pairs if (grade(rf"\boxed{{{pair[0]}}}", pair[1]).status == "correct") != pair[2]]
    assert faults == [], f"seed {seed}"
