"""Dynamic sampling in the step: rounds, selection, surplus groups, and the numbers of requests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.experiments import JudgedPool, Program, assert_same, grader, moved, on_host, small
from helpers.step_programs import ROUNDS, K, Q, weights_that_end_at_once
from nft_jax.data.order import prompt_order
from nft_jax.randomness import stream
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.metrics import step_metrics


def test_step_moves_nothing_where_all_answers_are_incorrect(plain, all_incorrect):
    plain.take()  # the optimizer's state is no longer zero
    before = on_host(plain.state)
    plain.pool.pool = all_incorrect
    (record,) = plain.take()
    after = on_host(plain.state)
    assert_same(before.weights, after.weights)
    assert_same(before.optimizer_state, after.optimizer_state)
    assert (record.trained, record.rounds, record.applied.taken.sum(), record.statistics.reward) == (0, ROUNDS, 0, 0)
    assert (after.step, after.cursor) == (before.step + 1, before.cursor + ROUNDS * Q)
    metrics = step_metrics(record)
    assert metrics["loss"] is metrics["gradient_norm"] is metrics["entropy"] is metrics["ratio_mean"] is None
    plain.pool.pool = plain.pool.own
    assert plain.take()[0].trained == Q
    assert moved(after.weights, on_host(plain.state.weights))


def test_step_moves_nothing_where_all_answers_are_correct(plain, all_correct):
    # Even a correct answer counts as incorrect when it is cut: only answers that all end are all correct.
    weights = weights_that_end_at_once(plain)
    plain.start(weights)
    plain.pool.pool = all_correct
    (record,) = plain.take()
    assert record.statistics.reward == record.statistics.answers == ROUNDS * Q * K
    assert (record.statistics.longest, record.statistics.tokens) == (1, record.statistics.answers)
    assert (record.trained, record.rounds, record.applied.taken.sum()) == (0, ROUNDS, 0)
    assert_same(weights, on_host(plain.state.weights))


def test_step_neither_grades_truncated_answers_nor_counts_them_as_correct(plain, all_correct):
    plain.pool.pool = all_correct
    (record,) = plain.take()
    assert 0 < record.statistics.truncated < record.statistics.answers
    assert record.statistics.reward + record.statistics.truncated == record.statistics.answers
    assert len(plain.pool.items) == record.statistics.reward


@pytest.mark.parametrize("correct", [1, 3])
def test_step_trains_on_a_buffer_that_is_not_full(plain, correct):
    plain.pool.pool = JudgedPool(
        lambda number, *_: "correct" if number % (2 * K) == 0 and number < 2 * K * correct else "incorrect"
    )
    before = plain.weights
    (record,) = plain.take()
    assert record.statistics.reward == correct
    assert 1 <= record.trained == record.statistics.kept <= correct
    assert record.rounds == ROUNDS
    assert record.totals.answers == record.trained * K
    assert record.applied.taken == 1
    assert moved(before, on_host(plain.state.weights))


def test_step_update_skips_the_empty_one_of_two(programs):
    program = programs("rft")
    program.pool.pool = JudgedPool(lambda number, *_: "correct" if number == 0 else "incorrect")
    (record,) = program.take()
    assert record.trained == 1
    np.testing.assert_array_equal(record.totals.answers, [K, 0])
    np.testing.assert_array_equal(record.applied.taken, [1, 0])
    assert moved(program.weights, on_host(program.state.weights))
    leaves = jax.tree_util.tree_leaves_with_path(program.state.optimizer_state)
    counts = [int(leaf) for path, leaf in leaves if jax.tree_util.keystr(path).endswith(".count")]
    assert counts
    assert set(counts) == {1}


def test_step_takes_one_round_for_losses_of_all_groups(programs, all_incorrect):
    program = programs("grpo")
    program.pool.pool = all_incorrect
    (record,) = program.take()
    assert (record.rounds, record.trained, record.statistics.kept, record.wasted) == (1, Q, Q, 0)
    assert record.totals.answers == Q * K


def select_by_hand(program: Program, record, carried):
    """The step's choice of groups again, from the groups it rolled, as lists: (buffer, carried, wasted)."""
    Q, config = program.config.prompts_per_step, program.config.selection
    rounds = sorted(program.step.rounds, key=lambda seen: int(seen[0]))[-int(record.rounds) :]
    pool = list(carried)
    for _, groups in rounds:
        rows = [jax.tree.map(lambda x, q=q: x[q], groups) for q in range(config.candidates_per_round)]
        pool += [row for row in rows if config.rate_above < row.rate_Q < config.rate_below]
    surplus = pool[Q:]
    capacity = program.config.carry_capacity
    return pool[:Q], surplus[:capacity], len(surplus[capacity:])


