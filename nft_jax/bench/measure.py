"""A step on random prompts, timed part by part, and what follows from the times."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nft_jax.bench.peers.process import Peer
from nft_jax.bench.workload import Lengths, limit_answers
from nft_jax.config import Config
from nft_jax.data.random_prompts import random_dataset
from nft_jax.experiment import compile_step, open_experiment
from nft_jax.machine.chips import chip_of
from nft_jax.machine.memory import slots_per_shard
from nft_jax.machine.speed import decode_bytes, forward_flops, measure_limits, peak_memory_mib
from nft_jax.run.metrics import step_metrics
from nft_jax.update.optimizer import make_optimizer

PARTS = ("rollout", "grading", "update")


class Measured(NamedTuple):
    """One step. Seconds are from the host's clock at events of the program itself: its call, its end, its callbacks.

    `step`     from call to end            `rollout`  to the last answer, in all rounds
    `grading`  the callback that grades    `update`   after the last verdict: selection, packing, optimizer
    `tokens`   answer tokens sampled       `trained`  answer tokens trained on
    `slots`    share of the slots' time that drew a token of an answer
    `gap`, `gap_max`  mean and largest |log-prob by the trainer − by the sampler|, as of the first update
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


class Stamped:
    """A grader that notes when it was called, and when it was done."""

    def __init__(self, grader: Callable):
        self.grader, self.submit, self.calls = grader, grader.submit, []

    def __call__(self, *arguments):
        begin = time.perf_counter()
        result = self.grader(*arguments)
        self.calls.append((begin, time.perf_counter()))
        return result


class Bench:
    """A config's step on random prompts, compiled, ready to be timed."""

    def __init__(self, config: Config, workdir: Path, lengths: Lengths):
        self.config, self.lengths = config, lengths
        self._stack = contextlib.ExitStack()
        experiment = self._stack.enter_context(
            open_experiment(config, workdir, dataset=random_dataset(config, lengths.ends))
        )
        self.experiment = experiment
        optimizer = make_optimizer(config.optimizer, config.steps, experiment.model.axes)
        step = experiment.step(optimizer)
        self.stamps = Stamped(step.grader)
        step = limit_answers(dataclasses.replace(step, grader=self.stamps), lengths)
        self.prompts = experiment.prompts(experiment.dataset.tables["train"])
        state = experiment.initial_state(optimizer, experiment.model.random_weights(experiment.config.seed))
        began = time.perf_counter()
        self.program = compile_step(step, state, self.prompts, experiment.state_shardings(optimizer))
        self.compile_seconds = time.perf_counter() - began
        self.state = state

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def step(self) -> Measured:
        """Takes one step, and waits for it."""
        self.stamps.calls.clear()
        began = time.perf_counter()
        self.state, record = jax.block_until_ready(self.program(self.state, self.prompts))
        ended = time.perf_counter()
        metrics = step_metrics(jax.device_get(record))
        grading, rollout, previous = 0.0, 0.0, began
        calls, devices = sorted(self.stamps.calls), self.experiment.model.mesh.size
        for first in range(0, len(calls), devices):
            round_ = calls[first : first + devices]
            # The last device to call has waited for nobody; grading is what the others wait for then.
            called, done = max(begin for begin, _ in round_), max(end for _, end in round_)
            rollout, grading, previous = rollout + called - previous, grading + done - called, done
        counted = ("tokens", "tokens_trained", "slots_useful", "sampler_gap_mean", "sampler_gap_max")
        return Measured(ended - began, rollout, grading, ended - previous, *(metrics[name] for name in counted))


