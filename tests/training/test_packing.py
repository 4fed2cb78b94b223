"""Packing: every token of every present sequence lies in the rows once, in order, and nothing else does."""

import functools

import jax
import numpy as np
import pytest

from nft_jax.training.packing import Sequences, pack, rows_needed
from nft_jax.types import LossBatch, Tokens

M, P, T = 24, 4, 6


@functools.partial(jax.jit, static_argnames=("unit", "row_tokens"))
def packed_of(sequences, unit, row_tokens):
    row_count = rows_needed(M // unit, unit * (P + T), row_tokens)
    return pack(sequences, unit=unit, row_count=row_count, row_tokens=row_tokens)


def random_sequences(seed, unit, *, present_share=0.7, longest=False) -> Sequences:
    """Every token of the batch is another number; what lies outside the lengths is a number that must not show up."""
    random = np.random.default_rng(seed)
    present_M = np.repeat(random.random(M // unit) < present_share, unit)
    prompt_length_M = np.full(M, P) if longest else random.integers(1, P + 1, M)
    answer_length_M = np.where(present_M, np.full(M, T) if longest else random.integers(1, T + 1, M), 0)
    token_MS = np.arange(1, M * (P + T) + 1).reshape(M, P + T)
    reward_M, rate_M, advantage_M = random.integers(0, 2, M), random.random(M), random.normal(size=M)
    return Sequences(
        prompt_MP=np.where(np.arange(P) < prompt_length_M[:, None], token_MS[:, :P], -777).astype(np.int32),
        answer_MT=np.where(np.arange(T) < answer_length_M[:, None], token_MS[:, P:], -777).astype(np.int32),
        prompt_length_M=prompt_length_M.astype(np.int32),
        answer_length_M=answer_length_M.astype(np.int32),
        logp_MT=-token_MS[:, P:].astype(np.float32),
        reward_M=reward_M.astype(np.float32),
        rate_M=rate_M.astype(np.float32),
        advantage_M=advantage_M.astype(np.float32),
        present_M=present_M,
    )


def first_fit_decreasing(sequences, unit, row_tokens):
    """What must lie in the rows: for each row its sequences in order, by a loop."""
    length_M = sequences.prompt_length_M + sequences.answer_length_M
    units = [list(range(first, first + unit)) for first in range(0, M, unit) if sequences.present_M[first]]
    rows, room = [], []
    for members in sorted(units, key=lambda members: -sum(length_M[m] for m in members)):
        size = sum(length_M[m] for m in members)
        row = next((row for row, left in enumerate(room) if size <= left), len(rows))
        if row == len(rows):
            rows, room = [*rows, []], [*room, row_tokens]
        rows[row] += members
        room[row] -= size
    return rows


def expected_row(sequences, members, unit, row_tokens):
    """The fields of one row, token by token: `{name: [row_tokens]}`."""
    fields = {name.removesuffix("_BT"): [] for name in (*Tokens._fields, *LossBatch._fields)}

    def append(**values):
        for name, value in values.items():
            fields[name].append(value)

    for place, m in enumerate(members):
        prompt, answer = sequences.prompt_length_M[m], sequences.answer_length_M[m]
        for i in range(prompt):
            append(token=sequences.prompt_MP[m, i], segment=place, position=i)
            append(old_logp=0, answer=-1, reward=0, rate=0, advantage=0, pair=-1)
        for i in range(answer):
            append(token=sequences.answer_MT[m, i], segment=place, position=prompt + i)
            append(old_logp=sequences.logp_MT[m, i], answer=place, pair=place // 2 if unit == 2 else -1)
            append(reward=sequences.reward_M[m], rate=sequences.rate_M[m], advantage=sequences.advantage_M[m])
    padding = {name: -1 if name in ("segment", "answer", "pair") else 0 for name in fields}
    return {name: [*values, *[padding[name]] * (row_tokens - len(values))] for name, values in fields.items()}


def check(sequences, unit, row_tokens):
    """Compares all fields of all rows with the loop's; returns the number of rows in use."""
    rows, used = jax.device_get(packed_of(sequences, unit, row_tokens))
    fields = {
        name.removesuffix("_BT"): value_BT
        for part in (rows.tokens, rows.batch)
        for name, value_BT in part._asdict().items()
    }
    expected = first_fit_decreasing(sequences, unit, row_tokens)
    assert used == len(expected)
    for row in range(len(fields["token"])):
        members = expected[row] if row < used else []
        for name, values in expected_row(sequences, members, unit, row_tokens).items():
            np.testing.assert_array_equal(fields[name][row], np.asarray(values, fields[name].dtype), f"{name} {row}")
    np.testing.assert_array_equal(rows.sampler_logp_BT, rows.batch.old_logp_BT)
    return int(used)


# A row as long as the longest unit; one that isn't a multiple of it; one that holds about half of all.
@pytest.mark.parametrize(("unit", "row_tokens"), [(1, 10), (1, 33), (2, 20), (2, 47), (1, 120)])
def test_the_rows_are_those_of_a_loop(unit, row_tokens):
    used = {check(random_sequences(seed, unit), unit, row_tokens) for seed in range(8)}
    assert len(used) > 1 or row_tokens == 120
    check(random_sequences(0, unit, present_share=1.0), unit, row_tokens)
    assert check(random_sequences(0, unit, present_share=0.0), unit, row_tokens) == 0
    # All sequences of full length fill each row to the brim: exactly `rows_needed`.
    full = check(random_sequences(0, unit, present_share=1.0, longest=True), unit, row_tokens)
    assert full == rows_needed(M // unit, unit * (P + T), row_tokens)


def test_rows_needed_is_enough_for_any_lengths():
    """Lengths that leave as much room unused as lengths can."""
    random = np.random.default_rng(0)
    for _ in range(300):
        longest, row_tokens = (int(n) for n in (random.integers(1, 12), random.integers(12, 40)))
        lengths = random.choice([1, (longest + 1) // 2, longest], size=random.integers(1, 40))
        room = []
        for length in sorted(lengths, reverse=True):
            row = next((row for row, left in enumerate(room) if length <= left), None)
            if row is None:
                room.append(row_tokens - length)
            else:
                room[row] -= length
        assert len(room) <= rows_needed(len(lengths), longest, row_tokens)
    assert rows_needed(7, 10, 10) == 7
    assert rows_needed(7, 10, 39) == 3


def test_short_units_fill_the_rows_of_long_ones():
    """Units of 8 and of 2 tokens: every row holds one of each."""
    sequences = random_sequences(0, 1, present_share=1.0)
    prompt_length_M = np.where(np.arange(M) % 2 == 0, 4, 1).astype(np.int32)
    answer_length_M = np.where(np.arange(M) % 2 == 0, 4, 1).astype(np.int32)
    sequences = sequences._replace(prompt_length_M=prompt_length_M, answer_length_M=answer_length_M)
    assert check(sequences, 1, 10) == M // 2


def test_the_example_of_the_docstring():
    sequences = random_sequences(0, 1, present_share=0.0)
    places = {0: (2, 3), 1: (1, 3), 2: (2, 4)}  # units of 5, 4 and 6 tokens
    present_M = np.arange(M) < 3
    lengths = np.array([places.get(m, (1, 0)) for m in range(M)], np.int32)
    sequences = sequences._replace(
        present_M=present_M, prompt_length_M=lengths[:, 0].copy(), answer_length_M=lengths[:, 1].copy()
    )
    rows, used = packed_of(sequences, 1, 10)
    assert used == 2
    np.testing.assert_array_equal(rows.tokens.segment_BT[0], [0] * 6 + [1] * 4)
    np.testing.assert_array_equal(rows.tokens.segment_BT[1], [0] * 5 + [-1] * 5)
