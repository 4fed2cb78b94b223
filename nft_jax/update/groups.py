"""Groups with their success rates, the choice of groups that train, and statistics of everything sampled."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.losses.advantage import group_mean
from nft_jax.types import Array, Groups, Rollout
from nft_jax.verify.callback import NOT_GRADED, HostReport, graders_differ
from nft_jax.verify.grade import STATUSES

RATE_BINS = 11


class RolloutStatistics(NamedTuple):
    """Sums over everything sampled in a step, trained on or not (float32).

    Attributes:
      tokens: Answer tokens.
      kept: Groups that may train.
      reward: Σ reward, as advantages are made of it.
      verdicts: `[5]`, answers by status, in the order of `STATUSES`.
      rates: `[11]`, groups by success rate, rounded to tenths.
      longest: Tokens of the longest answer.
      seconds: Host seconds of grading, summed over rounds; of the slowest device in each.
      compared: Answers that a second grader judged too.
      disagreements: Of these, the answers that only one grader calls correct.
      capacity: Tokens that all shards could have drawn with every slot busy.
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
    disagreements: Array
    capacity: Array


def empty_statistics() -> RolloutStatistics:
    """Returns statistics that are all 0."""
    zero = jnp.float32(0)
    many = {"verdicts": jnp.zeros(len(STATUSES)), "rates": jnp.zeros(RATE_BINS)}
    return RolloutStatistics(**{name: many.get(name, zero) for name in RolloutStatistics._fields})


class Ages(NamedTuple):
    """How old the answers are that a step trains on, in steps since their first token (float32).

    Attributes:
      answers: All answers.
      older: Answers that began in an earlier step.
      total: Σ age.
      oldest: The largest age.
    """

    answers: Array
    older: Array
    total: Array
    oldest: Array


def measure_ages(groups: Groups, count: Array) -> Ages:
    """Measures the first `count` groups."""
    Q, K = groups.reward_QK.shape
    age_QK = jnp.where(jnp.arange(Q)[:, None] < count, groups.age_QK, 0)
    return Ages(_count(count * K), _count(age_QK > 0), _count(age_QK), jnp.max(age_QK).astype(jnp.float32))


def add_step(groups: Groups) -> Groups:
    """Returns groups as the next step sees them: each answer a step older, if ages are counted."""
    return groups._replace(age_QK=jax.tree.map(lambda age_QK: age_QK + 1, groups.age_QK))


def make_groups(
    prompt_Q: Array,
    rollout: Rollout,
    verdict_B: Array,
    graded_B: Array | None = None,
    age_B: Array | None = None,
) -> Groups:
    """Gathers each prompt's K answers with their verdicts, and rewards and ages if there are some.

    A truncated answer counts as incorrect, and its reward is 0.
    """
    Q = prompt_Q.shape[0]
    by_group: Any = jax.tree.map(lambda x: x.reshape(Q, -1, *x.shape[1:]), rollout)
    verdict_QK = verdict_B.reshape(Q, -1)
    correct_QK = (verdict_QK == STATUSES.index("correct")) & ~by_group.truncated_B
    reward_QK = correct_QK.astype(jnp.float32)
    return Groups(
        prompt_Q=prompt_Q,
        token_QKT=by_group.token_BT,
        logp_QKT=by_group.logp_BT,
        length_QK=by_group.length_B,
        truncated_QK=by_group.truncated_B,
        verdict_QK=verdict_QK,
        reward_QK=reward_QK,
        rate_Q=group_mean(reward_QK)[:, 0],
        graded_QK=None if graded_B is None else jnp.where(by_group.truncated_B, 0, graded_B.reshape(Q, -1)),
        age_QK=None if age_B is None else age_B.reshape(Q, -1),
    )


def select_groups(groups: Groups, which: str, low: float, high: float, *, by_verdicts: bool = False) -> Array:
    """Selects the groups that may train, bool `[Q]`: "all", "some_incorrect" (rate < high) or "mixed".

    With graded rewards, the mean reward takes the place of the rate, and the rewards of a mixed group are not all
    equal. A loss that learns `by_verdicts` keeps the rate.
    """
    if which == "all":
        return jnp.ones_like(groups.rate_Q, bool)
    graded_QK = None if by_verdicts else groups.graded_QK
    rate_Q = groups.rate_Q if graded_QK is None else group_mean(graded_QK)[:, 0]
    if which == "some_incorrect":
        return rate_Q < high
    mixed_Q = (rate_Q > low) & (rate_Q < high)
    return mixed_Q if graded_QK is None else mixed_Q & (jnp.max(graded_QK, axis=1) > jnp.min(graded_QK, axis=1))


