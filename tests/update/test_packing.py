"""Packing: every token of every present sequence lies in the rows once, in order, and nothing else does."""

import functools

import jax
import numpy as np
import pytest

from nft_jax.config.sizes import row_tokens_needed
from nft_jax.types import LossBatch, Tokens
from nft_jax.update.packing import Sequences, pack, rows_needed

M, P, T, K = 24, 4, 6, 6


@functools.partial(jax.jit, static_argnames=("unit", "row_tokens", "shared", "most"))
def packed_of(sequences, unit, row_tokens, shared=False, most=None):
    prompts = M // K if shared else None
    row_count = rows_needed(M // unit, row_tokens_needed(P, T, unit, shared), row_tokens, prompts or 1, most)
    return pack(sequences, unit=unit, row_count=row_count, row_tokens=row_tokens, shared_prompts=prompts, most=most)


def random_sequences(seed, unit, *, present_share=0.7, longest=False) -> Sequences:
    """K answers to each prompt, in mixed order.

    Every token of an answer and of a prompt is another number; what lies outside the lengths is a number that must not
    show up.
    """
    random = np.random.default_rng(seed)
    group_I = np.repeat(random.permutation(np.repeat(np.arange(0, M, K), K // unit)), unit)
    present_I = np.repeat(random.random(M // unit) < present_share, unit)
    prompt_length_I = np.full(M, P) if longest else random.integers(1, P + 1, M)[group_I]
    answer_length_I = np.where(present_I, np.full(M, T) if longest else random.integers(1, T + 1, M), 0)
    token_IT, prompt_IP = np.arange(1, M * T + 1).reshape(M, T), 1000 + np.arange(M * P).reshape(M, P)[group_I]
    reward_I, rate_I, advantage_I = random.integers(0, 2, M), random.random(M), random.normal(size=M)
    return Sequences(
        prompt_IP=np.where(np.arange(P) < prompt_length_I[:, None], prompt_IP, -777).astype(np.int32),
        answer_IT=np.where(np.arange(T) < answer_length_I[:, None], token_IT, -777).astype(np.int32),
        group_I=group_I.astype(np.int32),
        prompt_length_I=prompt_length_I.astype(np.int32),
        answer_length_I=answer_length_I.astype(np.int32),
        logp_IT=-token_IT.astype(np.float32),
        reward_I=reward_I.astype(np.float32),
        rate_I=rate_I.astype(np.float32),
        advantage_I=advantage_I.astype(np.float32),
        present_I=present_I,
        truncated_I=random.integers(0, 2, M).astype(np.float32),
        length_I=answer_length_I.astype(np.float32),
        complete_I=random.integers(0, 2, M).astype(np.float32),
        graded_I=random.random(M).astype(np.float32),
        token_reward_IT=random.normal(size=(M, T)).astype(np.float32),
        return_IT=random.normal(size=(M, T)).astype(np.float32),
        number_I=random.permutation(M).astype(np.int32),
    )


def first_fit_decreasing(sequences, unit, row_tokens, shared, most=None):
    """What must lie in the rows: for each row its sequences in order, by a loop."""
    length_I = sequences.answer_length_I + (0 if shared else sequences.prompt_length_I - 1)
    units = [list(range(first, first + unit)) for first in range(0, M, unit) if sequences.present_I[first]]
    rows, room = [], []
    for members in sorted(units, key=lambda members: -sum(length_I[m] for m in members)):
        size, group = sum(length_I[m] for m in members), sequences.group_I[members[0]]
        fits = (row for row, left in enumerate(room) if size <= left and len(rows[row]) // unit < (most or M))
        row = next((row for row in fits if not shared or sequences.group_I[rows[row][0]] == group), len(rows))
        if row == len(rows):
            rows, room = [*rows, []], [*room, row_tokens]
        rows[row] += members
        room[row] -= size
    return rows


def expected_row(sequences, members, unit, row_tokens, shared):
    """The fields of one row, place by place: `{name: [row_tokens]}`."""
    # What the update fills in later is no part of the rows.
    later = ("sampler_logp_BT", "entropy_BT", "teacher_logp_BT", "key_BT", "choice_BT")
    packed = (name for name in (*Tokens._fields, *LossBatch._fields) if name not in later)
    names = ("target", "sampler_logp", *(name.removesuffix("_BT") for name in packed))
    fields = {name: [] for name in names}

    def append(**values):
        for name, value in values.items():
            fields[name].append(value)

    for place, m in enumerate(members):
        prompt, answer = sequences.prompt_length_I[m], sequences.answer_length_I[m]
        tokens = [*sequences.prompt_IP[m, :prompt], *sequences.answer_IT[m, :answer]]
        for i in range(prompt - 1 if shared else 0, prompt + answer - 1):
            append(token=tokens[i], segment=place, position=i, target=tokens[i + 1])
            if i < prompt - 1:
                append(old_logp=0, sampler_logp=0, answer=-1, reward=0, rate=0, advantage=0, pair=-1)
                append(truncated=0, length=0, complete=0, graded=0, token_reward=0)
                continue
            token = m, i + 1 - prompt
            append(**dict.fromkeys(("old_logp", "sampler_logp"), sequences.logp_IT[token]))
            append(answer=place, pair=place // 2 if unit == 2 else -1)
            append(reward=sequences.reward_I[m], rate=sequences.rate_I[m])
            append(advantage=sequences.advantage_I[m] + sequences.return_IT[token])
            append(graded=sequences.graded_I[m], token_reward=sequences.token_reward_IT[token])
            append(truncated=sequences.truncated_I[m], length=answer, complete=sequences.complete_I[m])
    padding = {name: -1 if name in ("segment", "answer", "pair") else 0 for name in fields}
    return {name: [*values, *[padding[name]] * (row_tokens - len(values))] for name, values in fields.items()}


def check(sequences, unit, row_tokens, shared=False, most=None):
    """Compares all fields of all rows with the loop's; returns the number of rows in use."""
    packed = jax.device_get(packed_of(sequences, unit, row_tokens, shared, most))
    rows = packed.rows
    fields = {**rows.tokens._asdict(), **rows.batch._asdict()}
    fields |= {"target_BT": rows.target_BT, "sampler_logp_BT": rows.sampler_logp_BT}
    expected = first_fit_decreasing(sequences, unit, row_tokens, shared, most)
    assert packed.used == len(expected)
    for row in range(len(rows.target_BT)):
        members = expected[row] if row < packed.used else []
        # Every predicted token has a number of its own.
        inside_T = rows.batch.answer_BT[row] >= 0
        numbers = [sequences.number_I[m] * T + i for m in members for i in range(sequences.answer_length_I[m])]
        np.testing.assert_array_equal(rows.number_BT[row][inside_T], np.array(numbers, np.int32))
        for name, values in expected_row(sequences, members, unit, row_tokens, shared).items():
            found = fields[f"{name}_BT"]
            np.testing.assert_array_equal(found[row], np.asarray(values, found.dtype), f"{name} {row}")
        if shared and members:
            prompt = rows.prompt.index_B[row]
            assert prompt < packed.prompts_used
            np.testing.assert_array_equal(packed.prompts.token_QP[prompt], sequences.prompt_IP[members[0]])
            assert packed.prompts.length_Q[prompt] == sequences.prompt_length_I[members[0]]
            assert rows.prompt.seen_B[row] == sequences.prompt_length_I[members[0]] - 1
    if shared:
        # Each prompt once, and none that has no answer.
        assert packed.prompts_used == len(np.unique(sequences.group_I[sequences.present_I]))
        assert len({tuple(row) for row in packed.prompts.token_QP[: packed.prompts_used]}) == packed.prompts_used
    else:
        assert rows.prompt is packed.prompts is packed.prompts_used is None
    return int(packed.used)


# A row as long as the longest unit; one that isn't a multiple of it; one that holds about half of all.
@pytest.mark.parametrize(
    ("unit", "row_tokens", "shared"),
    [(1, 9, False), (1, 33, False), (2, 18, False), (2, 47, False), (1, 120, False)]
    + [(1, 6, True), (1, 20, True), (2, 12, True), (2, 31, True), (1, 40, True)],
)
def test_pack_gives_the_rows_of_a_plain_loop(unit, row_tokens, shared):
    used = {check(random_sequences(seed, unit), unit, row_tokens, shared) for seed in range(8)}
    assert len(used) > 1 or row_tokens in (31, 40, 120)
    check(random_sequences(0, unit, present_share=1.0), unit, row_tokens, shared)
    assert check(random_sequences(0, unit, present_share=0.0), unit, row_tokens, shared) == 0
    # All sequences of full length: exactly `rows_needed` of all units, or of each prompt's.
    full = check(random_sequences(0, unit, present_share=1.0, longest=True), unit, row_tokens, shared)
    parts = M // K if shared else 1
    assert full == parts * rows_needed(M // unit // parts, row_tokens_needed(P, T, unit, shared), row_tokens)


@pytest.mark.parametrize(("unit", "row_tokens", "shared"), [(1, 40, False), (2, 47, False), (1, 40, True)])
def test_pack_puts_no_more_units_into_a_row_than_it_may_hold(unit, row_tokens, shared):
    for seed in range(4):
        sequences = random_sequences(seed, unit, present_share=1.0)
        assert check(sequences, unit, row_tokens, shared, most=2) >= M // unit // 2
        assert check(sequences, unit, row_tokens, shared, most=2) > check(sequences, unit, row_tokens, shared)


def test_rows_needed_is_enough_for_any_lengths():
    """Lengths that leave as much room unused as lengths can."""
    random = np.random.default_rng(0)
    for _ in range(300):
        longest, row_tokens = (int(n) for n in (random.integers(1, 12), random.integers(12, 40)))
        most = int(random.integers(1, 6)) if random.random() < 0.5 else None
        lengths = random.choice([1, (longest + 1) // 2, longest], size=random.integers(1, 40))
        room, held = [], []
        for length in sorted(lengths, reverse=True):
            fits = (row for row, left in enumerate(room) if length <= left and held[row] < (most or 40))
            row = next(fits, len(room))
            if row == len(room):
                room, held = [*room, row_tokens], [*held, 0]
            room[row] -= length
            held[row] += 1
        assert len(room) <= rows_needed(len(lengths), longest, row_tokens, most=most)
        # Of several prompts, each with rows of its own.
        cuts = np.sort(random.integers(0, len(lengths) + 1, 2))
        rows = [rows_needed(int(n), longest, row_tokens, most=most) for n in np.diff([0, *cuts, len(lengths)])]
        assert sum(rows) <= rows_needed(len(lengths), longest, row_tokens, prompts=3, most=most)
    assert rows_needed(7, 10, 10) == 7
    assert rows_needed(7, 10, 39) == 3


def test_pack_fills_the_rows_of_long_units_with_short_ones():
    """Units of 8 and of 2 places: every row holds one of each."""
    sequences = random_sequences(0, 1, present_share=1.0)
    prompt_length_I = np.where(np.arange(M) % 2 == 0, 4, 1).astype(np.int32)
    answer_length_I = np.where(np.arange(M) % 2 == 0, 5, 2).astype(np.int32)
    sequences = sequences._replace(
        prompt_length_I=prompt_length_I, answer_length_I=answer_length_I, length_I=answer_length_I.astype(np.float32)
    )
    assert check(sequences, 1, 10) == M // 2


def test_pack_gives_the_example_of_its_docstring():
    sequences = random_sequences(0, 1, present_share=0.0)
    places = {0: (2, 4), 1: (1, 4), 2: (2, 5)}  # units of 5, 4 and 6 places
    present_I = np.arange(M) < 3
    lengths = np.array([places.get(m, (1, 0)) for m in range(M)], np.int32)
    sequences = sequences._replace(
        present_I=present_I, prompt_length_I=lengths[:, 0].copy(), answer_length_I=lengths[:, 1].copy()
    )
    rows, used, *_ = packed_of(sequences, 1, 10)
    assert used == 2
    np.testing.assert_array_equal(rows.tokens.segment_BT[0], [0] * 6 + [1] * 4)
    np.testing.assert_array_equal(rows.tokens.segment_BT[1], [0] * 5 + [-1] * 5)
