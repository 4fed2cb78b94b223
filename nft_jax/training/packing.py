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
    """Rows that next-fit packing takes at most: each but the last holds `row_tokens // unit_tokens` units or more."""
    return -(-units // (row_tokens // unit_tokens))


def pack(sequences: Sequences, *, unit: int, row_count: int, row_tokens: int) -> Packed:
    """Next-fit packing, in the given order: a unit that doesn't fit the rest of a row opens the next one.

    Units are never split over rows. `unit` is the number of sequences of a unit; `row_count` must be at least
    `rows_needed`. Two units of 5 and 4 tokens and one of 6 in rows of 10: row 0 holds the first two, row 1 the third.
    """
    M, P = sequences.prompt_MP.shape
    T = sequences.answer_MT.shape[1]
    length_M = jnp.where(sequences.present_M, sequences.prompt_length_M + sequences.answer_length_M, 0)
    row_U, offset_U, index_U, used = _place(jnp.sum(length_M.reshape(M // unit, unit), axis=1), row_tokens)

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


def _place(length_U, row_tokens):
    """Row, offset and index in its row of each unit, and the number of rows in use."""

    def step(state, length):
        row, used, index = state
        opens = used + length > row_tokens
        row = row + opens.astype(jnp.int32)
        used, index = jnp.where(opens, 0, used), jnp.where(opens, 0, index)
        return (row, used + length, index + (length > 0).astype(jnp.int32)), (row, used, index)

    zero = jnp.int32(0)
    (last, used, _), (row_U, offset_U, index_U) = jax.lax.scan(step, (zero, zero, zero), length_U)
    return row_U, offset_U, index_U, jnp.where(used > 0, last + 1, 0)


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
