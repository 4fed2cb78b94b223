"""One run of a comparison: trains a base until its budget is spent."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.compare.variants import PROMPTS_PER_SEED, Budget, Variant
from nft_jax.evaluation.evaluator import Evaluator
from nft_jax.evaluation.scores import score
from nft_jax.experiment import Experiment, compile_step, open_experiment
from nft_jax.machine.speed import PASSES, extra_passes, forward_flops, update_flops
from nft_jax.printing import ProgressLine
from nft_jax.run.health import NonFiniteUpdates
from nft_jax.run.json_files import NUMBER, NUMBER_OR_NONE, find_fault
from nft_jax.run.metrics import step_metrics
from nft_jax.run.workdir import as_json
from nft_jax.state import State
from nft_jax.types import Prompts
from nft_jax.update.optimizer import Optimizer, make_optimizer

# The step metrics whose means are recorded at each mark.
MARK_METRICS = (
    *("reward", "entropy", "ratio_mean", "ratio_max", "clamped_value", "gradient_norm"),
    *("groups_kept", "answer_length"),
)
# Number of held-out evaluations of a run, evenly spaced over its budget.
MARKS = 6


class Cost(NamedTuple):
    """What some steps cost.

    Attributes:
      tokens, trained: tokens sampled, and trained on.
      flops: by a closed form: a forward pass over prompts and sampled tokens, `PASSES` and `extra_passes` over the
        tokens trained on.
      seconds: without evaluation and compilation.
    """

    tokens: int = 0
    trained: int = 0
    updates: int = 0
    steps: int = 0
    flops: float = 0.0
    seconds: float = 0.0


def with_rate(optimizer: Optimizer) -> Optimizer:
    """Returns the optimizer with a factor for its changes in its state, so that one program serves all rates."""

    def init(weights):
        return jnp.float32(1), optimizer.init(weights)

    def update(gradient, state, weights):
        rate, inner = state
        change, inner = optimizer.update(gradient, inner, weights)
        return jax.tree.map(lambda leaf: rate * leaf, change), (rate, inner)

    return Optimizer(init, update, optimizer.offload)


@dataclasses.dataclass(frozen=True)
class Runner:
    """A variant's experiment and compiled step, for any base, seed and learning rate.

    Attributes:
      experiment: The variant's experiment, with its grading processes.
      optimizer: The optimizer, whose learning rate is part of its state.
      prompt_length: Mean tokens of a prompt.
      budget: When a run ends.
    """

    experiment: Experiment
    evaluator: Evaluator
    optimizer: Optimizer
    program: jax.stages.Compiled
    prompts: Prompts
    prompt_length: float
    budget: Budget

    def run(self, weights: Any, seed: int, rate: float) -> dict:
        """Trains host weights until the budget is spent as exactly as whole steps allow.

        Returns:
          {"curve": at each mark the held-out score, the cost so far, and means of metrics since the mark before;
          "test": the score at the end}.

        Raises:
          ValueError: if the run draws more prompts than its seed has.
          FloatingPointError: as `NonFiniteUpdates.check`.
        """
        state, cost, curve, since = self.start(weights, seed, rate), Cost(), [], []
        nonfinite = NonFiniteUpdates(self.experiment.config.record.nonfinite_steps)
        progress = ProgressLine(f"rate {rate:g}, seed {seed}", self.budget.amount, self.budget.noun)
        while True:
            began = time.perf_counter()
            state, record = jax.block_until_ready(self.program(state, self.prompts))
            metrics = step_metrics(jax.device_get(record._replace(last=None, length_RQK=None)))
            nonfinite.add(metrics)
            nonfinite.check()
            step = self._step_cost(metrics, time.perf_counter() - began)
            cost, since = Cost(*map(sum, zip(cost, step, strict=True))), [*since, metrics]
            spent, spends = (getattr(each, self.budget.of) for each in (cost, step))
            progress.show(min(spent, self.budget.amount))
            last = is_nearest(spent, spends, self.budget.amount)
            if last or spent * MARKS >= self.budget.amount * (len(curve) + 1):
                curve.append(self._evaluate(state.model_weights, cost, since))
                since = []
            # Also in a run in which nothing trains, which takes no updates.
            if int(state.cursor) > (seed + 1) * PROMPTS_PER_SEED:
                raise ValueError(
                    f"seed {seed} drew more than {PROMPTS_PER_SEED} prompts; let runs end after fewer "
                    f"{self.budget.noun} than {self.budget.amount:,}"
                )
            if last:
                break
        return {"curve": curve, "test": as_json(score(self.evaluator(state.model_weights, "test")))}

    def start(self, weights: Any, seed: int, rate: float) -> State:
        """Returns the state before the first step: these host weights, at the beginning of the seed's prompts."""
        experiment = self.experiment
        placed = experiment.place(weights, experiment.model.weight_specs)
        state = experiment.initial_state(self.optimizer, placed)
        first, shardings = np.int32(seed * PROMPTS_PER_SEED), experiment.state_shardings(self.optimizer)
        state = state._replace(step=first, cursor=first, optimizer_state=(np.float32(rate), state.optimizer_state[1]))
        return jax.device_put(state, shardings)

    def _step_cost(self, metrics: dict, seconds: float) -> Cost:
        config, model = self.experiment.config, self.experiment.model
        prompts = metrics["answers"] / config.answers_per_prompt * self.prompt_length
        context = self.prompt_length + (metrics["answer_length"] or 0) / 2
        forward = forward_flops(config, model.parameters, metrics["tokens"] + prompts, context)
        passes = PASSES[config.model.remat] + extra_passes(config, self.experiment.loss)
        trained = update_flops(config, model, metrics["tokens_trained"], context, passes)
        counts = metrics["tokens"], metrics["tokens_trained"], metrics["updates_taken"]
        return Cost(*counts, steps=1, flops=forward + trained, seconds=seconds)

    def _evaluate(self, weights: Any, cost: Cost, since: list[dict]) -> dict:
        scores = score(self.evaluator(weights, "validation"))
        held_out = {"greedy": scores.greedy, "sampled": scores.sampled, "held_out_entropy": scores.entropy}
        return held_out | as_json(cost) | {name: _mean([step[name] for step in since]) for name in MARK_METRICS}


