"""What a training step changes, and what it tells the host."""

from typing import Any, NamedTuple

from nft_jax.types import Array, Groups, Totals
from nft_jax.update.groups import RolloutStatistics
from nft_jax.update.update import Applied


class State(NamedTuple):
    """Everything that a step changes: donated to the next step, and checkpointed.

    `weights`          nested dict of float32 arrays, in the training layout
    `optimizer_state`  optax's, laid out as the weights
    `step`             int32, steps done
    `cursor`           int32, prompts drawn so far, over all rounds; it numbers the requests
    `carried`          surplus good groups of the last step and how many there are, or None (`selection.carry`)
    `reference`        frozen weights of the KL term, or None (`loss.kl_weight = 0`)
    """

    weights: Any
    optimizer_state: Any
    step: Array
    cursor: Array
    carried: tuple[Groups, Array] | None
    reference: Any


class Record(NamedTuple):
    """What a step tells the host.

    `tally`    everything that was sampled             `rounds`   rounds of dynamic sampling
    `applied`  `[updates]`: what became of each        `totals`   `[updates]`: what each held
    `trained`  groups trained on   `from_carry`  of which carried from the step before    `wasted`  good groups lost
    `last`     the last round's groups, for the rollout log (None where a step is not in it)
    """

    statistics: RolloutStatistics
    rounds: Array
    applied: Applied
    totals: Totals
    trained: Array
    from_carry: Array
    wasted: Array
    last: Groups | None
