"""Estimates a step's time on given chips, by closed forms and stated assumptions."""

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple

from nft_jax.config import Config
from nft_jax.config.sizes import row_tokens
from nft_jax.experiment import Experiment
from nft_jax.machine.chips import Chip
from nft_jax.machine.memory import slots_per_shard
from nft_jax.machine.speed import PASSES, extra_passes, forward_flops, update_flops
from nft_jax.names import suggestion
from nft_jax.parallel import scopes
from nft_jax.parallel.mesh import REPLICA, shard_count
from nft_jax.plan import hlo
from nft_jax.plan.hlo import Collective
from nft_jax.update.shared_prompts import prompts_at_once

DAY = 86400


class Assumptions(NamedTuple):
    """What is not known before a run. Each field is a key of `--assume`.

    Attributes:
      prompt: mean tokens of a prompt.
      answer: mean tokens of an answer.
      mixed: share of groups with both correct and incorrect answers.
      useful: share of the slots' time that draws a token.
      filled: share of the rows' places that hold a token.
      products: share of the chip's FLOP/s that products reach.
      memory: share of the chip's memory bandwidth that is reached.
      links: share of the links' bytes/s that is reached.
      latency: seconds that even the smallest transfer takes.
      kernel: seconds that a GPU takes from one kernel to the next, whatever these do.
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
    kernel: float = 4e-6


SHARES = ("mixed", "useful", "filled", "products", "memory", "links")


class Estimate(NamedTuple):
    """The estimate of one step.

    Attributes:
      read, decode, update: seconds of reading prompts, of decoding, and of all updates.
      flops: FLOPs of these three phases, on all devices together, and of the teacher's part of the updates.
      sampled, trained: tokens sampled, and trained on.
      trips: tokens that each slot decodes.
      micro_batches: micro-batches of an update on each data shard.
      prompt_batches: batches of shared prompts of an update on each data shard; 0 if rows hold their own prompts.
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
    prompt_batches: int

    @property
    def step(self) -> float:
        """Seconds of a step. Grading runs while other answers are decoded."""
        return self.read + self.decode + self.update


def read_assumptions(text: str, experiment: Experiment) -> Assumptions:
    """Reads the value of `--assume`, NAME=VALUE,…; by default lengths are a quarter of their limits.

    Raises:
      ValueError: for an unknown name, a value that is not a positive number, or a share above 1.
    """
    config = experiment.config
    values = {"prompt": config.data.max_prompt_tokens / 4, "answer": config.rollout.max_answer_tokens / 4}
    for part in text.split(",") if text else []:
        name, _, value = part.partition("=")
        if name not in Assumptions._fields:
            raise ValueError(
                f"--assume={text}: unknown assumption {name!r}; use {', '.join(Assumptions._fields)}"
                f"{suggestion(name, Assumptions._fields)}"
            )
        try:
            values[name] = float(value)
        except ValueError:
            values[name] = 0.0
        if not 0 < values[name] < math.inf:
            raise ValueError(f"--assume={text}: {name}={value!r} must be a positive number, as in answer=900,mixed=0.4")
        if name in SHARES and values[name] > 1:
            raise ValueError(f"--assume={text}: {name}={value!r} is a share; give a number above 0, and 1 at most")
    return Assumptions(**values)


