"""What a loss's `prepare` does to a whole optimizer batch: the rows of all micro-batches and shards are one axis."""

import jax.numpy as jnp

from nft_jax.types import Array, LossBatch, Totals


def reject(batch: LossBatch, keep_BT: Array) -> LossBatch:
    """Takes tokens out of the batch: those that aren't kept belong to no answer, and no denominator counts them.

    `keep_BT` is bool. For losses of unit "answer".
    """
    keep_BT = keep_BT & (batch.answer_BT >= 0)

    def mask(value_BT):
        none = -1 if jnp.issubdtype(value_BT.dtype, jnp.integer) else 0
        return jnp.where(keep_BT, value_BT, jnp.asarray(none, value_BT.dtype))

    values = batch._replace(key_BT=None)._asdict()
    kept = {name: mask(value_BT) for name, value_BT in values.items() if value_BT is not None}
    return batch._replace(**kept)


def batch_mean(value_BT: Array, batch: LossBatch) -> Array:
    """Averages over the answer tokens of all rows: a scalar, 0 without tokens."""
    inside_BT = batch.answer_BT >= 0
    return jnp.sum(jnp.where(inside_BT, value_BT, 0)) / jnp.maximum(jnp.sum(inside_BT), 1).astype(value_BT.dtype)


def whiten(batch: LossBatch, epsilon: float = 1e-8) -> LossBatch:
    """Replaces the advantages by their distance from the mean over all answer tokens, in standard deviations.

    advantage = (advantage − mean) / √(variance + epsilon), the variance with one degree of freedom less
    """
    mean = batch_mean(batch.advantage_BT, batch)
    tokens = count_rows(batch).tokens
    variance = batch_mean(jnp.square(batch.advantage_BT - mean), batch) * tokens / jnp.maximum(tokens - 1, 1)
    white_BT = (batch.advantage_BT - mean) / jnp.sqrt(variance + epsilon)
    return batch._replace(advantage_BT=jnp.where(batch.answer_BT >= 0, white_BT, 0))


def smallest(value_BT: Array, among_BT: Array, count: Array) -> Array:
    """Tells which are the `count` smallest values of those `among_BT`: as float, and more of them where values tie."""
    order_M = jnp.sort(jnp.where(among_BT, value_BT, jnp.inf).reshape(-1))
    limit = order_M[jnp.clip(count.astype(jnp.int32) - 1, 0, order_M.size - 1)]
    return (among_BT & (value_BT <= limit)).astype(value_BT.dtype)


def share_of_tokens(share: float, batch: LossBatch) -> Array:
    """Returns `share` of the answer tokens, rounded down, at least 1."""
    # A product such as 0.0002 · 5000 is a whole number, and must not be rounded down to the one before.
    return jnp.maximum(jnp.floor(share * count_rows(batch).tokens * (1 + 1e-6)), 1)


def covariance(logp_BT: Array, batch: LossBatch) -> Array:
    """Returns each token's part of the covariance of advantage and log-prob over the batch; 0 outside answers.

    covariance = (advantage − mean advantage) · (logp − mean logp)

    Cui et al., arXiv 2505.22617, the token-wise covariance.
    """
    far_BT = batch.advantage_BT - batch_mean(batch.advantage_BT, batch)
    inside_BT = batch.answer_BT >= 0
    return jnp.where(inside_BT, far_BT * (jnp.where(inside_BT, logp_BT, 0) - batch_mean(logp_BT, batch)), 0)


def count_rows(batch: LossBatch) -> Totals:
    """Counts the answers, tokens and pairs that rows hold, as `Totals`."""
    dtype = batch.reward_BT.dtype

    def count_ids(id_BT):
        # Ids are numbers in their row, of which one without tokens isn't counted.
        B, T = id_BT.shape
        row_B1 = jnp.arange(B, dtype=jnp.int32)[:, None]
        seen_BT = jnp.zeros((B, T), bool).at[row_B1, jnp.where(id_BT >= 0, id_BT, T)].set(True, mode="drop")
        return jnp.sum(seen_BT).astype(dtype)

    tokens = jnp.sum(batch.answer_BT >= 0).astype(dtype)
    return Totals(answers=count_ids(batch.answer_BT), tokens=tokens, pairs=count_ids(batch.pair_BT))
