"""Groups: rewards from verdicts, the band of dynamic sampling, the pool's order and limit, and the statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import random_groups
from nft_jax.types import Rollout
from nft_jax.update.groups import (
    RATE_BINS,
    add_statistics,
    append_groups,
    empty_groups,
    empty_statistics,
    make_groups,
    select_groups,
)
from nft_jax.verify.callback import NOT_GRADED, HostReport
from nft_jax.verify.grade import STATUSES

Q, K, T = 6, 4, 7


def test_make_groups_counts_a_truncated_answer_as_incorrect():
    correct, incorrect = STATUSES.index("correct"), STATUSES.index("incorrect")
    verdict_QK = np.array([[correct, correct, incorrect, incorrect], [incorrect] * 4], np.int32)
    truncated_QK = np.array([[False, True, False, True], [False] * 4])
    random = np.random.default_rng(0)
    rollout = Rollout(
        random.integers(0, 9, (8, T)), random.random((8, T), np.float32), np.arange(8), truncated_QK.ravel()
    )
    groups = make_groups(np.array([5, 3]), rollout, verdict_QK.ravel(), np.full(8, 0.5, np.float32))
    np.testing.assert_array_equal(groups.graded_QK, np.where(truncated_QK, 0, 0.5))
    np.testing.assert_array_equal(groups.reward_QK, [[1, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(groups.rate_Q, [0.25, 0])
    np.testing.assert_array_equal(groups.verdict_QK, verdict_QK)
    np.testing.assert_array_equal(groups.prompt_Q, [5, 3])
    np.testing.assert_array_equal(groups.token_QKT, rollout.token_BT.reshape(2, 4, T))
    np.testing.assert_array_equal(groups.length_QK, [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert groups.reward_QK.dtype == groups.rate_Q.dtype == np.float32


@pytest.mark.parametrize(
    ("which", "low", "high", "expected"),
    [
        ("mixed", 0.0, 1.0, [0, 1, 1, 1, 0]),
        ("mixed", 0.25, 0.75, [0, 0, 1, 0, 0]),
        ("all", 0.25, 0.75, [1, 1, 1, 1, 1]),
        ("some_incorrect", 0.25, 1.0, [1, 1, 1, 1, 0]),
    ],
)
def test_select_groups_excludes_both_ends_of_the_band(which, low, high, expected):
    groups = empty_groups(5, K, T)._replace(rate_Q=np.array([0, 0.25, 0.5, 0.75, 1], np.float32))
    np.testing.assert_array_equal(select_groups(groups, which, low, high), np.array(expected, bool))


def test_groups_without_a_contrast_never_train_whatever_their_size():
    """The mean of K ones is not 1 for each K: the compiler multiplies by 1 / K."""
    correct, incorrect = STATUSES.index("correct"), STATUSES.index("incorrect")

    @functools.partial(jax.jit, static_argnums=0)
    def rates_and_choices(count):
        verdict_QK = jnp.full((3, count), correct, jnp.int32).at[1, 0].set(incorrect).at[2].set(incorrect)
        length_B = jnp.ones(3 * count, jnp.int32)
        rollout = Rollout(length_B[:, None], jnp.zeros((3 * count, 1)), length_B, jnp.zeros(3 * count, bool))
        ones = verdict_QK == correct
        groups = make_groups(jnp.arange(3), rollout, verdict_QK.ravel(), ones.ravel().astype(jnp.float32))
        kept = [
            select_groups(groups, which, 0.0, 1.0, by_verdicts=by_verdicts)
            for which in ("mixed", "some_incorrect")
            for by_verdicts in (False, True)
        ]
        return groups.rate_Q, jnp.stack(kept)

    for count in (2, 3, 16, *np.random.default_rng(0).integers(4, 130, 8).tolist(), 41, 47, 97):
        rate_Q, kept = rates_and_choices(count)
        assert (rate_Q[0], rate_Q[2]) == (1, 0), count
        np.testing.assert_allclose(rate_Q[1], 1 - 1 / count, rtol=1e-6)
        np.testing.assert_array_equal(kept, [[0, 1, 0]] * 2 + [[0, 1, 1]] * 2, err_msg=str(count))


def test_select_groups_chooses_by_rewards_unless_a_loss_learns_by_verdicts():
    graded_QK = np.array([[0, 0, 0, 0], [0.2, 0.2, 0.2, 0.2], [0.1, 0.3, 0, 0], [1, 1, 0.9, 1], [1] * 4], np.float32)
    groups = empty_groups(5, K, T, True)._replace(graded_QK=graded_QK, rate_Q=np.float32([0, 0, 0, 0.75, 1]))
    for which, by_verdicts, expected in (
        ("mixed", False, [0, 0, 1, 1, 0]),
        ("mixed", True, [0, 0, 0, 1, 0]),
        ("some_incorrect", False, [1, 1, 1, 1, 0]),
    ):
        kept_Q = select_groups(groups, which, 0.0, 1.0, by_verdicts=by_verdicts)
        np.testing.assert_array_equal(kept_Q, np.array(expected, bool))


def test_append_groups_fills_the_pool_in_order_and_drops_the_surplus():
    groups, capacity = random_groups(0, Q, K, T), 5
    pool, count, kept, stops = empty_groups(capacity, K, T), np.int32(0), [], []
    for keep in ([1, 0, 0, 1, 0, 0], [0] * 6, [0, 0, 0, 0, 0, 1], [1, 1, 0, 1, 1, 0], [1] * 6):
        keep_Q = np.array(keep, bool)
        pool, count = append_groups(pool, count, groups, keep_Q)
        kept += np.flatnonzero(keep_Q).tolist()
        stops.append(int(count))
        for room, offered in zip(*map(jax.tree.leaves, (pool, groups)), strict=True):
            expected = offered[kept[:capacity]]
            np.testing.assert_array_equal(room[: len(expected)], expected)
            assert not np.any(room[len(expected) :])
    assert stops == [2, 2, 3, 5, 5]


def test_add_statistics_counts_every_round():
    rounds = [random_groups(seed, Q, K, T) for seed in (1, 2)]
    status_QK = np.random.default_rng(3).integers(0, len(STATUSES), (2, Q, K)).astype(np.int32)
    kept_Q = np.array([1, 0, 1, 1, 0, 0], bool)
    rounds = [groups._replace(verdict_QK=status) for groups, status in zip(rounds, status_QK, strict=True)]
    # A second grader judged all answers but the first of each prompt.
    second_QK = np.random.default_rng(4).integers(0, len(STATUSES), (2, Q, K)).astype(np.int32)
    second_QK[:, :, 0] = NOT_GRADED
    total = empty_statistics()
    for groups, second in zip(rounds, second_QK, strict=True):
        host = HostReport(second.reshape(-1), np.array([0.5, 2.0, 1.0], np.float32))
        total = add_statistics(total, groups, host, np.array([7, 8], np.int32), kept_Q=kept_Q)
    total = jax.device_get(total)
    both = jax.tree.map(lambda a, b: np.concatenate([a, b]), *rounds)
    assert (total.groups, total.answers, total.kept, total.seconds) == (2 * Q, 2 * Q * K, 6, 4.0)
    assert (total.compared, total.capacity) == (2 * Q * (K - 1), 30)
    one_is_correct = (status_QK == STATUSES.index("correct")) != (second_QK == STATUSES.index("correct"))
    assert total.disagreements == one_is_correct[:, :, 1:].sum() > 0
    assert total.tokens == both.length_QK.sum()
    assert total.truncated == both.truncated_QK.sum() > 0
    assert total.reward == both.reward_QK.sum()
    assert total.longest == both.length_QK.max()
    np.testing.assert_array_equal(total.verdicts, np.bincount(status_QK.ravel(), minlength=len(STATUSES)))
    bins = np.round(both.rate_Q * (RATE_BINS - 1)).astype(int)
    np.testing.assert_array_equal(total.rates, np.bincount(bins, minlength=RATE_BINS))
    assert all(x.dtype == np.float32 for x in total)
