"""Units of sequences laid into rows of tokens, inside the program: cost follows real tokens, not the longest answer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.types import Array, LossBatch, Prompts, Tokens


class Sequences(NamedTuple):
    """M sequences: a prompt and an answer each. J consecutive ones form a unit (J = 1 an answer, J = 2 a pair).

    `prompt_MP`, `answer_MT`      int32    tokens, padded on the right
    `group_M`                     int32    sequences of the same group have the same prompt; from 0
    `prompt_length_M`             int32    prompt tokens, 1 or more
    `answer_length_M`             int32    answer tokens; 0 where `present_M` is False
    `logp_MT`                     float32  log-probs of the answer's tokens by the sampler
    `reward_M rate_M advantage_M` float32  as in `LossBatch`
    `present_M`                   bool     False: an empty place, takes no room in any row
    """

    prompt_MP: Array
    answer_MT: Array
    group_M: Array
    prompt_length_M: Array
    answer_length_M: Array
    logp_MT: Array
    reward_M: Array
    rate_M: Array
    advantage_M: Array
    present_M: Array


class RowPrompts(NamedTuple):
    """Which of the shared prompts each row goes on from, and how many of its places come before the row (int32)."""

    index_B: Array
    seen_B: Array


class Rows(NamedTuple):
    """Rows of tokens and what the loss needs of them.

    `target_BT`        int32    the token that follows in the sequence, which the place predicts; 0 where none does
    `sampler_logp_BT`  float32  the sampler's log-probs, kept beside `batch.old_logp_BT` to measure the gap
    `prompt`                    None where rows hold their prompts themselves
    """

    tokens: Tokens
    target_BT: Array
    batch: LossBatch
    sampler_logp_BT: Array
    prompt: RowPrompts | None


class Packed(NamedTuple):
    """Rows of which the first `used` (int32) hold tokens, and the prompts that they share.

    `prompts`  of which the first `prompts_used` are there; both None where rows hold their prompts themselves
    """

    rows: Rows
    used: Array
    prompts: Prompts | None
    prompts_used: Array | None


def rows_needed(units: int, unit_tokens: int, row_tokens: int, prompts: int = 1) -> int:
    """Rows that first-fit packing takes at most, if only units of the same of so many prompts may share a row.

    All of a prompt's rows but the last hold `row_tokens // unit_tokens` units or more.
    """
    each = row_tokens // unit_tokens
    return min(units, (units + prompts * (each - 1)) // each)


def pack(
    sequences: Sequences, *, unit: int, row_count: int, row_tokens: int, shared_prompts: int | None = None
) -> Packed:
    """First-fit-decreasing packing: the longest unit first, each into the first row that has room for it.

    Units are never split over rows. `unit` is the number of sequences of a unit; `row_count` must be at least
    `rows_needed`. Units of 5, 4 and 6 tokens in rows of 10: row 0 holds the third and the second, row 1 the first.
    It takes at most 11/9 of the fewest rows, and 2/3 of one (Dósa 2007, "The tight bound of first fit decreasing
    bin-packing algorithm").

    A sequence of a prompt of p tokens and an answer of n takes the p + n − 1 places that something follows. With
    `shared_prompts`, the most that there can be, its row holds the last n of them, those that predict the answer; all
    of a row go on from the same prompt, and the other p − 1 places are left to whoever reads `Packed.prompts`.
    """
    M = sequences.prompt_MP.shape[0]
    prompts, used, prompt_M = None, None, jnp.zeros(M, jnp.int32)
    skipped_M = jnp.zeros_like(sequences.prompt_length_M)
    if shared_prompts is not None:
        prompts, used, prompt_M = _distinct(sequences, shared_prompts)
        skipped_M = sequences.prompt_length_M - 1
    length_M = sequences.prompt_length_M + sequences.answer_length_M - 1 - skipped_M
    length_M = jnp.where(sequences.present_M, length_M, 0)
    length_UJ = length_M.reshape(M // unit, unit)
    places = _place(jnp.sum(length_UJ, axis=1, dtype=jnp.int32), prompt_M[::unit], row_tokens, row_count)

    # Within a unit, sequences follow each other.
    before_M = (jnp.cumsum(length_UJ, axis=1) - length_UJ).reshape(M)
    start_M = jnp.repeat(places.row_U * row_tokens + places.offset_U, unit) + before_M
    id_M = jnp.repeat(places.index_U, unit) * unit + jnp.tile(jnp.arange(unit, dtype=jnp.int32), M // unit)

    # One scatter says for each place of the rows which token of which sequence lies there; all else is gathered.
    S = sequences.prompt_MP.shape[1] + sequences.answer_MT.shape[1]
    column_S = jnp.arange(S, dtype=jnp.int32)
    place_MS = jnp.where(column_S[None] < length_M[:, None], start_M[:, None] + column_S[None], row_count * row_tokens)
    source_MS = jnp.arange(M, dtype=jnp.int32)[:, None] * S + skipped_M[:, None] + column_S[None]
    source = (
        jnp.full(row_count * row_tokens, -1, jnp.int32).at[place_MS].set(source_MS, mode="drop", unique_indices=False)
    )
    rows = _gather(sequences, source.reshape(row_count, row_tokens), id_M, unit)
    if prompts is not None:
        rows = rows._replace(prompt=RowPrompts(places.prompt_R, prompts.length_N[places.prompt_R] - 1))
    return Packed(rows, places.used, prompts, used)


def _distinct(sequences, most):
    """The prompts of present sequences, once each; how many they are; and which of them is whose `[M]`."""
    absent = jnp.iinfo(jnp.int32).max
    group_M = jnp.where(sequences.present_M, sequences.group_M, absent)
    # Room for one more: that of all that is absent, which sorts last.
    group_Q, first_Q, prompt_M = jnp.unique(
        group_M, return_index=True, return_inverse=True, size=most + 1, fill_value=absent
    )
    prompts = Prompts(sequences.prompt_MP[first_Q[:most]], sequences.prompt_length_M[first_Q[:most]])
    return prompts, jnp.sum((group_Q < absent).astype(jnp.int32)), prompt_M.astype(jnp.int32)


class _Places(NamedTuple):
    """Row, offset and index in its row of each unit; each row's prompt (0 if empty); the number of rows in use."""

    row_U: Array
    offset_U: Array
    index_U: Array
    prompt_R: Array
    used: Array


def _place(length_U, prompt_U, row_tokens, row_count):
    order_U = jnp.argsort(-length_U, stable=True)

    def step(state, unit):
        used_R, units_R, prompt_R = state
        length, prompt = unit
        row = jnp.argmax((used_R + length <= row_tokens) & ((used_R == 0) | (prompt_R == prompt))).astype(jnp.int32)
        place = row, used_R[row], units_R[row]
        # An empty unit takes no room, and no number.
        there = length > 0
        units_R = units_R.at[row].add(there.astype(jnp.int32))
        prompt_R = prompt_R.at[row].set(jnp.where(there, prompt, prompt_R[row]))
        return (used_R.at[row].add(length), units_R, prompt_R), place

    none_R = jnp.zeros(row_count, jnp.int32)
    units = length_U[order_U], prompt_U[order_U]
    (used_R, _, prompt_R), places = jax.lax.scan(step, (none_R, none_R, none_R), units)
    places = (jnp.zeros_like(place_U).at[order_U].set(place_U) for place_U in places)
    return _Places(*places, prompt_R, jnp.sum((used_R > 0).astype(jnp.int32)))


def _gather(sequences, source_BT, id_M, unit):
    P, T = sequences.prompt_MP.shape[1], sequences.answer_MT.shape[1]
    filled_BT = source_BT >= 0
    sequence_BT, position_BT = jnp.divmod(jnp.where(filled_BT, source_BT, 0), P + T)
    # Below 0 in the prompt, but that its last token predicts the answer's first.
    predicted_BT = position_BT + 1 - sequences.prompt_length_M[sequence_BT]
    predicts_BT = filled_BT & (predicted_BT >= 0)
    next_answer_BT = sequences.answer_MT[sequence_BT, jnp.maximum(predicted_BT, 0)]

    def of_answer(value_M, outside=0.0):
        return jnp.where(predicts_BT, value_M[sequence_BT], jnp.asarray(outside, value_M.dtype))

    def of_prompt(column_BT):
        return jnp.where(filled_BT, sequences.prompt_MP[sequence_BT, jnp.minimum(column_BT, P - 1)], 0)

    in_answer_BT = filled_BT & (predicted_BT > 0)
    this_answer_BT = sequences.answer_MT[sequence_BT, jnp.maximum(predicted_BT - 1, 0)]
    logp_BT = jnp.where(predicts_BT, sequences.logp_MT[sequence_BT, jnp.maximum(predicted_BT, 0)], 0.0)
    return Rows(
        tokens=Tokens(
            token_BT=jnp.where(in_answer_BT, this_answer_BT, of_prompt(position_BT)),
            segment_BT=jnp.where(filled_BT, id_M[sequence_BT], -1),
            position_BT=jnp.where(filled_BT, position_BT, 0),
        ),
        target_BT=jnp.where(predicts_BT, next_answer_BT, of_prompt(position_BT + 1)),
        batch=LossBatch(
            old_logp_BT=logp_BT,
            answer_BT=of_answer(id_M, -1),
            reward_BT=of_answer(sequences.reward_M),
            rate_BT=of_answer(sequences.rate_M),
            advantage_BT=of_answer(sequences.advantage_M),
            pair_BT=of_answer(id_M // 2, -1) if unit == 2 else jnp.full_like(source_BT, -1),
        ),
        sampler_logp_BT=logp_BT,
        prompt=None,
    )
