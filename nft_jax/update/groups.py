"""Group statistics, dynamic sampling's choice of groups, and the tally of all that was sampled."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.types import Array, Groups, Rollout
from nft_jax.verify.callback import NOT_ASKED, HostReport, graders_differ
from nft_jax.verify.grade import STATUSES

RATE_BINS = 11


class RolloutStatistics(NamedTuple):
    """Sums over everything sampled in a step, trained on or not (float32; answers of padding count nowhere).

    `groups`, `answers`, `tokens`, `truncated`  how many          `kept`      groups inside the band
    `reward`      Σ reward                                        `verdicts`  `[5]`, in the order of `STATUSES`
    `rates`       `[11]`: groups by rate, rounded to tenths       `longest`   tokens of the longest answer
    `seconds`     host seconds spent grading, the slowest device of each round
    `compared`    answers that a second grader judged too         `differ`    of these, that only one calls correct
    `capacity`    tokens that the slots of all shards had time for
    """

    groups: Array
    answers: Array
    tokens: Array
    truncated: Array
    kept: Array
    reward: Array
    verdicts: Array
    rates: Array
    longest: Array
    seconds: Array
    compared: Array
    differ: Array
    capacity: Array


def empty_statistics() -> RolloutStatistics:
    zero = jnp.float32(0)
    many = {"verdicts": jnp.zeros(len(STATUSES)), "rates": jnp.zeros(RATE_BINS)}
    return RolloutStatistics(**{name: many.get(name, zero) for name in RolloutStatistics._fields})


def make_groups(prompt_Q: Array, rollout: Rollout, verdict_B: Array) -> Groups:
    """Gathers each prompt's K answers with their verdicts; a truncated answer is wrong whatever it says."""
    Q = prompt_Q.shape[0]
    by_group: Any = jax.tree.map(lambda x: x.reshape(Q, -1, *x.shape[1:]), rollout)
    verdict_QK = verdict_B.reshape(Q, -1)
    right_QK = (verdict_QK == STATUSES.index("correct")) & ~by_group.truncated_B
    reward_QK = right_QK.astype(jnp.float32)
    return Groups(
        prompt_Q=prompt_Q,
        token_QKT=by_group.token_BT,
        logp_QKT=by_group.logp_BT,
        length_QK=by_group.length_B,
        truncated_QK=by_group.truncated_B,
        verdict_QK=verdict_QK,
        reward_QK=reward_QK,
        rate_Q=jnp.mean(reward_QK, axis=1),
    )


def select_groups(groups: Groups, which: str, low: float, high: float) -> Array:
    """`[Q]` bool: the groups that train, "all" or those with `low < rate < high`."""
    if which == "all":
        return jnp.ones_like(groups.rate_Q, bool)
    return (groups.rate_Q > low) & (groups.rate_Q < high)


def append_groups(pool: Groups, count: Array, groups: Groups, keep_Q: Array) -> tuple[Groups, Array]:
    """Appends the kept groups, in order, behind the first `count` of the pool; returns the pool and its new count."""
    capacity = pool.prompt_Q.shape[0]
    place_Q = jnp.where(keep_Q, count + jnp.cumsum(keep_Q, dtype=jnp.int32) - 1, capacity)
    pool = jax.tree.map(lambda room, new: room.at[place_Q].set(new, mode="drop"), pool, groups)
    return pool, jnp.minimum(count + jnp.sum(keep_Q, dtype=jnp.int32), capacity)


def empty_groups(Q: int, K: int, T: int) -> Groups:
    """Room for Q groups."""
    return Groups(
        prompt_Q=jnp.zeros(Q, jnp.int32),
        token_QKT=jnp.zeros((Q, K, T), jnp.int32),
        logp_QKT=jnp.zeros((Q, K, T), jnp.float32),
        length_QK=jnp.zeros((Q, K), jnp.int32),
        truncated_QK=jnp.zeros((Q, K), bool),
        verdict_QK=jnp.zeros((Q, K), jnp.int32),
        reward_QK=jnp.zeros((Q, K), jnp.float32),
        rate_Q=jnp.zeros(Q, jnp.float32),
    )


def add_statistics(
    before: RolloutStatistics, groups: Groups, kept_Q: Array, host: HostReport, capacity_n: Array
) -> RolloutStatistics:
    """Adds one round's groups."""
    bin_Q = jnp.round(groups.rate_Q * (RATE_BINS - 1)).astype(jnp.int32)
    seen = RolloutStatistics(
        groups=jnp.float32(groups.rate_Q.size),
        answers=jnp.float32(groups.reward_QK.size),
        tokens=_count(groups.length_QK),
        truncated=_count(groups.truncated_QK),
        kept=_count(kept_Q),
        reward=jnp.sum(groups.reward_QK),
        verdicts=jnp.bincount(groups.verdict_QK.reshape(-1), length=len(STATUSES)).astype(jnp.float32),
        rates=jnp.bincount(bin_Q, length=RATE_BINS).astype(jnp.float32),
        longest=jnp.float32(0),
        seconds=jnp.max(host.seconds_n),
        compared=_count(host.second_B != NOT_ASKED),
        capacity=_count(capacity_n),
        differ=_count(graders_differ(groups.verdict_QK.reshape(-1), host.second_B)),
    )
    longest = jnp.maximum(before.longest, jnp.max(groups.length_QK).astype(jnp.float32))
    return jax.tree.map(jnp.add, before, seen)._replace(longest=longest)


def _count(x):
    return jnp.sum(x).astype(jnp.float32)
