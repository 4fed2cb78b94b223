"""From one round of a data shard to the next; with `rollout.partial`, when a round ends and which groups leave it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.parallel.mesh import SHARDS
from nft_jax.rollout.state import Progress
from nft_jax.types import Array, Rollout


def slot_sizes(slots: int, halvings: int, steps: int) -> list[int]:
    """Returns how many slots decode at a time, from all to the fewest: each halving goes in so many equal steps."""
    halves = [slots >> number for number in range(halvings + 1)]
    between = (
        more - (more - fewer) * step // steps for more, fewer in itertools.pairwise(halves) for step in range(1, steps)
    )
    return sorted({*halves, *between} - {0}, reverse=True)


def may_end(unfinished_Q: Array, age_Q: Array, leaving: int, most: int) -> Array:
    """Returns whether a round may end that `leaving` complete groups leave, the oldest of them first.

    Of the groups that are of age a or older, at most leaving · (most − a) may be unfinished, for each a from 0 to
    `most`. For a = 0, enough groups are then complete; for a = `most`, none of that age stays behind; in between, no
    more groups get old together than the next rounds can take. For NumPy and JAX arrays.

    Args:
      unfinished_Q: bool, of leaving · (1 + most) groups, begun or not: whether an answer has not ended.
      age_Q: int32, steps since the first token of each group, 0 before it.
    """
    age_A = np.arange(most + 1)
    unfinished_A = (unfinished_Q[None] & (age_Q[None] >= age_A[:, None])).sum(axis=1)
    return (unfinished_A <= leaving * (most - age_A)).all()


def find_unfinished(progress: Progress, K: int) -> Array:
    """Returns which groups, of K answers each, have some in slots or in the queue: bool `[Q]`."""
    Q = progress.rollout.length_B.shape[0] // K
    waits_Q = (jnp.arange(Q) + 1) * K > progress.next_answer[0]
    return waits_Q.at[progress.slots.answer_S // K].set(True, mode="drop")


def put_complete_first(progress: Progress, leaving: int, K: int) -> Progress:
    """Numbers groups and answers anew: first the `leaving` oldest complete groups, then the others in their order.

    The queue keeps its place, as all complete groups come before its first answer.
    """
    slots, B = progress.slots, progress.rollout.length_B.shape[0]
    complete_Q = ~find_unfinished(progress, K)
    leaves_Q = complete_Q & (jnp.cumsum(complete_Q) <= leaving)
    order_Q = jnp.argsort(~leaves_Q, stable=True)
    place_Q = jnp.argsort(order_Q).astype(jnp.int32)
    order_B = (order_Q[:, None] * K + jnp.arange(K)[None]).reshape(B)
    answer_S = place_Q[slots.answer_S // K] * K + slots.answer_S % K
    by_answer = progress.rollout, progress.unsubmitted_B, progress.age_B
    rollout, unsubmitted_B, age_B = jax.tree.map(lambda x: x[order_B], by_answer)
    return progress._replace(
        slots=slots._replace(answer_S=jnp.where(slots.answer_S < B, answer_S, B)),
        rollout=rollout,
        unsubmitted_B=unsubmitted_B,
        age_B=age_B,
        draw_Q=progress.draw_Q[order_Q],
    )


def drop_round(progress: Progress, newest_Q: Array, K: int) -> Progress:
    """Numbers groups and answers anew without the first round, and adds an empty round at the end.

    Args:
      newest_Q: int32, the draws of the last round. All data shards together take as many at a time.
    """
    slots, batch, rollout, draw_Q = progress.slots, progress.prompts, progress.rollout, progress.draw_Q
    leaving, (B, T) = newest_Q.shape[0], rollout.token_BT.shape
    room, answers = empty_rollout(leaving * K, T), leaving * K
    if draw_Q is not None:
        draw_Q = jnp.concatenate([draw_Q[leaving:], newest_Q + leaving * jax.lax.axis_size(SHARDS)])

    def move(x_B: Array, room_B: Array) -> Array:
        return jnp.concatenate([x_B[answers:], room_B])

    return progress._replace(
        slots=slots._replace(answer_S=jnp.where(slots.answer_S < B, slots.answer_S - answers, B)),
        rollout=jax.tree.map(move, rollout, room),
        next_answer=progress.next_answer - answers,
        prompts=batch._replace(first=batch.first - leaving, following=batch.following - leaving),
        unsubmitted_B=move(progress.unsubmitted_B, room.truncated_B),
        age_B=jax.tree.map(lambda age_B: move(age_B, room.length_B), progress.age_B),
        draw_Q=draw_Q,
    )


def empty_rollout(B: int, T: int) -> Rollout:
    """Returns B answers of no token."""
    return Rollout(
        token_BT=jnp.zeros((B, T), jnp.int32),
        logp_BT=jnp.zeros((B, T), jnp.float32),
        length_B=jnp.zeros(B, jnp.int32),
        truncated_B=jnp.zeros(B, bool),
    )
