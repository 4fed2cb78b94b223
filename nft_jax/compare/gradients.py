"""Gradients of losses on one rollout, through the whole training path, in any precision and on any devices."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from nft_jax import losses
from nft_jax.config import Config, LossConfig, ModelConfig
from nft_jax.experiment import Experiment
from nft_jax.losses import LOSSES, Loss
from nft_jax.losses.registry import find, traits_of
from nft_jax.models import transformer
from nft_jax.models.attention_backends import XLA, AttentionBackend
from nft_jax.models.lora import split_weights
from nft_jax.parallel import layout
from nft_jax.precision import in_float64, to_float64
from nft_jax.resolve import check_sizes
from nft_jax.state import State
from nft_jax.step import Step
from nft_jax.types import Array, Groups, LossBatch, Prompts
from nft_jax.update.groups import split_pool
from nft_jax.update.optimizer import make_optimizer
from nft_jax.update.update import Updater


class RolloutBuffer(NamedTuple):
    """One rollout on the host.

    Attributes:
      count: number of groups in it that train; they come first.
    """

    groups: Groups
    count: int
    prompts: Prompts


def sample_buffer(experiment: Experiment, weights: Any) -> RolloutBuffer:
    """Fills one step's training buffer with the config's engine, verifier and selection.

    Raises:
      ValueError: if no group trains.
    """
    step = experiment.step(make_optimizer(experiment.config.optimizer, 1, experiment.model.trained_axes))
    prompts = experiment.prompts(experiment.dataset.tables["train"])

    @jax.jit
    def program(weights, prompts):
        with jax.default_matmul_precision(step.config.model.precision):
            sampled, _ = step.sample(State(weights, None, jnp.int32(0), jnp.int32(0), None, None), prompts)
            split = split_pool(sampled.pool, sampled.count, step.config.prompts_per_step, step.config.carry_capacity)
        return split.buffer, split.trained

    groups, count, prompts = jax.device_get((*program(weights, prompts), prompts))
    if not count:
        raise ValueError(
            "no group of the rollout has both correct and incorrect answers, so no gradient can be compared; change "
            "config.warm_start.steps, or set config.base to weights that give both"
        )
    return RolloutBuffer(groups, int(count), prompts)


def make_training_step(
    config: Config, loss: Loss, mesh: Mesh, model: ModelConfig, vocabulary: int, attention: AttentionBackend = XLA
) -> Step:
    """Makes a step that trains but neither samples nor grades.

    Args:
      model: the model's settings; unlike `config.model`, their dtype may be float64.
    """
    graph, _, axes = transformer.abstract_model(model, vocabulary, attention, config.lora)
    optimizer = make_optimizer(config.optimizer, config.steps, split_weights(axes)[0])
    normalizer = config.loss.normalizer or loss.normalizer
    updater = Updater(config, loss, optimizer, graph, axes, mesh, old_logp=config.old_logp, normalizer=normalizer)
    return Step(config, mesh, None, None, loss, updater)


def label_loss(loss: LossConfig) -> str:
    """Puts a loss with its options and normalizer into words."""
    options = " ".join(f"{name}={value}" for name, value in loss.options.items())
    normalizer = loss.normalizer or traits_of(find(loss.name, LOSSES)).normalizer
    return f"{loss.name} {options}".strip() + f" / {normalizer}"


class Gradients:
    """Gradients of losses of unit "answer" on the whole rollout, as one minibatch, on one mesh.

    Args:
      dtype: "float32", or "float64", which converts the float32 inputs exactly and computes everything in float64.

    Raises:
      ValueError: if a loss has another unit, or the step does not divide over the mesh.
    """

    def __init__(
        self,
        experiment: Experiment,
        rollout: RolloutBuffer,
        mesh: Mesh,
        choices: Sequence[LossConfig],
        dtype: str = "float32",
    ):
        self.experiment, self.rollout, self.mesh, self.dtype = experiment, rollout, mesh, dtype
        check_sizes(experiment.config, experiment.loss, mesh)
        self.places = {label_loss(loss): place for place, loss in enumerate(choices)}
        self.losses = [losses.resolve(loss.name, loss.options, loss.additions) for loss in choices]
        if pairs := [loss.name for loss in self.losses if loss.unit != "answer"]:
            raise ValueError(
                f"{pairs[0]!r} is a loss of pairs, which trains on other answers; choose losses of unit 'answer'"
            )
        self.packed: dict[str, Any] = {}
        self.programs: dict[str, Any] = {}

    def __call__(self, loss: LossConfig, weights: Any, *, on_policy: bool) -> dict[str, np.ndarray]:
        """Returns the gradient of each parameter of each layer, by name.

        Args:
          on_policy: whether R is exactly 1, as if these weights had sampled; if False, R is the ratio to the sampler.
        """
        with self._precision():
            weights = to_float64(weights) if self.dtype == "float64" else weights
            packed, totals = self._packed(loss)
            program = self._gradient(loss.normalizer or self.losses[self._place(loss)].normalizer)
            return name_parameters(jax.device_get(program(weights, packed, totals, self._place(loss), on_policy)))

    def logp(self, weights: Any) -> np.ndarray:
        """Returns `logp_BT` of the rollout's tokens at these weights, in the rows of `batch`; 0 outside answers."""
        with self._precision():
            packed, _ = next(iter(self.packed.values()))
            return _flatten_shards(self._logp(weights, packed))

    def batch(self, loss: LossConfig) -> LossBatch:
        """Returns the loss's inputs beside the log-probs; the rows are the same for every loss."""
        with self._precision():
            return _flatten_shards(self._packed(loss)[0].rows.batch)

    def _precision(self):
        return in_float64() if self.dtype == "float64" else contextlib.nullcontext()

    def _place(self, loss):
        return np.int32(self.places[label_loss(loss)])

    def _packed(self, loss):
        if label_loss(loss) not in self.packed:
            groups, count, prompts = self.rollout
            if self.dtype == "float64":
                groups = to_float64(groups)
                groups = groups._replace(rate_Q=groups.reward_QK.mean(axis=1))
            self.packed[label_loss(loss)] = self._pack(groups, np.int32(count), prompts, self._place(loss))
        return self.packed[label_loss(loss)]

    @functools.cached_property
    def _pack(self):
        def program(groups, count, prompts, place):
            packed, totals = self._step("", place).pack(groups, count, prompts, jnp.int32(0))
            return jax.tree.map(lambda x: x[0], (packed, totals))

        return jax.jit(program)

    @functools.cached_property
    def _logp(self):
        def program(weights, packed):
            with self._matmuls():
                return self._step("", 0).updater.logp(weights, packed)

        return jax.jit(program, in_shardings=(self._shardings(), None))

    def _gradient(self, normalizer):
        """Returns one program for all losses with this normalizer; the loss's place is an argument of it."""

        def program(weights, packed, totals, place, on_policy):
            with self._matmuls():
                return self._step(normalizer, place).updater.gradient(weights, packed, totals, None, on_policy)[0]

        if normalizer not in self.programs:
            self.programs[normalizer] = jax.jit(program, in_shardings=(self._shardings(), *[None] * 4))
        return self.programs[normalizer]

    def _matmuls(self):
        return jax.default_matmul_precision(self.experiment.config.model.precision)

    def _shardings(self):
        return layout.shardings(self.mesh, self.experiment.model.weight_specs)

    def _step(self, normalizer, place):
        experiment = self.experiment
        named = dataclasses.replace(experiment.config.loss, normalizer=normalizer)
        config = dataclasses.replace(
            experiment.config, loss=named, old_logp="current", updates_per_step=1, strict_on_policy=False
        )
        model = dataclasses.replace(config.model, dtype=self.dtype)
        loss = switch_loss(self.losses, place)
        return make_training_step(
            config, loss, self.mesh, model, experiment.tokenizer.vocab_size, experiment.model.attention
        )


