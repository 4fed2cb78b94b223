"""The values of a training step: what it changes, what it samples, and what it reports to the host."""

from typing import Any, NamedTuple

from nft_jax.rollout.state import Progress
from nft_jax.types import Array, Groups, Totals
from nft_jax.update.groups import RolloutStatistics
from nft_jax.update.update import UpdateRecord
from nft_jax.verify.callback import HostReport


class State(NamedTuple):
    """Everything that a step changes: donated to the next step, and checkpointed.

    Attributes:
      weights: Nested dict of float32 arrays, in the training layout.
      optimizer_state: Optax's state, laid out as the weights.
      step: int32, steps done.
      cursor: int32, prompts drawn so far, over all rounds; it numbers the requests.
      carried: Surplus good groups of the last step and their number (int32), or None without `selection.carry`.
      reference: Frozen weights of the KL term, or None where `loss.kl_weight` is 0.
    """

    weights: Any
    optimizer_state: Any
    step: Array
    cursor: Array
    carried: tuple[Groups, Array] | None
    reference: Any


class GradedRound(NamedTuple):
    """One round of sampling, graded.

    Attributes:
      groups: The candidates' groups.
      host: The host's report on the grading.
      capacity_X: int32, tokens that the slots of each data shard had time for.
    """

    groups: Groups
    host: HostReport
    capacity_X: Array


class SamplingState(NamedTuple):
    """What the rounds of a step have sampled so far.

    Attributes:
      pool: Groups that may train, of which the first `count` are there; carried ones come first.
      count: int32.
      cursor: int32, where the next round's prompts begin.
      rounds: int32, rounds taken.
      statistics: Sums over everything that was sampled.
      last: The groups of the last round.
      progress: The engine's work on the next round's answers.
    """

    pool: Groups
    count: Array
    cursor: Array
    rounds: Array
    statistics: RolloutStatistics
    last: Groups
    progress: Progress


class Record(NamedTuple):
    """What a step reports to the host.

    Attributes:
      statistics: Sums over everything that was sampled.
      rounds: int32, rounds of dynamic sampling.
      applied: What became of each update, arrays `[updates]`.
      totals: What each update's minibatch held, float32 arrays `[updates]`.
      trained: int32, groups trained on.
      from_carry: int32, how many of them were carried from the step before.
      wasted: int32, good groups that were neither trained on nor carried.
      last: The last round's groups, for the rollout log; None where a step is not in it.
    """

    statistics: RolloutStatistics
    rounds: Array
    applied: UpdateRecord
    totals: Totals
    trained: Array
    from_carry: Array
    wasted: Array
    last: Groups | None