def summary(bench: Bench, steps: list[Measured]) -> dict[str, Any]:
    """Medians of the steps, with what follows from them."""
    config, weights = bench.config, bench.experiment.model.parameters
    columns = {part: [getattr(step, part) for step in steps] for part in Measured._fields}
    median = Measured(*(float(np.median(column)) for column in columns.values()))
    share = {part: sum(columns[part]) / sum(columns["step"]) for part in PARTS}
    answers = config.prompts_per_step * config.answers_per_prompt
    P, length = config.data.max_prompt_tokens, median.tokens / answers
    decode = forward_flops(config, weights, median.tokens, P + length / 2)
    prefill = forward_flops(config, weights, config.prompts_per_step * P, P / 2)
    shared = bench.experiment.config.prompts_are_shared
    trained = median.trained + P * (config.prompts_per_step if shared else median.trained / max(length, 1))
    update = 3 * forward_flops(config, weights, trained, P / 2 + length / 2)
    read = decode_bytes(
        config, weights, median.tokens, P + length / 2, slots_per_shard(bench.experiment) * median.slots
    )
    memory = peak_memory_mib()  # before the machine's limits are measured, which takes memory of its own
    machine, devices = measure_limits(config.model.dtype), bench.experiment.model.mesh.size
    peak = machine["matmul_gflops"] * 1e9
    return {
        "lengths": bench.lengths.told,
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
        **_of_chip(read / median.rollout / devices, update / median.update / devices),
    }


def _of_chip(read: float, update: float) -> dict[str, Any]:
    """Bytes/s that drawing tokens reads at the least, and FLOP/s of the update, as shares of what the maker says."""
    chip = chip_of(jax.devices()[0].device_kind)
    if chip is None:
        return {}
    return {"chip": chip.kind, "rollout_share_of_bandwidth": read / chip.bandwidth, "update_mfu": update / chip.flops}


def table(found: dict[str, Any]) -> str:
    """The summary in words."""
    median, spread, share = found["median"], found["spread"], found["share"]
    lines = [f"answers {found['lengths']}: {median['tokens']:.0f} tokens a step, {median['trained']:.0f} trained"]
    for part in ("step", *PARTS):
        low, high = spread[part]
        of_step = "" if part == "step" else f"  {share[part]:.0%}"
        lines.append(f"{part:<9}{median[part]:8.3f} s   ({low:.3f} to {high:.3f}){of_step}")
    if abs(share["other"]) >= 0.005:
        lines.append(f"other    {share['other']:.0%} of the step")
    for peer in found.get("peers", []):
        (low, high), part = peer["spread"], peer["part"]
        lines.append(
            f"{peer['name']:<9}{peer['median'][part]:8.3f} s   ({low:.3f} to {high:.3f}), "
            f"{peer['median']['tokens']:.0f} tokens: {peer['ratio']:.2f} times our {part}"
        )
        if part == "step":
            lines[-1] += f"; rollout {peer['median']['rollout']:.3f} s"
    return "\n".join(
        [
            *lines,
            f"{found['tokens_per_second']:.0f} tokens/s in all, {found['rollout_tokens_per_second']:.0f} sampled, "
            f"{found['trained_tokens_per_second']:.0f} trained (prompts too); slots useful {median['slots']:.0%}",
            f"of this machine's matmul ({found['matmul_gflops']:.0f} GFLOP/s; memory {found['bandwidth_gbs']:.1f} GB/s "
            f"read and written in place): rollout {found['rollout_share_of_matmul']:.0%}, update "
            f"{found['update_share_of_matmul']:.0%}",
            *_chip_words(found),
            f"log-probs of sampler and trainer: {median['gap']:.1e} apart on average, {median['gap_max']:.1e} at most",
            f"compiled in {found['compile_seconds']:.1f} s; peak memory "
            + ", ".join(f"{where} {mib:.0f} MiB" for where, mib in found["peak_memory_mib"].items()),
        ]
    )


def _chip_words(found):
    if "chip" not in found:
        return []
    return [
        f"of the data sheet of {found['chip']}: rollout {found['rollout_share_of_bandwidth']:.0%} of its bandwidth "
        f"(weights and live cache), update {found['update_mfu']:.0%} of its bfloat16 FLOP/s (recomputing not counted)"
    ]


def in_turns(bench: Bench, peers: list[Peer], warmup: int, repeats: int) -> tuple[list[Measured], list[list[dict]]]:
    """Steps of ours and, of each peer, its own: one of each a turn, of which the first `warmup` don't count."""
    steps, theirs = [], [[] for _ in peers]
    for number in range(warmup + repeats):
        taken = bench.step(), *(peer.step() for peer in peers)
        if number >= warmup:
            for column, step in zip((steps, *theirs), taken, strict=True):
                column.append(step)
    return steps, theirs
