"""The values of a training step: what it changes, what it samples, and what it reports to the host."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from nft_jax.models.lora import join_weights
from nft_jax.parallel import layout
from nft_jax.rollout.state import Progress
from nft_jax.types import Array, Groups, Totals, WatchedGroups
from nft_jax.update.groups import Ages, RolloutStatistics
from nft_jax.update.update import UpdateRecord
from nft_jax.verify.callback import HostReport

# Parts of a state that a run loads again.
UNSAVED = ("frozen", "teacher")


class State(NamedTuple):
    """Everything that a step changes: donated to the next step, and checkpointed.

    Attributes:
      weights: The weights that train, all or adapters: nested dict of float32 arrays, in the training layout.
      optimizer_state: Optax's state, laid out as the weights.
      step: int32, steps done.
      cursor: int32, prompts whose groups are complete, over all rounds. Without `rollout.partial` it is the next draw.
      carried: Surplus groups of the previous step and their number (int32); None where there is no room for any
        (`Config.carry_capacity`).
      reference: The weights that the KL term compares with, or None where `loss.kl_weight` is 0.
      frozen: The weights beside adapters, in the compute dtype; None without adapters. No checkpoint holds them.
      teacher: The weights of the model of a distillation, in the compute dtype; None without one. No checkpoint holds
        them.
      in_flight: Groups that are not trained on yet: what is in the slots, cache included, and what has ended; None
        without `rollout.partial`.
    """

    weights: Any
    optimizer_state: Any
    step: Array
    cursor: Array
    carried: tuple[Groups, Array] | None
    reference: Any
    frozen: Any = None
    teacher: Any = None
    in_flight: Progress | None = None

    @property
    def model_weights(self) -> Any:
        """All weights of the model: those that train and the frozen ones."""
        return join_weights(self.weights, self.frozen)

    @property
    def rest(self) -> dict[str, Any]:
        """The parts that a checkpoint holds beside `weights`."""
        parts = self._asdict().items()
        return {name: part for name, part in parts if name not in ("weights", *UNSAVED) and part is not None}

    @property
    def saved_parts(self) -> dict[str, Any]:
        """The parts that a checkpoint holds, by name."""
        return {"weights": self.weights} | self.rest

    @property
    def saved_bytes(self) -> int:
        """Bytes of a checkpoint, not compressed."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.saved_parts))


class GradedRound(NamedTuple):
    """One round of sampling, graded.

    Attributes:
      capacity_X: int32, tokens that each data shard could have drawn with every slot busy.
      draw_Q: int32, the draws of the groups' prompts; None without `rollout.partial`, where they follow the cursor.
    """

    groups: Groups
    host: HostReport
    capacity_X: Array
    draw_Q: Array | None


class SamplingState(NamedTuple):
    """What the rounds of a step have sampled so far.

    Attributes:
      pool: Groups that may train; the first `count` places are filled, carried groups first.
      count: int32.
      cursor: int32, where the next round's prompts begin.
      rounds: int32, rounds taken.
      statistics: Sums over everything that was sampled.
      last: The groups of the last round.
      length_RQK: int32, the lengths of the answers of each round, 0 in rounds that are not taken.
      draw_RQ: int32, as in `GradedRound`, of each round.
      progress: The engine's unfinished answers of the next round.
    """

    pool: Groups
    count: Array
    cursor: Array
    rounds: Array
    statistics: RolloutStatistics
    last: Groups
    length_RQK: Array
    draw_RQ: Array | None
    progress: Progress


class Flight(NamedTuple):
    """Where answers are between two steps; each data shard numbers its own B, in the order of its prompts.

    Attributes:
      answer_XS: int32, the answer in each slot; B where the slot is free.
      length_XB: int32, tokens that are drawn.
      age_XB: int32, steps since the first token when the step ended.
      draw_XQ: int32, the draw of each prompt.
      next_X: int32, the first answer that no slot has taken yet.
    """

    answer_XS: Array
    length_XB: Array
    age_XB: Array
    draw_XQ: Array
    next_X: Array


class PartialRecord(NamedTuple):
    """What a step with `rollout.partial` reports besides.

    Attributes:
      ages: Of the answers that it trained on.
      began: int32, answers that have begun and go on, or wait for others of their group, in the next step.
      drawn_ahead: int32, their tokens, less those with which the step began; negative in a step that draws few.
      draw_RQ: int32, the draws of the prompts of each round's groups.
      before, after: What was in flight when the step began and when it ended.
    """

    ages: Ages
    began: Array
    drawn_ahead: Array
    draw_RQ: Array
    before: Flight
    after: Flight


def record_partial(before: Progress, after: Progress, draw_RQ: Array, ages: Ages, mesh: Mesh) -> PartialRecord:
    """Returns what a step reports that began with `before` in flight, finished these draws, and ended with `after`."""
    began, ended = before.rollout.length_B, after.rollout.length_B
    counts = jnp.sum(ended > 0, dtype=jnp.int32), jnp.sum(ended) - jnp.sum(began)
    flights = _find_flight(before, mesh), _find_flight(after, mesh)
    return PartialRecord(ages, *counts, layout.replicate(draw_RQ, mesh), *flights)


def _find_flight(progress: Progress, mesh: Mesh) -> Flight:
    rows = progress.slots.answer_S, progress.rollout.length_B, progress.age_B, progress.draw_Q
    *rows, next_X = layout.replicate((*rows, progress.next_answer), mesh)
    return Flight(*(x.reshape(next_X.shape[0], -1) for x in rows), next_X)


class Record(NamedTuple):
    """What a step reports to the host.

    Attributes:
      statistics: Sums over everything that was sampled.
      rounds: int32, rounds of dynamic sampling.
      applied: The records of the updates, arrays `[updates]`.
      totals: The counts of each update's minibatch, float32 arrays `[updates]`.
      trained: int32, groups trained on.
      from_carry: int32, how many of them were carried from the step before.
      wasted: int32, groups that could train but were neither trained on nor carried.
      last: The last round's groups, for the rollout log; None if the step is not logged.
      length_RQK: int32, the lengths of the answers of all rounds, 0 in rounds that were not taken; None as `last`.
      partial: None without `rollout.partial`.
      watched: The groups of `last` whose tokens are recorded; None if none are, or the step is not logged.
    """

    statistics: RolloutStatistics
    rounds: Array
    applied: UpdateRecord
    totals: Totals
    trained: Array
    from_carry: Array
    wasted: Array
    last: Groups | None
    length_RQK: Array | None
    partial: PartialRecord | None = None
    watched: WatchedGroups | None = None
