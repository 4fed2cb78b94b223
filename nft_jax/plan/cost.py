"""How long a step may take on given chips: an estimate from closed forms under assumptions that are stated with it."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from nft_jax.config.sizes import row_tokens
from nft_jax.experiment import Experiment
from nft_jax.machine.chips import Chip
from nft_jax.machine.memory import slots_per_shard
from nft_jax.machine.speed import forward_flops
from nft_jax.names import suggestion
from nft_jax.parallel import scopes
from nft_jax.parallel.mesh import REPLICA, shard_count
from nft_jax.plan import hlo
from nft_jax.plan.hlo import Collective

# Forward passes that an update's cost is worth: one, two for the backward pass, and what remat runs again.
PASSES = {"none": 3, "dots": 3, "attention": 4, "full": 4, "offload": 4}
DAY = 86400


class Assumptions(NamedTuple):
    """What nobody can know before a run; each is a key of `--assume`.

    `prompt`, `answer`  mean tokens
    `mixed`    share of groups that are neither all right nor all wrong
    `useful`   share of the slots' time that draws a token
    `filled`   share of the rows' places that hold one
    `products`, `memory`, `links`  reached shares of the chip's FLOP/s, memory bandwidth and links
    `latency`  seconds that a transfer takes however small it is
    """

    prompt: float
    answer: float
    mixed: float = 0.5
    useful: float = 0.8
    filled: float = 0.9
    products: float = 0.4
    memory: float = 0.7
    links: float = 0.5
    latency: float = 5e-6


class Estimate(NamedTuple):
    """One step.

    `read`, `decode`, `update`  seconds of the phases        `flops`  of the same phases, on all devices together
    `sampled`, `trained`  tokens         `rounds`  of dynamic sampling      `trips`  tokens that each slot decodes
    `micro_batches`  of each update, on each data shard
    """

    read: float
    decode: float
    update: float
    flops: dict[str, float]
    sampled: float
    trained: float
    rounds: int
    trips: float
    micro_batches: int

    @property
    def step(self) -> float:
        """Seconds of a step; grading goes on while others are decoded."""
        return self.read + self.decode + self.update


def assumed(told: str, experiment: Experiment) -> Assumptions:
    """The assumptions that `--assume=NAME=VALUE,…` says; lengths are a quarter of their limits where it doesn't.

    Raises:
      ValueError: for a name that is none, or a value that is no positive number.
    """
    config = experiment.config
    values = {"prompt": config.data.max_prompt_tokens / 4, "answer": config.rollout.max_answer_tokens / 4}
    for part in told.split(",") if told else []:
        name, _, value = part.partition("=")
        if name not in Assumptions._fields:
            raise ValueError(
                f"--assume={told}: {name!r} is none; there are {', '.join(Assumptions._fields)}"
                f"{suggestion(name, Assumptions._fields)}"
            )
        try:
            values[name] = float(value)
        except ValueError:
            values[name] = 0.0
        if values[name] <= 0:
            raise ValueError(f"--assume={told}: {name}={value!r} must be a positive number, as in answer=900,mixed=0.4")
    return Assumptions(**values)


def estimate(
    experiment: Experiment, chip: Chip, held: dict[str, int], transfers: Iterable[Collective], given: Assumptions
) -> Estimate:
    """Seconds of a step. A phase takes as long as what limits it: products or memory in decoding, to which transfers
    are added; products or transfers in updates, where they overlap.

    `held` is from `device_bytes`, `transfers` from `hlo.collectives`.
    """
    config, shards, S = experiment.config, shard_count(experiment.model.mesh), slots_per_shard(experiment)
    Q, K, U = config.prompts_per_step, config.answers_per_prompt, config.updates_per_step
    C, devices, passes = config.candidates_per_round, experiment.model.mesh.size, PASSES[config.model.remat]
    wanted = math.ceil(Q / (given.mixed * C)) if experiment.loss.groups == "mixed" else 1
    rounds = min(config.selection.max_rounds, wanted)
    sampled, shared = rounds * C * K * given.answer, config.prompts_are_shared
    trained = Q * K * (given.answer + (0 if shared else given.prompt))

    def forward(tokens, context):
        return forward_flops(config, experiment.model.parameters, tokens, context)

    def products(flops):
        return flops / (devices * chip.flops * given.products)

    def moved(phase):
        seconds = 0.0
        for one in hlo.of_phase(transfers, phase):
            rate = chip.network if REPLICA in one.axes and chip.network else chip.links
            seconds += one.sent / (rate * given.links) + one.times * given.latency
        return seconds

    context = given.prompt + given.answer / 2
    trips = sampled / (shards * S * given.useful)
    # Every slot's live columns are read, to those of the longest answer: nearly all of them once one is long.
    passed = (held["sampling_weights"] + held["cache"]) / (chip.bandwidth * given.memory)
    trip = max(products(forward(S * shards, context)), passed)
    rows = config.packing.rows_per_micro_batch * row_tokens(config, experiment.loss.unit, shared) * given.filled
    micro_batches = math.ceil(trained / (U * shards * rows))
    flops = {
        "read": forward(rounds * C * given.prompt, given.prompt / 2),
        "decode": forward(sampled, context),
        "update": passes * (forward(trained, context) + (forward(Q * given.prompt, given.prompt / 2) if shared else 0)),
    }
    # The program's text has the body of a micro-batch once for each of its updates.
    one = max(products(flops["update"]) / (U * micro_batches), moved(scopes.MICRO_BATCH) / U)
    stepped = 2 * (held["weights"] + held["moments"]) / (chip.bandwidth * given.memory)
    return Estimate(
        read=products(flops["read"]),
        decode=trips * (trip + moved(scopes.DECODE)),
        update=U * (micro_batches * one + stepped) + moved(scopes.OPTIMIZER),
        flops=flops,
        sampled=sampled,
        trained=trained,
        rounds=rounds,
        trips=trips,
        micro_batches=micro_batches,
    )
