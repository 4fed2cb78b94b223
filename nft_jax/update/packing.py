"""Packing of sequences into rows of tokens, inside the program: cost depends on real tokens, not the longest answer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.types import Array, LossBatch, Prompts, Tokens


class Sequences(NamedTuple):
    """I sequences: a prompt and an answer each. J consecutive ones form a unit (J = 1 an answer, J = 2 a pair).

    Attributes:
      prompt_IP: int32, prompt tokens, padded on the right.
      answer_IT: int32, answer tokens, padded on the right.
      group_I: int32, number of the sequence's group, from 0: sequences of the same group have the same prompt.
      prompt_length_I: int32, prompt tokens, 1 or more.
      answer_length_I: int32, answer tokens; 0 where `present_I` is False.
      logp_IT: float32, log-probs of the answer's tokens by the sampler.
      reward_I, rate_I, advantage_I: float32, as in `LossBatch`.
      present_I: bool; False is an empty place, which takes no room in any row.
      truncated_I, length_I, complete_I, graded_I: float32, as in `LossBatch`; None unless the loss reads them.
      token_reward_IT: float32, as in `LossBatch`; None unless the loss reads it.
      return_IT: float32, sum of the tokens' own rewards from each token to the end of its answer; None without such.
      number_I: int32, number of the answer in the training buffer, for random keys; None unless the loss reads them.
      fresh_I: bool, whether the answer began in this step, so that one set of weights sampled it; None if all did.
      watched_I: int32, number of the answer among those whose tokens are recorded, −1 for none; None if there are none.
    """

    prompt_IP: Array
    answer_IT: Array
    group_I: Array
    prompt_length_I: Array
    answer_length_I: Array
    logp_IT: Array
    reward_I: Array
    rate_I: Array
    advantage_I: Array
    present_I: Array
    truncated_I: Array | None = None
    length_I: Array | None = None
    complete_I: Array | None = None
    graded_I: Array | None = None
    token_reward_IT: Array | None = None
    return_IT: Array | None = None
    number_I: Array | None = None
    fresh_I: Array | None = None
    watched_I: Array | None = None


class RowPrompts(NamedTuple):
    """Which shared prompt each row continues.

    Attributes:
      index_B: int32, index of the prompt.
      seen_B: int32, how many of the prompt's places come before the row.
    """

    index_B: Array
    seen_B: Array


class Rows(NamedTuple):
    """Rows of tokens and what the loss needs of them.

    Attributes:
      target_BT: int32, the token that follows in the sequence, which the place predicts; 0 where none follows.
      sampler_logp_BT: float32, the sampler's log-probs, kept beside `batch.old_logp_BT` to measure the gap.
      prompt: The rows' shared prompts; None if rows hold their own prompts.
      number_BT: int32, number of the token in the training buffer, for random keys; None unless the loss reads them.
      fresh_BT: bool, whether its answer began in this step; None if all did.
      watched_BT: int32, number of the token among those that are recorded, −1 for none; None if none are.
    """

    tokens: Tokens
    target_BT: Array
    batch: LossBatch
    sampler_logp_BT: Array
    prompt: RowPrompts | None
    number_BT: Array | None = None
    fresh_BT: Array | None = None
    watched_BT: Array | None = None


class PackedRows(NamedTuple):
    """Packed rows and the prompts that they share.

    Attributes:
      rows: The first `used` (int32) rows hold tokens.
      prompts: The first `prompts_used` (int32) places are filled; both are None if rows hold their own prompts.
    """

    rows: Rows
    used: Array
    prompts: Prompts | None
    prompts_used: Array | None


def replace_values(packed: PackedRows, **values: Array) -> PackedRows:
    """Replaces fields of the rows' `LossBatch`."""
    return packed._replace(rows=packed.rows._replace(batch=packed.rows.batch._replace(**values)))