def test_step_carries_surplus_groups_one_step_and_trains_them_first(programs):
    program, carried, seen, drifts = programs("dapo"), [], [], []
    program.step.buffers.clear()
    program.step.rounds.clear()  # other tests ran this program to later cursors
    # Right answers are spread evenly: most groups are mixed, more than are needed.
    program.pool.pool = JudgedPool(lambda number, *_: "correct" if number % 3 == 0 or number % 5 == 0 else "incorrect")
    for _ in range(6):
        age = len(program.step.rounds)
        (record,) = program.take()
        buffer, trained = program.step.buffers[-1]
        older_Q1 = np.arange(len(buffer.age_QK))[:, None] < record.from_carry
        np.testing.assert_array_equal(buffer.age_QK, np.broadcast_to(older_Q1, buffer.age_QK.shape))
        buffer, metrics = buffer._replace(age_QK=None), step_metrics(record)
        # Older weights sampled what is carried: that is no gap between two computations with the same weights.
        assert (metrics["sampler_gap_max"] or 0) < 1e-5
        drifts.append(metrics["sampler_drift_mean"])
        expected, next_carried, wasted = select_by_hand(program, record, carried)
        assert record.from_carry == len(carried)
        assert record.trained == trained == len(expected)
        for place, group in enumerate(expected):
            assert_same(jax.tree.map(lambda x, place=place: x[place], buffer), group)
        groups, many = on_host(program.state.carried)
        assert many == len(next_carried)
        for place, group in enumerate(next_carried):
            assert_same(jax.tree.map(lambda x, place=place: x[place], groups), group)
        assert record.wasted == wasted
        # All that is carried was rolled in this very step.
        assert len(program.step.rounds) - age == record.rounds > 0
        # Rates in quarters fall into the bins 0, 2, 5, 8, 10; the band leaves out both its ends.
        assert (
            record.statistics.kept == record.statistics.rates[2] + record.statistics.rates[5] < record.statistics.groups
        )
        carried = next_carried
        seen.append((record.from_carry, wasted, record.statistics.rates[8]))
    assert [drift is not None for drift in drifts] == [bool(count) for count, *_ in seen]
    assert max(drift for drift in drifts if drift is not None) > 1e-4
    assert np.any(seen, axis=0).all()  # groups carried, groups lost, and groups at the band's upper end


@pytest.mark.parametrize("name", ["dapo", "grpo", "partial"])
def test_step_state_survives_a_checkpoint(programs, tmp_path, name):
    program = programs(name)
    program.take(2)
    # One has groups to carry, one a reference, and one answers in its slots that it must not lose.
    state = program.state
    busy = state.in_flight is not None and on_host(state.in_flight.slots.drawn_S).any()
    assert state.reference is not None or busy or int(state.carried[1]) > 0
    del state
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(2, program.state, {})
        # The next step reuses the memory of what is being saved.
        records = program.take(2)
        straight = on_host(program.state)
        checkpoints.wait()
        program.start(jax.tree.map(np.zeros_like, program.weights))
        step, program.state = checkpoints.restore(program.state, lambda run: None)
    assert step == 2
    again = program.take(2)
    assert_same(straight, on_host(program.state))
    untimed = [record._replace(statistics=record.statistics._replace(seconds=0)) for record in records + again]
    assert_same(untimed[:2], untimed[2:])


def test_step_next_requests_repeat_no_number_and_no_prompt_of_an_epoch(programs, all_incorrect):
    program = programs("dapo")
    program.step.engine.requests.clear()
    program.step.rounds.clear()
    program.take(2)
    program.pool.pool = all_incorrect
    program.take()
    requests, cursor = program.step.engine.requests, int(program.state.cursor)
    assert len(requests) == cursor / (2 * Q) > 3
    numbers = np.sort(np.concatenate([number_QK.ravel() for number_QK in requests]))
    np.testing.assert_array_equal(numbers, np.arange(cursor * K))
    prompt = np.concatenate([groups.prompt_Q for _, groups in program.step.rounds])
    assert len(set(prompt.tolist())) == len(prompt) == cursor <= len(program.table.answers)
    order = prompt_order(stream(program.config.seed, "order"), len(program.table.answers), jnp.arange(cursor))
    assert set(prompt.tolist()) == set(order.tolist())


def test_step_uses_no_noise_twice_in_steps_and_rounds(plain, all_incorrect):
    # Under these weights every token is equally likely whatever the prompt: the answers are the noise, and stay so.
    plain.start(jax.tree.map(np.zeros_like, plain.weights))
    plain.pool.pool = all_incorrect
    groups = [record.last for record in plain.take(3)]
    answers = np.concatenate([group.token_QKT.reshape(Q * K, -1) for group in groups])
    length = np.concatenate([group.length_QK.ravel() for group in groups])
    long = [tuple(row) for row in answers[length > 8].tolist()]
    assert len(set(long)) == len(long) > Q


@pytest.mark.parametrize("carry", [False, True])
def test_step_with_begin_next_round_changes_time_and_nothing_else(folder, carry):
    """With a few slots, of which the long answers of a round hold some while the next round begins in the others."""
    changes = {"rollout__slots": 6, "selection__carry": carry, "verify__grader": grader("coin")}
    records, states = {}, {}
    for begins in (False, True):
        program = Program(small(selection__begin_next_round=begins, **changes), folder)
        records[begins] = [
            record._replace(statistics=record.statistics._replace(seconds=0)) for record in program.take(3)
        ]
        states[begins] = on_host(program.state)
        program.close()
    assert any(record.rounds > 1 for record in records[False])
    # Two programs, so that rounding differs.
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
    jax.tree.map(close, states[False].weights, states[True].weights)
    for plain, early in zip(records[False], records[True], strict=True):
        assert_same(*(record.statistics._replace(capacity=0) for record in (plain, early)))
        assert_same(*(record.last._replace(logp_QKT=0) for record in (plain, early)))
        for name in ("rounds", "trained", "from_carry", "wasted"):
            assert_same(getattr(plain, name), getattr(early, name))
    # What is begun and needed has been begun earlier.
    capacity = {begins: sum(record.statistics.capacity for record in records[begins]) for begins in records}
    assert capacity[True] < capacity[False]
