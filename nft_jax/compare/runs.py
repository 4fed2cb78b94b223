"""One run of a comparison: from a base to the end of its tokens, with the program of its arm."""

import contextlib
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.compare.variants import STRETCH, Variant
from nft_jax.config import Config
from nft_jax.evaluation.evaluator import Evaluator
from nft_jax.evaluation.scores import score
from nft_jax.experiment import Experiment, compile_step, open_experiment
from nft_jax.machine.speed import forward_flops
from nft_jax.plan.cost import PASSES
from nft_jax.run.metrics import step_metrics
from nft_jax.run.workdir import as_json
from nft_jax.state import State
from nft_jax.update.optimizer import Optimizer, make_optimizer

# Of a step's metrics, those whose means stand at each mark.
KEPT = (
    "reward",
    "entropy",
    "ratio_mean",
    "ratio_max",
    "clamped_value",
    "gradient_norm",
    "groups_kept",
    "answer_length",
)

# Held-out scores on the way, evenly over the tokens.
MARKS = 6


class Spent(NamedTuple):
    """What a run has used: sampled tokens, tokens trained on, updates taken, steps, FLOPs, seconds of steps.

    FLOPs are those of the closed form: a forward pass over prompts and sampled tokens, and for the tokens trained on as
    many as the backward pass is worth beside it. Seconds are without evaluation and compilation.
    """

    tokens: int = 0
    trained: int = 0
    updates: int = 0
    steps: int = 0
    flops: float = 0.0
    seconds: float = 0.0


def with_rate(optimizer: Optimizer) -> Optimizer:
    """The optimizer, its changes times a rate that is part of its state: one program serves all learning rates."""

    def init(weights):
        return jnp.float32(1), optimizer.init(weights)

    def update(gradient, state, weights):
        rate, inner = state
        change, inner = optimizer.update(gradient, inner, weights)
        return jax.tree.map(lambda leaf: rate * leaf, change), (rate, inner)

    return Optimizer(init, update, optimizer.offload)


class Runner:
    """An arm's experiment with its step compiled, for any base, seed and learning rate. A context manager.

    Raises:
      ValueError: as `Experiment`.
    """

    def __init__(self, arm: Variant, base: Experiment, evaluator: Evaluator, folder: Path):
        self.evaluator, self.budget = evaluator, base.config.compare.sampled_tokens
        self._stack = contextlib.ExitStack()
        opened = open_experiment(arm.config(base.config), folder, dataset=base.dataset)
        self.experiment = self._stack.enter_context(opened)
        self.config: Config = self.experiment.config
        config = self.config
        self.optimizer = with_rate(make_optimizer(config.optimizer, 1, self.experiment.model.axes))
        table = base.dataset.tables["train"]
        self.prompts, self.prompt_length = self.experiment.prompts(table), float(table.length_Q.mean())
        step, shardings = self.experiment.step(self.optimizer), self.experiment.state_shardings(self.optimizer)
        self.program = compile_step(step, self.experiment.abstract_state(self.optimizer), self.prompts, shardings)

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, weights: Any, seed: int, rate: float) -> dict:
        """Trains host weights until the tokens are used up: the step that ends nearest to them is the last.

        Gives {"curve": at each mark a held-out score, what was spent, and the means of metrics since the mark before;
        "test": the score at the end}.

        Raises:
          ValueError: when the seed's prompts are used up before its tokens are.
        """
        state, spent, curve, since = self.start(weights, seed, rate), Spent(), [], []
        while True:
            began = time.perf_counter()
            state, record = jax.block_until_ready(self.program(state, self.prompts))
            metrics = step_metrics(jax.device_get(record._replace(last=None)))
            step = self._spent(metrics, time.perf_counter() - began)
            spent, since = Spent(*map(sum, zip(spent, step, strict=True))), [*since, metrics]
            last = is_nearest(spent.tokens, step.tokens, self.budget)
            if last or spent.tokens * MARKS >= self.budget * (len(curve) + 1):
                curve.append(self._mark(state.weights, spent, since))
                since = []
            if last:
                break
        if int(state.cursor) > (seed + 1) * STRETCH:
            raise ValueError(f"seed {seed} drew more than {STRETCH} prompts: use fewer config.compare.sampled_tokens")
        return {"curve": curve, "test": as_json(score(self.evaluator(state.weights, "test")))}

    def start(self, weights: Any, seed: int, rate: float) -> State:
        """The state before the first step: these host weights, and the beginning of the seed's prompts and draws."""
        experiment = self.experiment
        placed = experiment.place(weights, experiment.model.weight_specs)
        state = experiment.initial_state(self.optimizer, placed)
        first, shardings = np.int32(seed * STRETCH), experiment.state_shardings(self.optimizer)
        state = state._replace(step=first, cursor=first, optimizer_state=(np.float32(rate), state.optimizer_state[1]))
        return jax.device_put(state, shardings)

    def _spent(self, metrics: dict, seconds: float) -> Spent:
        config, weights = self.config, self.experiment.model.parameters
        prompts = metrics["answers"] / config.answers_per_prompt * self.prompt_length
        context = self.prompt_length + (metrics["answer_length"] or 0) / 2
        forward = forward_flops(config, weights, metrics["tokens"] + prompts, context)
        trained = PASSES[config.model.remat] * forward_flops(config, weights, metrics["tokens_trained"], context)
        return Spent(
            metrics["tokens"], metrics["tokens_trained"], metrics["updates_taken"], 1, forward + trained, seconds
        )

    def _mark(self, weights: Any, spent: Spent, since: list[dict]) -> dict:
        found = score(self.evaluator(weights, "validation"))
        held_out = {"greedy": found.greedy, "sampled": found.sampled, "held_out_entropy": found.entropy}
        return held_out | as_json(spent) | {name: _mean([step[name] for step in since]) for name in KEPT}


def is_nearest(spent: int, step: int, budget: int) -> bool:
    """Whether the budget is nearer to what is spent than to where another step of this size would lead."""
    return spent + step / 2 > budget


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