def rows_needed(units: int, unit_tokens: int, row_tokens: int, prompts: int = 1, most: int | None = None) -> int:
    """Returns the most rows that first-fit packing takes, where only units of the same prompt may share a row.

    All of a prompt's rows but the last hold `row_tokens // unit_tokens` units or more, or `most` if a row may hold no
    more.
    """
    each = min(row_tokens // unit_tokens, most or row_tokens)
    return min(units, (units + prompts * (each - 1)) // each)


def pack(
    sequences: Sequences,
    *,
    unit: int,
    row_count: int,
    row_tokens: int,
    shared_prompts: int | None = None,
    most: int | None = None,
) -> PackedRows:
    """Packs by first-fit-decreasing: the longest unit first, each into the first row that has room for it.

    Units are never split over rows, and a row holds at most `most`. `unit` is the number of sequences of a unit;
    `row_count` must be at least `rows_needed`. Units of 5, 4 and 6 tokens in rows of 10: row 0 holds the third and the
    second, row 1 the first. Without `most`, the packing takes at most 11/9 of the fewest possible rows, plus 2/3 of a
    row (Dósa 2007, "The tight bound of first fit decreasing bin-packing algorithm").

    A sequence of p prompt tokens and n answer tokens takes p + n − 1 places: its last token predicts nothing. With
    `shared_prompts` (the largest possible number of prompts), a row holds only the last n places, which predict the
    answer. All sequences of a row then share one prompt, whose first p − 1 places are in `PackedRows.prompts`.
    """
    I = sequences.prompt_IP.shape[0]
    prompts, used, prompt_I = None, None, jnp.zeros(I, jnp.int32)
    skipped_I = jnp.zeros_like(sequences.prompt_length_I)
    if shared_prompts is not None:
        prompts, used, prompt_I = _find_prompts(sequences, shared_prompts)
        skipped_I = sequences.prompt_length_I - 1
    length_I = sequences.prompt_length_I + sequences.answer_length_I - 1 - skipped_I
    length_I = jnp.where(sequences.present_I, length_I, 0)
    length_UJ = length_I.reshape(I // unit, unit)
    length_U = jnp.sum(length_UJ, axis=1, dtype=jnp.int32)
    places = _place_units(length_U, prompt_I[::unit], row_tokens, row_count, most)

    # Within a unit, sequences follow each other.
    before_I = (jnp.cumsum(length_UJ, axis=1) - length_UJ).reshape(I)
    start_I = jnp.repeat(places.row_U * row_tokens + places.offset_U, unit) + before_I
    id_I = jnp.repeat(places.index_U, unit) * unit + jnp.tile(jnp.arange(unit, dtype=jnp.int32), I // unit)

    # One scatter writes the source (sequence and token) of each place of the rows; all else is gathered.
    C = sequences.prompt_IP.shape[1] + sequences.answer_IT.shape[1]
    column_C = jnp.arange(C, dtype=jnp.int32)
    place_IC = jnp.where(column_C[None] < length_I[:, None], start_I[:, None] + column_C[None], row_count * row_tokens)
    source_IC = jnp.arange(I, dtype=jnp.int32)[:, None] * C + skipped_I[:, None] + column_C[None]
    source = (
        jnp.full(row_count * row_tokens, -1, jnp.int32).at[place_IC].set(source_IC, mode="drop", unique_indices=False)
    )
    rows = _gather_rows(sequences, source.reshape(row_count, row_tokens), id_I, unit)
    if prompts is not None:
        rows = rows._replace(prompt=RowPrompts(places.prompt_B, prompts.length_Q[places.prompt_B] - 1))
    return PackedRows(rows, places.used, prompts, used)


class _SharedPrompts(NamedTuple):
    """The distinct prompts of the present sequences, their number, and the index of each sequence's prompt."""

    prompts: Prompts
    used: Array
    prompt_I: Array


def _find_prompts(sequences: Sequences, most: int) -> _SharedPrompts:
    """Finds the prompts of the present sequences, at most `most`."""
    absent = jnp.iinfo(jnp.int32).max
    group_I = jnp.where(sequences.present_I, sequences.group_I, absent)
    # One more place, for the number of all absent sequences, which sorts last.
    group_Q, first_Q, prompt_I = jnp.unique(
        group_I, return_index=True, return_inverse=True, size=most + 1, fill_value=absent
    )
    prompts = Prompts(sequences.prompt_IP[first_Q[:most]], sequences.prompt_length_I[first_Q[:most]])
    return _SharedPrompts(prompts, jnp.sum((group_Q < absent).astype(jnp.int32)), prompt_I.astype(jnp.int32))


class _Places(NamedTuple):
    """Where units are in the rows.

    Attributes:
      row_U: int32, the unit's row.
      offset_U: int32, where the unit begins in its row.
      index_U: int32, number of the unit in its row.
      prompt_B: int32, each row's prompt; 0 if the row is empty.
      used: int32, rows in use.
    """

    row_U: Array
    offset_U: Array
    index_U: Array
    prompt_B: Array
    used: Array


def _place_units(length_U: Array, prompt_U: Array, row_tokens: int, row_count: int, most: int | None) -> _Places:
    """Places the longest unit first, each in the first row of its prompt that has room, and fewer than `most` units."""
    order_U = jnp.argsort(-length_U, stable=True)

    def place_unit(state, unit):
        used_B, units_B, prompt_B = state
        length, prompt = unit
        free_B = (used_B + length <= row_tokens) & ((used_B == 0) | (prompt_B == prompt))
        if most is not None:
            free_B &= units_B < most
        row = jnp.argmax(free_B).astype(jnp.int32)
        place = row, used_B[row], units_B[row]
        # An empty unit takes no room, and no number.
        present = length > 0
        units_B = units_B.at[row].add(present.astype(jnp.int32))
        prompt_B = prompt_B.at[row].set(jnp.where(present, prompt, prompt_B[row]))
        return (used_B.at[row].add(length), units_B, prompt_B), place

    none_B = jnp.zeros(row_count, jnp.int32)
    units = length_U[order_U], prompt_U[order_U]
    (used_B, _, prompt_B), places = jax.lax.scan(place_unit, (none_B, none_B, none_B), units)
    places = (jnp.zeros_like(place_U).at[order_U].set(place_U) for place_U in places)
    return _Places(*places, prompt_B, jnp.sum((used_B > 0).astype(jnp.int32)))


def _gather_rows(sequences: Sequences, source_BT: Array, id_I: Array, unit: int) -> Rows:
    """Gathers the rows: `source_BT` is sequence · (P + T) + place in the sequence, or −1; `id_I` is its segment."""
    P, T = sequences.prompt_IP.shape[1], sequences.answer_IT.shape[1]
    filled_BT = source_BT >= 0
    sequence_BT, position_BT = jnp.divmod(jnp.where(filled_BT, source_BT, 0), P + T)
    # Index of the answer token that the place predicts; below 0 in the prompt, except at its last token.
    predicted_BT = position_BT + 1 - sequences.prompt_length_I[sequence_BT]
    predicts_BT = filled_BT & (predicted_BT >= 0)
    next_answer_BT = sequences.answer_IT[sequence_BT, jnp.maximum(predicted_BT, 0)]

    def take_value(value_I, outside=0.0):
        if value_I is None:
            return None
        return jnp.where(predicts_BT, value_I[sequence_BT], jnp.asarray(outside, value_I.dtype))

    def take_prompt_token(column_BT):
        return jnp.where(filled_BT, sequences.prompt_IP[sequence_BT, jnp.minimum(column_BT, P - 1)], 0)

    in_answer_BT = filled_BT & (predicted_BT > 0)
    this_answer_BT = sequences.answer_IT[sequence_BT, jnp.maximum(predicted_BT - 1, 0)]

    def take_token_value(value_IT):
        if value_IT is None:
            return None
        return jnp.where(predicts_BT, value_IT[sequence_BT, jnp.maximum(predicted_BT, 0)], 0.0)

    def take_number(answer_I):
        answer_BT = take_value(answer_I, -1)
        return None if answer_BT is None else jnp.where(answer_BT < 0, -1, answer_BT * T + predicted_BT)

    logp_BT, advantage_BT = take_token_value(sequences.logp_IT), take_value(sequences.advantage_I)
    if sequences.return_IT is not None:
        advantage_BT += take_token_value(sequences.return_IT)
    return Rows(
        tokens=Tokens(
            token_BT=jnp.where(in_answer_BT, this_answer_BT, take_prompt_token(position_BT)),
            segment_BT=jnp.where(filled_BT, id_I[sequence_BT], -1),
            position_BT=jnp.where(filled_BT, position_BT, 0),
        ),
        target_BT=jnp.where(predicts_BT, next_answer_BT, take_prompt_token(position_BT + 1)),
        batch=LossBatch(
            old_logp_BT=logp_BT,
            answer_BT=take_value(id_I, -1),
            reward_BT=take_value(sequences.reward_I),
            rate_BT=take_value(sequences.rate_I),
            advantage_BT=advantage_BT,
            pair_BT=take_value(id_I // 2, -1) if unit == 2 else jnp.full_like(source_BT, -1),
            truncated_BT=take_value(sequences.truncated_I),
            length_BT=take_value(sequences.length_I),
            complete_BT=take_value(sequences.complete_I),
            graded_BT=take_value(sequences.graded_I),
            token_reward_BT=take_token_value(sequences.token_reward_IT),
        ),
        sampler_logp_BT=logp_BT,
        prompt=None,
        number_BT=None if sequences.number_I is None else take_value(sequences.number_I, 0) * T + predicted_BT,
        fresh_BT=take_value(sequences.fresh_I, False),
        watched_BT=take_number(sequences.watched_I),
    )