def switch_loss(choices: Sequence[Loss], place: Array) -> Loss:
    """Makes a loss that is the one at `place`, which the running program gives. All have unit "answer"."""

    def function(logp_BT, batch):
        return jax.lax.switch(place, [loss.function for loss in choices], logp_BT, batch)

    def prepare(logp_BT, batch):
        each = [loss.prepare or (lambda _, batch: batch) for loss in choices]
        return jax.lax.switch(place, each, logp_BT, batch)

    def advantage(correct_QK, length_QK, max_answer_tokens):
        functions = [functools.partial(loss.advantage, max_answer_tokens=max_answer_tokens) for loss in choices]
        return jax.lax.switch(place, functions, correct_QK, length_QK)

    reads = tuple(sorted({name for loss in choices for name in loss.reads}))
    prepares = any(loss.prepare for loss in choices)
    forward = any(loss.forward for loss in choices)
    return Loss(
        "switch", function, advantage, "answer", "constant", "mixed", reads, prepare if prepares else None, forward
    )


def _flatten_shards(tree):
    """Copies arrays to the host, with the rows of all shards in one axis."""
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, x.shape[-1]), tree)


def name_parameters(tree: Any) -> dict[str, np.ndarray]:
    """Returns the parameters by name; stacked ones are split by layer, as in "blocks.query[0]"."""
    named = {}
    for path, value in jax.tree_util.tree_leaves_with_path(tree):
        name = ".".join(key.key for key in path)
        if path[0].key == "blocks":
            named |= {f"{name}[{layer}]": each for layer, each in enumerate(value)}
        else:
            named[name] = value
    return named


class Difference(NamedTuple):
    """The difference of two gradients.

    Attributes:
      relative: max |one − other| / max |other|.
      cosine: cosine of the angle between them.
    """

    relative: float
    cosine: float


def compare_arrays(one: np.ndarray, other: np.ndarray) -> Difference:
    """Compares two gradients of the same parameters, in float64."""
    one, other = (np.asarray(x, np.float64).ravel() for x in (one, other))
    norms = np.linalg.norm(one) * np.linalg.norm(other)
    return Difference(float(np.abs(one - other).max() / np.abs(other).max()), float(one @ other / norms))
