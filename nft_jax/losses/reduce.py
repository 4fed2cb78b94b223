"""From per-token losses to the objective: the sum over an answer, and the normalizers by name.

The normalizer is part of the algorithm. Each is a weight per token, so that the objective is
`sum(loss_BT * weight_BT)` over all micro-batches, with denominators that count the whole minibatch.
"""

import chex
import jax
import jax.numpy as jnp

from nft_jax.names import lookup
from nft_jax.types import Array, LossBatch, Totals


def answer_sum(x_BT: Array, answer_BT: Array) -> Array:
    """Sums `x` over each answer and gives the sum to each of its tokens; 0 outside answers.

    `answer_BT` holds ids in [0, T), or −1 for none; the tokens of an answer need not be adjacent. With `pair_BT`
    it sums over each pair. The cost is O(T) a row: segment sums, no [B, T, T] mask.
    """
    chex.assert_rank([x_BT, answer_BT], 2)
    chex.assert_equal_shape([x_BT, answer_BT])
    chex.assert_type(answer_BT, int)
    inside_BT = answer_BT >= 0
    # Tokens outside answers add 0 to answer 0, and their results are masked.
    id_BT = jnp.where(inside_BT, answer_BT, 0)
    addend_BT = jnp.where(inside_BT, x_BT, 0)

    def row(addend_T, id_T):
        return jax.ops.segment_sum(addend_T, id_T, num_segments=id_T.size)[id_T]

    return jnp.where(inside_BT, jax.vmap(row)(addend_BT, id_BT), 0)


def answer_length(answer_BT: Array, dtype: jnp.dtype) -> Array:
    """Counts the tokens of each token's answer (or pair); 1 outside, so that one can divide by it."""
    return jnp.where(answer_BT >= 0, answer_sum(jnp.ones(answer_BT.shape, dtype), answer_BT), 1)


def answer_mean(x_BT: Array, answer_BT: Array) -> Array:
    """Averages `x` over each answer and gives the mean to each of its tokens; 0 outside answers."""
    return answer_sum(x_BT, answer_BT) / answer_length(answer_BT, x_BT.dtype)


def sequence_mean(batch: LossBatch, totals: Totals, constant_tokens: float) -> Array:
    """Weighs a token by `1 / (length of the answer · answers)`: the mean over answers of their token means (GRPO)."""
    del constant_tokens
    length_BT = answer_length(batch.answer_BT, totals.answers.dtype)
    return jnp.where(batch.answer_BT >= 0, 1 / (length_BT * jnp.maximum(totals.answers, 1)), 0)


def token_mean(batch: LossBatch, totals: Totals, constant_tokens: float) -> Array:
    """Weighs a token by `1 / tokens`: the mean over all answer tokens of the minibatch (DAPO)."""
    del constant_tokens
    return jnp.where(batch.answer_BT >= 0, 1 / jnp.maximum(totals.tokens, 1), 0)


def constant(batch: LossBatch, totals: Totals, constant_tokens: float) -> Array:
    """Weighs a token by `1 / (answers · constant_tokens)`, whatever its answer's length (Dr. GRPO, NFT)."""
    return jnp.where(batch.answer_BT >= 0, 1 / (jnp.maximum(totals.answers, 1) * constant_tokens), 0)


def pair_mean(batch: LossBatch, totals: Totals, constant_tokens: float) -> Array:
    """Weighs a token by `1 / pairs`: the mean over pairs, whose tokens' losses sum to the pair's loss (DPO)."""
    del constant_tokens
    return jnp.where(batch.pair_BT >= 0, 1 / jnp.maximum(totals.pairs, 1), 0)


NORMALIZERS = {
    "sequence_mean": sequence_mean,
    "token_mean": token_mean,
    "constant": constant,
    "pair_mean": pair_mean,
}


def total_loss(loss_BT: Array, batch: LossBatch, totals: Totals, normalizer: str, constant_tokens: float) -> Array:
    """Computes `sum(loss · weight)`, this micro-batch's part of the objective: a scalar; parts add up.

    `totals` counts the whole minibatch.

    Raises:
      ValueError: for a name not in `NORMALIZERS`.
    """
    chex.assert_equal_shape([loss_BT, batch.answer_BT])
    weigh = lookup(NORMALIZERS, normalizer, "normalizer")
    return jnp.sum(loss_BT * weigh(batch, totals, constant_tokens))
