"""What one update measures of the tokens that it trains on."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.losses import ratio_statistics
from nft_jax.types import Array, LossBatch, SeenTokens


class UpdateStatistics(NamedTuple):
    """What one update measured, as float32 scalars: sums over answer tokens, and maxima.

    Attributes:
      objective: The loss that was differentiated, KL term included.
      entropy: Σ entropy, in nats.
      gap, gap_max: Σ and maximum of |log-prob by this forward pass − log-prob by the sampler|, over answers that began
        in this step.
      ratio, ratio_max: Σ and maximum of π_θ/π_old.
      clamped: Σ incorrect tokens at NFT's value clamp, (1 − r̂R)/(1 − r̂) < ε; counted for every loss, at ε = 1.
      rate_clamped: Σ tokens whose r̂ is outside [0.02, 0.98] though the group is mixed.
      log_ratio_clamped: Σ tokens with log R > 10.
      kl: Σ estimate (`loss.kl`) of the KL divergence from the reference policy.
      own: Σ of each metric of the loss's own, by name.
      fresh: Σ tokens of answers that began in this step; None if all did.
      drift: Σ |log-prob by this forward pass − log-prob by the sampler| over the others; None if there can be none.
      seen: The recorded tokens, arrays `[data shards, tokens]` (watch.py); None if none are recorded.
    """

    objective: Array
    entropy: Array
    gap: Array
    gap_max: Array
    ratio: Array
    ratio_max: Array
    clamped: Array
    rate_clamped: Array
    log_ratio_clamped: Array
    kl: Array
    own: dict[str, Array] = {}
    fresh: Array | None = None
    drift: Array | None = None
    seen: SeenTokens | None = None

    def merge(self, other: "UpdateStatistics") -> "UpdateStatistics":
        """Merges the statistics of two micro-batches: adds the sums, takes the larger maxima."""
        return self._reduce(jnp.add, jnp.maximum, other)

    def merge_axis(self) -> "UpdateStatistics":
        """Merges several statistics along the first axis of each array."""
        return self._reduce(functools.partial(jnp.sum, axis=0), functools.partial(jnp.max, axis=0))

    def _reduce(self, add: Callable, largest: Callable, *others: "UpdateStatistics") -> "UpdateStatistics":
        by_field = zip(self._fields, self, *others, strict=True)
        merged = (jax.tree.map(largest if name.endswith("_max") else add, *values) for name, *values in by_field)
        return UpdateStatistics(*merged)


def no_statistics(own: tuple[str, ...], *, partial: bool = False) -> UpdateStatistics:
    """Returns the statistics of no token, with these metrics of the loss's own; `partial`: as `rollout.partial`."""
    statistics = UpdateStatistics(*[0.0] * len(UpdateStatistics._fields))
    statistics = statistics._replace(own=dict.fromkeys(own, 0.0), seen=None)
    return statistics if partial else statistics._replace(fresh=None, drift=None)


def measure(
    objective: Array,
    logp_BT: Array,
    entropy_BT: Array,
    kl_BT: Array,
    batch: LossBatch,
    sampler_logp_BT: Array,
    own: dict[str, Array],
    fresh_BT: Array | None = None,
) -> UpdateStatistics:
    """Measures one micro-batch; `own` holds the loss's own metrics of each token."""
    answer_BT = batch.answer_BT >= 0
    seen = ratio_statistics(logp_BT, batch)
    gap_BT = jnp.where(answer_BT, jnp.abs(logp_BT - sampler_logp_BT), 0.0)
    by_age = {}
    if fresh_BT is not None:
        # A gap is between two computations with the same weights.
        drift_BT, gap_BT = jnp.where(fresh_BT, 0.0, gap_BT), jnp.where(fresh_BT, gap_BT, 0.0)
        by_age = {"fresh": jnp.sum(answer_BT & fresh_BT, dtype=gap_BT.dtype), "drift": jnp.sum(drift_BT)}
    return UpdateStatistics(
        objective=objective,
        entropy=jnp.sum(jnp.where(answer_BT, entropy_BT, 0.0)),
        gap=jnp.sum(gap_BT),
        gap_max=jnp.max(gap_BT),
        ratio=jnp.sum(seen["ratio"]),
        ratio_max=jnp.max(seen["ratio"]),
        clamped=jnp.sum(seen["value_clamped"]),
        rate_clamped=jnp.sum(seen["rate_clamped"]),
        log_ratio_clamped=jnp.sum(seen["log_ratio_clamped"]),
        kl=jnp.sum(kl_BT),
        own={name: jnp.sum(jnp.where(answer_BT, value_BT, 0.0)) for name, value_BT in own.items()},
        **by_age,
    )