def estimate(
    experiment: Experiment,
    chip: Chip,
    held: dict[str, int],
    transfers: Iterable[Collective],
    assumptions: Assumptions,
    kernels: int = 0,
) -> Estimate:
    """Estimates the seconds of a step.

    Decoding takes the longer of products and memory, plus transfers and the gaps between a GPU's kernels; updates
    overlap products and transfers, and take the longer of the two.

    Args:
      held: bytes of a device, from `device_bytes`.
      transfers: from `hlo.collectives`.
      kernels: that a decoded token starts on a GPU.
    """
    config, shards, S = experiment.config, shard_count(experiment.model.mesh), slots_per_shard(experiment)
    Q, K, U = config.prompts_per_step, config.answers_per_prompt, config.updates_per_step
    C, devices = config.candidates_per_round, experiment.model.mesh.size
    passes = PASSES[config.model.remat] + extra_passes(config, experiment.loss)
    needed = math.ceil(Q / (assumptions.mixed * C)) if experiment.loss.groups == "mixed" else 1
    rounds = min(config.selection.max_rounds, needed)
    sampled, shared = rounds * C * K * assumptions.answer, config.prompts_are_shared
    trained = Q * K * (assumptions.answer + (0 if shared else assumptions.prompt))

    def forward(tokens, context):
        return forward_flops(config, experiment.model.parameters, tokens, context)

    def update(tokens, context):
        return update_flops(config, experiment.model, tokens, context, passes)

    def products(flops):
        return flops / (devices * chip.flops * assumptions.products)

    def transfer_seconds(phase):
        return sum(_seconds(transfer, chip, assumptions) for transfer in hlo.select_phase(transfers, phase))

    context = assumptions.prompt + assumptions.answer / 2
    trips = sampled / (shards * S * assumptions.useful)
    # A trip reads the columns of all slots up to the longest answer's: nearly all columns once one answer is long.
    trip_memory = (held["sampling_weights"] + held["cache"]) / (chip.bandwidth * assumptions.memory)
    trip = max(products(forward(S * shards, context)), trip_memory) + kernels * assumptions.kernel
    row = row_tokens(config, experiment.loss.unit, shared)
    rows = config.packing.rows_per_micro_batch * row * assumptions.filled
    micro_batches = math.ceil(trained / (U * shards * rows))
    prompt_batches = _count_prompt_batches(config, shards, row) if shared else 0
    flops = {
        "read": forward(rounds * C * assumptions.prompt, assumptions.prompt / 2),
        "decode": forward(sampled, context),
        "update": update(trained, context),
    }
    # The program's text contains the body of each loop once for each update.
    updates = max(products(flops["update"]), micro_batches * transfer_seconds(scopes.MICRO_BATCH))
    if shared:
        of_prompts = update(Q * assumptions.prompt, assumptions.prompt / 2)
        updates += max(products(of_prompts), prompt_batches * transfer_seconds(scopes.PROMPT_BATCH))
        flops["update"] += of_prompts
    if experiment.teacher is not None:
        own = dataclasses.replace(config, model=experiment.teacher.config)
        read = trained + (Q * assumptions.prompt if shared else 0)
        flops["teacher"] = forward_flops(own, experiment.teacher.parameters, read, context)
    optimizer = 2 * (held["weights"] + held["moments"]) / (chip.bandwidth * assumptions.memory)
    return Estimate(
        read=products(flops["read"]),
        decode=trips * (trip + transfer_seconds(scopes.DECODE)),
        update=updates + U * optimizer + transfer_seconds(scopes.OPTIMIZER) + products(flops.get("teacher", 0.0)),
        flops=flops,
        sampled=sampled,
        trained=trained,
        rounds=rounds,
        trips=trips,
        micro_batches=micro_batches,
        prompt_batches=prompt_batches,
    )


def _count_prompt_batches(config: Config, shards: int, row: int) -> int:
    """Counts the batches in which a data shard reads an update's shared prompts, beside rows of `row` tokens."""
    prompts = math.ceil(config.prompts_per_step / (config.updates_per_step * shards))
    at_once = prompts_at_once(prompts, config.data.max_prompt_tokens, config.packing.rows_per_micro_batch, row)
    return math.ceil(prompts / at_once)


def _seconds(transfer: Collective, chip: Chip, assumptions: Assumptions) -> float:
    rate = chip.network if REPLICA in transfer.axes and chip.network else chip.links
    return transfer.sent / (rate * assumptions.links) + transfer.times * assumptions.latency
