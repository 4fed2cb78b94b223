"""Units of sequences laid into rows of tokens, inside the program: cost follows real tokens, not the longest answer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.types import Array, LossBatch, Tokens


class Sequences(NamedTuple):
    """M sequences: a prompt and an answer each. J consecutive ones form a unit (J = 1 an answer, J = 2 a pair).

    `prompt_MP`, `answer_MT`      int32    tokens, padded on the right
    `prompt_length_M`             int32    prompt tokens
    `answer_length_M`             int32    answer tokens; 0 where `present_M` is False
    `logp_MT`                     float32  log-probs of the answer's tokens by the sampler
    `reward_M rate_M advantage_M` float32  as in `LossBatch`
    `present_M`                   bool     False: an empty place, takes no room in any row
    """

    prompt_MP: Array
    answer_MT: Array
    prompt_length_M: Array
    answer_length_M: Array
    logp_MT: Array
    reward_M: Array
    rate_M: Array
    advantage_M: Array
    present_M: Array


class Rows(NamedTuple):
    """Rows of tokens and what the loss needs of them.

    `sampler_logp_BT`  float32  the sampler's log-probs, kept beside `batch.old_logp_BT` to measure the gap
    """

    tokens: Tokens
    batch: LossBatch
    sampler_logp_BT: Array


class Packed(NamedTuple):
    """Rows of which the first `used` (int32) hold tokens."""

    rows: Rows
    used: Array


def rows_needed(units: int, unit_tokens: int, row_tokens: int) -> int:
    """Rows that first-fit packing takes at most: each but the last holds `row_tokens // unit_tokens` units or more."""
    return -(-units // (row_tokens // unit_tokens))


def pack(sequences: Sequences, *, unit: int, row_count: int, row_tokens: int) -> Packed:
    """First-fit-decreasing packing: the longest unit first, each into the first row that has room for it.

    Units are never split over rows. `unit` is the number of sequences of a unit; `row_count` must be at least
    `rows_needed`. Units of 5, 4 and 6 tokens in rows of 10: row 0 holds the third and the second, row 1 the first.
    It takes at most 11/9 of the fewest rows, and 2/3 of one (Dósa 2007, "The tight bound of first fit decreasing
    bin-packing algorithm").
    """
    M, P = sequences.prompt_MP.shape
    T = sequences.answer_MT.shape[1]
    length_M = jnp.where(sequences.present_M, sequences.prompt_length_M + sequences.answer_length_M, 0)
    row_U, offset_U, index_U, used = _place(jnp.sum(length_M.reshape(M // unit, unit), axis=1), row_tokens, row_count)

    # Within a unit, sequences follow each other.
    before_M = (jnp.cumsum(length_M.reshape(M // unit, unit), axis=1) - length_M.reshape(M // unit, unit)).reshape(M)
    start_M = jnp.repeat(row_U * row_tokens + offset_U, unit) + before_M
    id_M = jnp.repeat(index_U, unit) * unit + jnp.tile(jnp.arange(unit, dtype=jnp.int32), M // unit)

    # One scatter says for each place of the rows which token of which sequence lies there; all else is gathered.
    column_S = jnp.arange(P + T, dtype=jnp.int32)
    place_MS = jnp.where(column_S[None] < length_M[:, None], start_M[:, None] + column_S[None], row_count * row_tokens)
    source_MS = jnp.arange(M * (P + T), dtype=jnp.int32).reshape(M, P + T)
    source = (
        jnp.full(row_count * row_tokens, -1, jnp.int32).at[place_MS].set(source_MS, mode="drop", unique_indices=False)
    )
    source_BT = source.reshape(row_count, row_tokens)
    return Packed(_gather(sequences, source_BT, id_M, unit), used)


def _place(length_U, row_tokens, row_count):
    """Row, offset and index in its row of each unit, and the number of rows in use."""
    order_U = jnp.argsort(-length_U, stable=True)

    def step(state, length):
        used_R, units_R = state
        row = jnp.argmax(used_R + length <= row_tokens).astype(jnp.int32)
        place = row, used_R[row], units_R[row]
        # An empty unit takes no room, and no number.
        return (used_R.at[row].add(length), units_R.at[row].add((length > 0).astype(jnp.int32))), place

    none_R = jnp.zeros(row_count, jnp.int32)
    (used_R, _), places = jax.lax.scan(step, (none_R, none_R), length_U[order_U])
    row_U, offset_U, index_U = (jnp.zeros_like(place_U).at[order_U].set(place_U) for place_U in places)
    return row_U, offset_U, index_U, jnp.sum((used_R > 0).astype(jnp.int32))


def _gather(sequences, source_BT, id_M, unit):
    P, T = sequences.prompt_MP.shape[1], sequences.answer_MT.shape[1]
    filled_BT = source_BT >= 0
    sequence_BT, column_BT = jnp.divmod(jnp.where(filled_BT, source_BT, 0), P + T)
    prompt_length_BT = sequences.prompt_length_M[sequence_BT]
    in_answer_BT = filled_BT & (column_BT >= prompt_length_BT)
    prompt_column_BT = jnp.minimum(column_BT, P - 1)
    answer_column_BT = jnp.clip(column_BT - prompt_length_BT, 0, T - 1)

    def of_answer(value_M, outside=0.0):
        return jnp.where(in_answer_BT, value_M[sequence_BT], jnp.asarray(outside, value_M.dtype))

    token_BT = jnp.where(
        in_answer_BT,
        sequences.answer_MT[sequence_BT, answer_column_BT],
        jnp.where(filled_BT, sequences.prompt_MP[sequence_BT, prompt_column_BT], 0),
    )
    logp_BT = jnp.where(in_answer_BT, sequences.logp_MT[sequence_BT, answer_column_BT], 0.0)
    return Rows(
        tokens=Tokens(
            token_BT=token_BT,
            segment_BT=jnp.where(filled_BT, id_M[sequence_BT], -1),
            position_BT=jnp.where(filled_BT, column_BT, 0),
        ),
        batch=LossBatch(
            old_logp_BT=logp_BT,
            answer_BT=of_answer(id_M, -1),
            reward_BT=of_answer(sequences.reward_M),
            rate_BT=of_answer(sequences.rate_M),
            advantage_BT=of_answer(sequences.advantage_M),
            pair_BT=of_answer(id_M // 2, -1) if unit == 2 else jnp.full_like(source_BT, -1),
        ),
        sampler_logp_BT=logp_BT,
    )
