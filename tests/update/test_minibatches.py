"""Minibatches: groups over updates and units over shards, evenly; pairs of a correct and an incorrect answer."""

import collections

import jax
import numpy as np
import pytest

from helpers.small_parts import eight_devices, random_groups, random_prompts
from nft_jax.losses import resolve
from nft_jax.update.minibatches import make_minibatches, units_per_group

Q, K, T, UPDATES, SHARDS = 64, 8, 7, 4, 4
PROMPTS = random_prompts(0, Q)


def numbered_groups(seed=0):
    """Groups in mixed order whose first answer token says which answer it is: prompt · K + place + 1."""
    groups = random_groups(seed, Q, K, T)
    order = np.random.default_rng(seed).permutation(Q)
    groups = jax.tree.map(lambda x: x[order], groups)
    groups.token_QKT[:, :, 0] = groups.prompt_Q[:, None] * K + np.arange(K) + 1
    return groups


@pytest.fixture(scope="module")
def programs():
    """`(loss name) -> jitted deal of (groups, count, key)`."""

    def make(name):
        loss = resolve(name, {})
        return jax.jit(
            lambda groups, count, prompts, key: make_minibatches(
                groups, count, prompts, loss, updates=UPDATES, max_answer_tokens=T, key=key, mesh=eight_devices()
            )
        )

    made = {}
    return lambda name: made.setdefault(name, make(name))


def run_program(program, groups, count, seed=0):
    return jax.device_get(program(groups, np.int32(count), PROMPTS, jax.random.key(seed)))


def spread(counts):
    return counts.max() - counts.min()


@pytest.mark.parametrize("count", [0, 1, 37, 64])
def test_make_minibatches_splits_answers_once_each_and_evenly(programs, count):
    groups = numbered_groups()
    sequences, totals = run_program(programs("grpo"), groups, count)
    present_USM = sequences.present_I
    assert present_USM.shape == (UPDATES, SHARDS, Q * K // UPDATES // SHARDS)
    # Groups over updates; a group's answers stay together.
    number_USM = sequences.answer_IT[..., 0]
    of_update = [set((number_USM[u][present_USM[u]] - 1) // K) for u in range(UPDATES)]
    assert sum(map(len, of_update)) == count == len(set().union(*of_update))
    assert max(map(len, of_update)) - min(map(len, of_update)) <= 1
    # Answers over shards, within an update.
    assert all(spread(present_I.sum(axis=-1)) <= 1 for present_I in present_USM)
    expected = {int(n) for n in groups.token_QKT[:count, :, 0].ravel()}
    assert collections.Counter(number_USM[present_USM].tolist()) == collections.Counter(expected)
    np.testing.assert_array_equal(totals.answers, [len(groups_) * K for groups_ in of_update])
    np.testing.assert_array_equal(totals.tokens, sequences.answer_length_I.sum(axis=(1, 2)))
    assert totals.tokens.sum() == groups.length_QK[:count].sum()
    assert not totals.pairs.any()
    assert not sequences.answer_length_I[~present_USM].any()


def test_make_minibatches_keeps_the_values_of_each_answer(programs):
    groups = numbered_groups()
    sequences, _ = run_program(programs("grpo"), groups, Q)
    row = {prompt: q for q, prompt in enumerate(groups.prompt_Q.tolist())}
    advantage_QK = (groups.reward_QK - groups.rate_Q[:, None]) / groups.reward_QK.std(axis=1, keepdims=True)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), sequences)
    for i, number in enumerate(flat.answer_IT[:, 0] - 1):
        prompt, k = divmod(int(number), K)
        q = row[prompt]
        np.testing.assert_array_equal(flat.prompt_IP[i], PROMPTS.token_QP[prompt])
        np.testing.assert_array_equal(flat.answer_IT[i], groups.token_QKT[q, k])
        assert flat.prompt_length_I[i] == PROMPTS.length_Q[prompt]
        assert flat.answer_length_I[i] == groups.length_QK[q, k]
        assert flat.reward_I[i] == groups.reward_QK[q, k]
        assert flat.rate_I[i] == groups.rate_Q[q]
        np.testing.assert_allclose(flat.advantage_I[i], advantage_QK[q, k], rtol=1e-5)


def pairs_of(sequences):
    """All present pairs, as (number of the first, number of the second)."""
    number_MJ = sequences.answer_IT[..., 0].reshape(-1, 2)
    present_MJ = sequences.present_I.reshape(-1, 2)
    assert np.all(present_MJ[:, 0] == present_MJ[:, 1])
    return [(int(a) - 1, int(b) - 1) for a, b in number_MJ[present_MJ[:, 0]]]


@pytest.mark.parametrize("count", [0, 1, 37, 64])
def test_make_minibatches_pairs_a_correct_and_an_incorrect_answer_of_one_group(programs, count):
    groups = numbered_groups()
    sequences, totals = run_program(programs("dpo"), groups, count)
    reward = {int(n) - 1: r for n, r in zip(groups.token_QKT[:, :, 0].ravel(), groups.reward_QK.ravel(), strict=True)}
    pairs = pairs_of(sequences)
    assert all(correct // K == incorrect // K for correct, incorrect in pairs)
    assert all(reward[correct] == 1 and reward[incorrect] == 0 for correct, incorrect in pairs)
    used = [number for pair in pairs for number in pair]
    assert len(set(used)) == len(used)
    correct_Q = groups.reward_QK[:count].sum(axis=1).astype(int)
    expected = {int(p): min(n, K - n) for p, n in zip(groups.prompt_Q[:count], correct_Q, strict=True)}
    assert collections.Counter(correct // K for correct, _ in pairs) == collections.Counter(expected)
    assert totals.pairs.sum() == len(pairs)
    np.testing.assert_array_equal(totals.answers, 2 * totals.pairs)


def test_make_minibatches_makes_no_pairs_of_groups_without_both_kinds(programs):
    groups = numbered_groups()
    for reward in (0, 1):
        sequences, totals = run_program(
            programs("dpo"), groups._replace(reward_QK=np.full((Q, K), reward, np.float32)), Q
        )
        assert not sequences.present_I.any()
        assert not totals.pairs.any()


def test_make_minibatches_draws_pairs_by_the_key(programs):
    groups = numbered_groups()
    drawn = [set(pairs_of(run_program(programs("dpo"), groups, Q, seed)[0])) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0] & drawn[2]) < 0.6 * len(drawn[0])
    # Whom a correct answer meets is drawn on its own too, not only which answers take part.
    chosen = [{number for pair in pairs for number in pair} for pairs in drawn]
    assert len(chosen[0] & chosen[2]) < len(chosen[0])


def test_make_minibatches_splits_few_pairs_evenly_over_shards(programs):
    """Hard prompts have one correct answer, so one pair each: shards without pairs wait for one that has them all."""
    groups = numbered_groups()
    one_correct = np.tile(np.arange(K) == 0, (Q, 1)).astype(np.float32)
    sequences, _ = run_program(
        programs("dpo"), groups._replace(reward_QK=one_correct, rate_Q=one_correct.mean(axis=1)), Q
    )
    pairs_US = sequences.present_I.sum(axis=-1) // 2
    assert pairs_US.sum() == Q
    assert all(spread(pairs_S) <= 1 for pairs_S in pairs_US), pairs_US


def test_units_per_group():
    assert [units_per_group(unit, K) for unit in ("answer", "pair") for K in (1, 7, 8)] == [1, 7, 8, 0, 3, 4]
