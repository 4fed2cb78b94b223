"""Supervised learning on the device: an update on worked examples, and the loss of held-out ones."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax import losses
from nft_jax.config import replace_value
from nft_jax.data.order import prompt_order
from nft_jax.data.prompts import ExampleTable
from nft_jax.experiment import Experiment
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import shard_count
from nft_jax.randomness import stream
from nft_jax.state import State
from nft_jax.types import Array
from nft_jax.update.minibatches import count_totals, pack_shards
from nft_jax.update.optimizer import Optimizer
from nft_jax.update.packing import PackedRows, Sequences
from nft_jax.update.update import Updater, UpdateRecord


class SupervisedRecord(NamedTuple):
    """What an update reports to the host.

    Attributes:
      tokens: float32, response tokens that it trained on.
    """

    applied: UpdateRecord
    tokens: Array


class ExampleLosses(NamedTuple):
    """Losses of held-out examples; most places are empty.

    Attributes:
      loss_I: float32, −Σ log p(token) over an example's response.
      tokens_I: float32, its tokens; 0 in an empty place.
    """

    loss_I: Array
    tokens_I: Array


class HeldOutLoss(NamedTuple):
    """The mean loss of a token of held-out examples.

    Attributes:
      loss: nats a token; None if it is not finite.
      loss_error: Its standard error over examples, whose tokens depend on one another; None for fewer than two.
    """

    loss: float | None
    loss_error: float | None
    examples: int
    tokens: int


class SupervisedStep:
    """Maximum likelihood of responses: the update of RFT with every answer correct, averaged over tokens.

    The likelihood is that at temperature 1: the sampler's temperature belongs to the steps after this phase.
    """

    def __init__(self, experiment: Experiment, optimizer: Optimizer | None):
        self.config, self.mesh = replace_value(experiment.config, "rollout.temperature", 1.0), experiment.model.mesh
        self.count = self.config.warm_start.examples_per_update
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

    def __call__(self, state: State, examples: Sequences) -> tuple[State, SupervisedRecord]:
        """Takes one update on the next `warm_start.examples_per_update` examples; each epoch has its own order."""
        with jax.default_matmul_precision(self.config.model.precision):
            draw = state.cursor + jnp.arange(self.count, dtype=jnp.int32)
            index = prompt_order(self.order_key, examples.present_I.shape[0], draw)
            chosen = self._split(jax.tree.map(lambda x: x[index], examples))
            packed, totals = jax.tree.map(lambda x: x[0], (self._pack(chosen), count_totals(chosen, "answer")))
            updater = self.updater.freeze(state.frozen)
            weights, optimizer_state, applied = updater(
                state.weights, state.optimizer_state, packed, totals, None, True
            )
        state = state._replace(
            weights=weights, optimizer_state=optimizer_state, step=state.step + 1, cursor=state.cursor + self.count
        )
        return state, SupervisedRecord(applied, totals.tokens)

    def measure(self, weights, examples: Sequences, start: Array) -> ExampleLosses:
        """Measures the losses of the `warm_start.examples_per_update` examples from `start` on, without an update.

        `weights` are all weights of the model.
        """
        with jax.default_matmul_precision(self.config.model.precision):
            index = start + jnp.arange(self.count, dtype=jnp.int32)
            present = index < examples.present_I.shape[0]
            chosen = jax.tree.map(lambda x: x[jnp.where(present, index, 0)], examples)
            length = jnp.where(present, chosen.answer_length_I, 0)
            chosen = self._split(chosen._replace(answer_length_I=length, present_I=present))
            packed = jax.tree.map(lambda x: x[0], self._pack(chosen))
            logp_XBT = self.updater.logp(weights, packed)
            return jax.tree.map(jnp.ravel, jax.vmap(_sum_examples)(logp_XBT, packed.rows.batch.answer_BT))

    def _split(self, examples: Sequences) -> Sequences:
        """Gives example i to data shard i mod shards, as `make_minibatches` does with units: `[1, shards, …]`."""
        shards = shard_count(self.mesh)
        examples = jax.tree.map(
            lambda x: jnp.swapaxes(x.reshape(-1, shards, *x.shape[1:]), 0, 1)[None],
            examples,
        )
        return layout.split_rows(examples, self.mesh, axis=1)

    def _pack(self, examples: Sequences) -> PackedRows:
        return layout.split_rows(pack_shards(examples, self.config, "answer"), self.mesh, axis=1)


def _sum_examples(logp_BT: Array, answer_BT: Array) -> ExampleLosses:
    """Sums the examples of one shard's rows."""
    B, T = answer_BT.shape
    inside_BT = answer_BT >= 0
    # An example is a number in its row, and has a token at least: B · T places are enough.
    place_BT = jnp.where(inside_BT, jnp.arange(B, dtype=jnp.int32)[:, None] * T + answer_BT, B * T)

    def sum_by_example(value_BT):
        return jnp.zeros(B * T, value_BT.dtype).at[place_BT].add(value_BT, mode="drop")

    return ExampleLosses(sum_by_example(-logp_BT), sum_by_example(inside_BT.astype(logp_BT.dtype)))


def held_out_loss(batches: Iterable[ExampleLosses]) -> HeldOutLoss:
    """Returns the loss L = Σ s / Σ n and its error √(m/(m−1) · Σ (s − L n)²) / Σ n, over m examples of n tokens."""
    s, n = (np.concatenate(part).astype(np.float64) for part in zip(*map(_take_examples, batches), strict=True))
    loss, error = float(s.sum() / n.sum()), math.nan
    if len(n) > 1:
        error = math.sqrt(len(n) / (len(n) - 1) * np.sum((s - loss * n) ** 2)) / n.sum()
    loss, error = (float(value) if math.isfinite(value) else None for value in (loss, error))
    return HeldOutLoss(loss, error, len(n), int(n.sum()))


def _take_examples(losses: ExampleLosses) -> tuple[np.ndarray, np.ndarray]:
    loss_I, tokens_I = jax.device_get(losses)
    return loss_I[tokens_I > 0], tokens_I[tokens_I > 0]


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