def append_groups(pool: Groups, count: Array, groups: Groups, keep_Q: Array) -> tuple[Groups, Array]:
    """Appends the kept groups, in order, behind the first `count` of the pool; returns the pool and its new count."""
    capacity = pool.prompt_Q.shape[0]
    place_Q = jnp.where(keep_Q, count + jnp.cumsum(keep_Q, dtype=jnp.int32) - 1, capacity)
    pool = jax.tree.map(lambda room, new: room.at[place_Q].set(new, mode="drop"), pool, groups)
    return pool, jnp.minimum(count + jnp.sum(keep_Q, dtype=jnp.int32), capacity)


def empty_groups(Q: int, K: int, T: int, graded: bool = False, aged: bool = False) -> Groups:
    """Returns Q empty places for groups, `graded` ones with rewards beside their verdicts, `aged` ones with ages."""
    return Groups(
        prompt_Q=jnp.zeros(Q, jnp.int32),
        token_QKT=jnp.zeros((Q, K, T), jnp.int32),
        logp_QKT=jnp.zeros((Q, K, T), jnp.float32),
        length_QK=jnp.zeros((Q, K), jnp.int32),
        truncated_QK=jnp.zeros((Q, K), bool),
        verdict_QK=jnp.zeros((Q, K), jnp.int32),
        reward_QK=jnp.zeros((Q, K), jnp.float32),
        rate_Q=jnp.zeros(Q, jnp.float32),
        graded_QK=jnp.zeros((Q, K), jnp.float32) if graded else None,
        age_QK=jnp.zeros((Q, K), jnp.int32) if aged else None,
    )


def add_statistics(
    before: RolloutStatistics, groups: Groups, host: HostReport, capacity_X: Array, *, kept_Q: Array
) -> RolloutStatistics:
    """Adds one round's groups, of which `kept_Q` may train."""
    bin_Q = jnp.round(groups.rate_Q * (RATE_BINS - 1)).astype(jnp.int32)
    seen = RolloutStatistics(
        groups=jnp.float32(groups.rate_Q.size),
        answers=jnp.float32(groups.reward_QK.size),
        tokens=_count(groups.length_QK),
        truncated=_count(groups.truncated_QK),
        kept=_count(kept_Q),
        reward=jnp.sum(groups.earned_QK),
        verdicts=jnp.bincount(groups.verdict_QK.reshape(-1), length=len(STATUSES)).astype(jnp.float32),
        rates=jnp.bincount(bin_Q, length=RATE_BINS).astype(jnp.float32),
        longest=jnp.float32(0),
        seconds=jnp.max(host.seconds),
        compared=_count(host.second_B != NOT_GRADED),
        capacity=_count(capacity_X),
        disagreements=_count(graders_differ(groups.verdict_QK.reshape(-1), host.second_B)),
    )
    longest = jnp.maximum(before.longest, jnp.max(groups.length_QK).astype(jnp.float32))
    return jax.tree.map(jnp.add, before, seen)._replace(longest=longest)


def _count(x):
    return jnp.sum(x).astype(jnp.float32)


class SplitPool(NamedTuple):
    """What trains in this step, and what becomes of the surplus.

    Attributes:
      buffer: Q groups; the first `trained` (int32) places are filled.
      surplus: Groups for the next step; the first `carried` (int32) places are filled.
      wasted: int32, groups that neither train nor are carried.
    """

    buffer: Groups
    trained: Array
    surplus: Groups
    carried: Array
    wasted: Array


def split_pool(pool: Groups, count: Array, Q: int, capacity: int) -> SplitPool:
    """Splits the first `count` groups: Q train, at most `capacity` are carried to the next step, the rest is wasted."""
    trained = jnp.minimum(count, Q)
    carried = jnp.minimum(count - trained, capacity)
    buffer, surplus = (jax.tree.map(lambda x, part=part: x[part], pool) for part in (slice(Q), slice(Q, Q + capacity)))
    return SplitPool(buffer, trained, surplus, carried, wasted=count - trained - carried)
