"""Supervised warm start: the same model, mesh, packing, optimizer and logging as in training, on worked solutions.

    python -m nft_jax.sft --config=tiny --workdir=runs/base

`python -m nft_jax.train --config.base=runs/base` starts from its weights.
"""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from nft_jax import cli, losses
from nft_jax.config import Config
from nft_jax.data.order import prompt_order
from nft_jax.data.prompts import ExampleTable
from nft_jax.experiment import Experiment, open_experiment
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import shard_count
from nft_jax.randomness import stream
from nft_jax.run.checkpoint import save_weights
from nft_jax.run.workdir import Workdir
from nft_jax.state import State
from nft_jax.types import Array
from nft_jax.update.minibatches import count_totals, pack_shards
from nft_jax.update.optimizer import Optimizer, make_optimizer
from nft_jax.update.packing import Sequences
from nft_jax.update.update import Updater, UpdateRecord


class SupervisedStep:
    """Maximum likelihood of responses: the update of RFT with every answer correct, averaged over tokens."""

    def __init__(self, experiment: Experiment, optimizer: Optimizer):
        self.config, self.mesh = experiment.config, experiment.model.mesh
        self.updater = Updater(
            self.config,
            losses.resolve("rft", {}),
            optimizer,
            experiment.model.graph,
            experiment.model.axes,
            self.mesh,
            old_logp="current",
            normalizer="token_mean",
        )
        self.order_key = stream(self.config.seed, "warm_start")

    def __call__(self, state: State, examples: Sequences) -> tuple[State, tuple[UpdateRecord, Array]]:
        """Takes one update on the next `warm_start.examples_per_update` examples; counts their response tokens."""
        count, shards = self.config.warm_start.examples_per_update, shard_count(self.mesh)
        with jax.default_matmul_precision(self.config.model.precision):
            index = prompt_order(self.order_key, examples.present_I.shape[0], state.cursor, count)
            # Example i of the batch goes to shard i mod shards, as units do in `make_minibatches`.
            chosen = jax.tree.map(
                lambda x: jnp.swapaxes(x[index].reshape(-1, shards, *x.shape[1:]), 0, 1)[None], examples
            )
            chosen = layout.split_rows(chosen, self.mesh, axis=1)
            packed = layout.split_rows(pack_shards(chosen, self.config, "answer"), self.mesh, axis=1)
            one = jax.tree.map(lambda x: x[0], (packed, count_totals(chosen, "answer")))
            weights, optimizer_state, applied = self.updater(state.weights, state.optimizer_state, *one, None, True)
        state = state._replace(
            weights=weights, optimizer_state=optimizer_state, step=state.step + 1, cursor=state.cursor + count
        )
        return state, (applied, one[1].tokens)


def make_sequences(examples: ExampleTable) -> Sequences:
    """Returns the examples as sequences whose answers are all correct."""
    rows = examples.prompt_length_Q.shape[0]
    ones, zeros = jnp.ones(rows, jnp.float32), jnp.zeros(rows, jnp.float32)
    return Sequences(
        prompt_IP=jnp.asarray(examples.token_QP),
        answer_IT=jnp.asarray(examples.response_QT),
        group_I=jnp.arange(rows, dtype=jnp.int32),
        prompt_length_I=jnp.asarray(examples.prompt_length_Q),
        answer_length_I=jnp.asarray(examples.response_length_Q),
        logp_IT=jnp.zeros(examples.response_QT.shape, jnp.float32),
        reward_I=ones,
        rate_I=zeros,
        advantage_I=zeros,
        present_I=jnp.ones(rows, bool),
    )


def warm_start(experiment: Experiment, folder: Workdir) -> Any:
    """Trains the starting weights for `warm_start.steps` updates, in 20 lines of log; saves and returns them."""
    warm = experiment.config.warm_start
    optimizer = make_optimizer(warm.optimizer, warm.steps, experiment.model.axes)
    state = experiment.initial_state(optimizer, experiment.starting_weights())
    # The KL term's reference and carried groups belong to the steps after this phase.
    state = state._replace(carried=None, reference=None)
    examples = experiment.place(make_sequences(experiment.dataset.examples))
    began = time.perf_counter()
    program = _compile(experiment, optimizer, state, examples)
    seconds = time.perf_counter() - began
    print(f"warm start: {warm.steps} updates of {warm.examples_per_update} examples (compiled in {seconds:.0f} s)")
    folder.remove_after(0)
    began, every = time.perf_counter(), max(warm.steps // 20, 1)
    for number in range(1, warm.steps + 1):
        state, (applied, tokens) = program(state, examples)
        if number % every == 0 or number == warm.steps:
            values = {
                "step": number,
                "loss": float(applied.statistics.objective),
                "entropy": float(applied.statistics.entropy / tokens),
                "gradient_norm": float(applied.gradient_norm),
                "seconds": time.perf_counter() - began,
            }
            folder.append(values)
            print(f"  {number:>6}/{warm.steps}  loss {values['loss']:.4f}  {values['seconds']:.0f} s", flush=True)
    save_weights(folder.path, state.weights)
    return state.weights


def _compile(experiment: Experiment, optimizer: Optimizer, state: State, examples: Sequences) -> jax.stages.Compiled:
    shardings = experiment.state_shardings(optimizer)._replace(carried=None, reference=None)
    step, layouts = SupervisedStep(experiment, optimizer), (shardings, experiment.model.whole)

    def sft_step(state, examples):
        return step(state, examples)

    return (
        jax.jit(sft_step, in_shardings=layouts, out_shardings=layouts, donate_argnums=0)
        .lower(state, examples)
        .compile()
    )


def main(config: Config, workdir: Path) -> None:
    """Runs the warm start alone."""
    if not config.warm_start.steps:
        raise ValueError("config.warm_start.steps=0: nothing to do; set it to the number of updates")
    if config.base:
        raise ValueError(
            f"config.base={config.base}: the warm start begins with the weights of config.model.path, or random ones; "
            f'use config.base=""'
        )
    folder = Workdir(workdir)
    with open_experiment(config, workdir) as experiment:
        folder.write_run(config, experiment.model.attention.name)
        experiment.write_model_settings(workdir / "model")
        warm_start(experiment, folder)
    print(f"weights: {workdir / 'weights'}; go on with: python -m nft_jax.train --config=… --config.base={workdir}")


if __name__ == "__main__":
    cli.run(main, __doc__, several=True)