@contextlib.contextmanager
def open_runner(
    variant: Variant, base: Experiment, evaluator: Evaluator, folder: Path, budget: Budget
) -> Iterator[Runner]:
    """Opens the variant's experiment on the data of `base`, and compiles its step; raises as `open_experiment`."""
    with open_experiment(variant.config(base.config), folder, dataset=base.dataset) as experiment:
        optimizer = with_rate(make_optimizer(experiment.config.optimizer, 1, experiment.model.trained_axes))
        table = base.dataset.tables["train"]
        prompts, shardings = experiment.prompts(table), experiment.state_shardings(optimizer)
        program = compile_step(experiment.step(optimizer), experiment.abstract_state(optimizer), prompts, shardings)
        yield Runner(experiment, evaluator, optimizer, program, prompts, float(table.length_Q.mean()), budget)


def check_run(values: dict) -> None:
    """Raises a KeyError, TypeError or ValueError unless the values are those of a `Runner.run`."""
    check_score(values["test"])
    if not values["curve"]:
        raise ValueError("its curve is empty")
    for mark in values["curve"]:
        _check_numbers(mark, ("greedy", "sampled", *Cost._fields), NUMBER)
        _check_numbers(mark, ("held_out_entropy", *MARK_METRICS), NUMBER_OR_NONE)


def check_score(values: dict) -> None:
    """Raises a KeyError, TypeError or ValueError unless the values are those of a `Score`, as a comparison reads it."""
    _check_numbers(values, ("greedy", "sampled", "entropy", "length"), NUMBER)
    _check_numbers(values["pass_at"], list(values["pass_at"])[-1:], NUMBER)


def _check_numbers(values: dict, names: Sequence[str], kind: tuple[type, ...]) -> None:
    if fault := find_fault(values, dict.fromkeys(names, kind)):
        raise ValueError(f"it {fault}")


def is_nearest(spent: int, step: int, budget: int) -> bool:
    """Returns whether what is spent is nearer to the budget than after another step that spends `step`."""
    return spent + step / 2 > budget


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
