"""When a round of partial rollouts ends: whole groups, each once, none older than the bound, for random lengths."""

import numpy as np
import pytest

from nft_jax.rollout.rounds import may_end


def simulate(rng, leaving, most, steps):
    """Groups that work at random; yields the ages of those that leave, and their draws."""
    pool = leaving * (1 + most)
    draw_Q, age_Q, begun_Q = np.arange(pool), np.zeros(pool, int), np.zeros(pool, bool)
    # Trips that a group takes: most of them few, some very many.
    left_Q = rng.geometric(rng.choice([0.9, 0.05], pool))
    for _ in range(steps):
        age_Q = np.where(begun_Q, age_Q + 1, 0)
        slots = rng.integers(1, pool + 1)
        while not may_end(left_Q > 0, age_Q, leaving, most):
            busy_Q = (left_Q > 0) & (np.cumsum(left_Q > 0) <= slots)
            begun_Q |= busy_Q | (np.arange(pool) < np.flatnonzero(busy_Q).max())
            left_Q = left_Q - busy_Q
        leaves = np.flatnonzero(left_Q == 0)[:leaving]
        assert len(leaves) == leaving
        yield age_Q[leaves], draw_Q[leaves]
        stays = np.setdiff1d(np.arange(pool), leaves)
        draw_Q = np.concatenate([draw_Q[stays], draw_Q.max() + 1 + np.arange(leaving)])
        left_Q = np.concatenate([left_Q[stays], rng.geometric(rng.choice([0.9, 0.05], leaving))])
        age_Q, begun_Q = (np.concatenate([x[stays], np.zeros(leaving, x.dtype)]) for x in (age_Q, begun_Q))


@pytest.mark.parametrize("seed", range(20))
def test_may_end_bounds_the_age_of_every_group(seed):
    rng = np.random.default_rng(seed)
    leaving, most = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    ages, draws = zip(*simulate(rng, leaving, most, steps=60), strict=True)
    print(f"{seed=} {leaving=} {most=}")
    assert 0 < max(age.max() for age in ages) <= most
    left = np.concatenate(draws)
    assert len(set(left.tolist())) == len(left)
    # No draw stays behind: by its age, each of the early ones has left.
    assert set(range(leaving * (60 - most))) <= set(left.tolist())


def test_may_end_ends_a_round_as_soon_as_it_may():
    """With one more unfinished group of some age, the bound would be broken at a later step."""
    unfinished_Q, age_Q = np.array([1, 1, 0, 0, 1, 1], bool), np.array([2, 1, 1, 1, 0, 0])
    assert not may_end(unfinished_Q, age_Q, leaving=2, most=2)  # one of age 2 must leave
    assert may_end(unfinished_Q & (age_Q < 2), age_Q, leaving=2, most=2)
    assert not may_end(np.array([0, 1, 1, 1, 0, 0], bool), age_Q, leaving=2, most=2)  # three would be of age 2 next
    assert not may_end(np.array([0, 1, 1, 0, 1, 1, 1, 1, 1], bool), np.zeros(9, int), leaving=3, most=2)
