"""No answer that is made to match any reference answer is `correct`."""

import random
import secrets

import pytest

from helpers.reward_keys import responses
from nft_jax.verify import grade


def find_rewarded(count: int) -> tuple[int, list[tuple[str, str]]]:
    """Returns the seed of a new suite, and its pairs that are rewarded."""
    seed = secrets.randbelow(10**9)
    print(f"seed {seed}")
    pairs = responses(count, random.Random(seed))
    return seed, [pair for pair in pairs if grade(*pair).status in ("correct", "error")]


def test_math_rewards_no_key_of_any_gold():
    seed, rewarded = find_rewarded(3000)
    assert rewarded == [], f"seed {seed}"


@pytest.mark.slow
def test_math_rewards_no_key_among_thirty_thousand():
    seed, rewarded = find_rewarded(30_000)
    assert rewarded == [], f"seed {seed}"
