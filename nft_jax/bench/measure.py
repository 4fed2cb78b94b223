"""Times a step on random prompts, part by part, and summarizes the times."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nft_jax.bench.peers.process import Peer
from nft_jax.bench.workload import Lengths, limit_answers
from nft_jax.config import Config
from nft_jax.data.random_prompts import random_dataset
from nft_jax.experiment import Experiment, compile_step, open_experiment
from nft_jax.machine.chips import chip_of
from nft_jax.machine.memory import slots_per_shard
from nft_jax.machine.speed import (
    PASSES,
    decode_bytes,
    extra_passes,
    forward_flops,
    measure_limits,
    peak_memory_mib,
    update_flops,
)
from nft_jax.run.metrics import step_metrics
from nft_jax.state import State
from nft_jax.types import Prompts
from nft_jax.update.optimizer import make_optimizer

PARTS = ("rollout", "grading", "update")


class StepTimes(NamedTuple):
    """The times of one step, by the host's clock at the program's call, callbacks and end.

    Attributes:
      step: seconds from call to end.
      rollout: seconds to the last answer, in all rounds.
      grading: seconds of the callback that grades.
      update: seconds after the last verdict: selection, packing, optimizer.
      tokens: answer tokens sampled.
      trained: answer tokens trained on.
      slots: share of the slots' time that drew a token of an answer; NaN if earlier steps drew all.
      gap: mean |log-prob of the trainer − of the sampler| at the first update; NaN if not measured.
      gap_max: the largest of these.
    """

    step: float
    rollout: float
    grading: float
    update: float
    tokens: int
    trained: int
    slots: float
    gap: float
    gap_max: float


class TimedGrader:
    """A grader that records the start and end of each call."""

    def __init__(self, grader: Callable):
        self.grader, self.submit, self.calls = grader, grader.submit, []

    def __call__(self, *arguments):
        began = time.perf_counter()
        result = self.grader(*arguments)
        self.calls.append((began, time.perf_counter()))
        return result


@dataclasses.dataclass
class Bench:
    """A config's compiled step on random prompts.

    Attributes:
      state: The state after the last step; the next step takes over its memory.
    """

    experiment: Experiment
    lengths: Lengths
    grader: TimedGrader
    program: jax.stages.Compiled
    compile_seconds: float
    prompts: Prompts
    state: State

    def step(self) -> StepTimes:
        """Takes one step, and waits for its end."""
        self.grader.calls.clear()
        began = time.perf_counter()
        self.state, record = jax.block_until_ready(self.program(self.state, self.prompts))
        ended = time.perf_counter()
        metrics = step_metrics(jax.device_get(record))
        grading, rollout, previous = 0.0, 0.0, began
        calls, devices = sorted(self.grader.calls), self.experiment.model.mesh.size
        for first in range(0, len(calls), devices):
            round_ = calls[first : first + devices]
            # A round's rollout ends when its last device calls; then all devices wait for the grader.
            called, graded = max(start for start, _ in round_), max(end for _, end in round_)
            rollout, grading, previous = rollout + called - previous, grading + graded - called, graded
        names = ("tokens", "tokens_trained", "slots_useful", "sampler_gap_mean", "sampler_gap_max")
        # With partial rollouts no answer may have begun in the step, so that no gap is measured.
        counts = (math.nan if metrics[name] is None else metrics[name] for name in names)
        return StepTimes(ended - began, rollout, grading, ended - previous, *counts)


@contextlib.contextmanager
def open_bench(config: Config, workdir: Path, lengths: Lengths) -> Iterator[Bench]:
    """Opens the experiment on random prompts, and compiles its step.

    Raises:
      ValueError: As `random_dataset` and `open_experiment`.
    """
    with open_experiment(config, workdir, dataset=random_dataset(config, lengths.ends)) as experiment:
        optimizer = make_optimizer(config.optimizer, config.steps, experiment.model.trained_axes)
        step = experiment.step(optimizer)
        grader = TimedGrader(step.grader)
        step = limit_answers(dataclasses.replace(step, grader=grader), lengths)
        prompts = experiment.prompts(experiment.dataset.tables["train"])
        state = experiment.initial_state(optimizer, experiment.model.random_weights(config.seed))
        began = time.perf_counter()
        program = compile_step(step, state, prompts, experiment.state_shardings(optimizer))
        yield Bench(experiment, lengths, grader, program, time.perf_counter() - began, prompts, state)


def _median(values: list[float]) -> float:
    """Returns the median of the values that were measured; NaN for none."""
    measured = [value for value in values if not math.isnan(value)]
    return float(np.median(measured)) if measured else math.nan


def summarize(bench: Bench, steps: list[StepTimes]) -> dict[str, Any]:
    """Returns medians of the steps, with speeds, shares of the machine's limits, and memory."""
    config, weights = bench.experiment.config, bench.experiment.model.parameters
    columns = {part: [getattr(step, part) for step in steps] for part in StepTimes._fields}
    median = StepTimes(*map(_median, columns.values()))
    share = {part: sum(columns[part]) / sum(columns["step"]) for part in PARTS}
    answers = config.prompts_per_step * config.answers_per_prompt
    P, length = config.data.max_prompt_tokens, median.tokens / answers
    decode = forward_flops(config, weights, median.tokens, P + length / 2)
    prefill = forward_flops(config, weights, config.prompts_per_step * P, P / 2)
    shared = config.prompts_are_shared
    trained = median.trained + P * (config.prompts_per_step if shared else median.trained / max(length, 1))
    passes = PASSES["none"] + extra_passes(config, bench.experiment.loss)
    update = update_flops(config, bench.experiment.model, trained, P / 2 + length / 2, passes)
    read = decode_bytes(
        config, weights, median.tokens, P + length / 2, slots_per_shard(bench.experiment) * median.slots
    )
    memory = peak_memory_mib()  # before the measurement of limits, which takes memory
    machine, devices = measure_limits(config.model.dtype), bench.experiment.model.mesh.size
    peak = machine["matmul_gflops"] * 1e9
    return {
        "lengths": bench.lengths.text,
        "median": median._asdict(),
        "spread": {part: [min(columns[part]), max(columns[part])] for part in ("step", *PARTS)},
        "share": share | {"other": 1 - sum(share.values())},
        "tokens_per_second": median.tokens / median.step,
        "rollout_tokens_per_second": median.tokens / median.rollout,
        "trained_tokens_per_second": trained / median.update,
        "rollout_share_of_matmul": (decode + prefill) / median.rollout / peak,
        "update_share_of_matmul": update / median.update / peak,
        "compile_seconds": bench.compile_seconds,
        "peak_memory_mib": memory,
        **machine,
        **_chip_shares(read / median.rollout / devices, update / median.update / devices),
    }


def _chip_shares(read: float, update: float) -> dict[str, Any]:
    """Returns shares of the chip's data sheet.

    Args:
      read: bytes/s that decoding must read.
      update: FLOP/s of the update.
    """
    chip = chip_of(jax.devices()[0].device_kind)
    if chip is None:
        return {}
    return {"chip": chip.kind, "rollout_share_of_bandwidth": read / chip.bandwidth, "update_mfu": update / chip.flops}


def take_turns(
    bench: Bench, peers: list[Peer], warmup: int, repeats: int
) -> tuple[list[StepTimes], list[list[dict[str, float]]]]:
    """Takes steps of this package and of each peer in turns; leaves out the first `warmup` turns.

    Returns:
      The steps of this package, and a list of steps for each peer.
    """
    steps, peer_steps = [], [[] for _ in peers]
    for turn in range(warmup + repeats):
        results = bench.step(), *(peer.step() for peer in peers)
        if turn >= warmup:
            for column, result in zip((steps, *peer_steps), results, strict=True):
                column.append(result)
    return steps, peer_steps
