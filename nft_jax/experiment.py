"""An experiment, stage by stage: its data, its mesh, its resolved config, its model, and the processes that grade.

`build_experiment` does all but the last and starts no process: a plan needs no more. `open_experiment` is for programs
that sample answers, and ends the grading processes when its `with` block ends.
"""

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nft_jax import losses
from nft_jax.base import Source, add_frozen, load_base
from nft_jax.config import Config, MeshConfig, RolloutConfig, replace_value
from nft_jax.data.dataset import Dataset, load_dataset
from nft_jax.data.files import Problem
from nft_jax.data.prompts import PromptTable
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.evaluation.evaluator import Evaluator, compile_evaluator
from nft_jax.files import atomically
from nft_jax.losses import Loss, TokenReward
from nft_jax.models import hf
from nft_jax.models.lora import split_weights
from nft_jax.models.sharded import ShardedModel, build_model, with_sharding
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import make_mesh
from nft_jax.processes import distributed
from nft_jax.resolve import locate, resolve
from nft_jax.rollout.engine import Engine
from nft_jax.run import hardware_notes
from nft_jax.state import Record, State
from nft_jax.step import Step
from nft_jax.teacher import build_teacher, load_teacher
from nft_jax.types import Prompts
from nft_jax.update.groups import empty_groups
from nft_jax.update.optimizer import Optimizer, make_optimizer, offload_shardings, state_specs
from nft_jax.update.update import Updater
from nft_jax.verifier import Verifier, open_verifier
from nft_jax.verify.callback import Grader


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One experiment on one mesh: everything that its programs share.

    Attributes:
      config: The resolved config.
      dataset: Tokenizer, prompts and examples.
      engine: Samples the training rollouts.
      verifier: The grading processes; None where nothing is sampled.
      teacher: The frozen model of a distillation; None without one.
    """

    config: Config
    dataset: Dataset
    model: ShardedModel
    loss: Loss
    engine: Engine
    verifier: Verifier | None = None
    teacher: ShardedModel | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        return self.dataset.tokenizer

    def grader(self, references: Sequence[str]) -> Grader:
        """Returns the host's side of grading answers to problems with these reference answers.

        Raises:
          ValueError: When the experiment was built without grading processes.
        """
        if self.verifier is None:
            raise ValueError("this experiment has no grading processes: use open_experiment")
        return self.verifier.grader(self.tokenizer, references)

    def make_optimizer(self) -> Optimizer:
        """Returns the optimizer of the run, whose schedule ends with its last update."""
        config = self.config
        return make_optimizer(config.optimizer, config.steps * config.updates_per_step, self.model.trained_axes)

    def step(self, optimizer: Optimizer, grader: Grader | None = None) -> Step:
        """Returns the step on the training problems; answers are graded by `grader`, by default the verifier's."""
        config, loss, mesh = self.config, self.loss, self.model.mesh
        normalizer = config.loss.normalizer or loss.normalizer

        def make_updater(model):
            parts = model.graph, model.axes, mesh
            return Updater(config, loss, optimizer, *parts, old_logp=config.old_logp, normalizer=normalizer)

        grader = grader or self.grader(self.dataset.tables["train"].answers)
        updater, teacher = make_updater(self.model), self.teacher and make_updater(self.teacher)
        return Step(config, mesh, self.engine, grader, loss, updater, self._token_reward(), teacher)

    def _token_reward(self) -> TokenReward | None:
        name, ids = self.config.loss.token_reward, range(self.tokenizer.vocab_size)
        return losses.bind_token_reward(name, self.tokenizer.token_texts(list(ids))) if name else None

    def place(self, tree: Any, specs: Any = None) -> Any:
        """Puts host arrays on the mesh, laid out by `specs`, or whole on each device."""
        specs = jax.tree.map(lambda _: PartitionSpec(), tree) if specs is None else specs
        return distributed.place(tree, layout.shardings(self.model.mesh, specs))

    def prompts(self, table: PromptTable) -> Prompts:
        """Puts a prompt table on the mesh."""
        return self.place(Prompts(table.token_QP, table.length_Q))

    def starting_weights(self) -> Any:
        """Loads the weights of `config.base` or of the model folder, or draws random ones; in the training layout.

        Adapters are new: they change nothing yet. Raises as `load_base`.
        """
        return self.model.start_adapters(load_base(Source.of(self.config), self.model), self.config.seed)

    def add_frozen(self, trained: Any, fingerprint: dict, where: Any) -> Any:
        """Returns all weights, given those that a run of this config saved; as `base.add_frozen`."""
        return add_frozen(trained, Source.of(self.config), self.model, fingerprint, where)

    def write_model_settings(self, folder: Path) -> None:
        """Writes the model's settings and tokenizer as a Hugging Face folder without weights, completely or not at all.

        Of several processes, only process 0 writes.
        """
        source = Path(self.config.model.path) if self.config.model.path else None
        if source == folder or jax.process_index():
            return
        with atomically(folder) as temporary:
            hf.write_settings(temporary, self.config.model, self.tokenizer, source)
            shutil.rmtree(folder, ignore_errors=True)

    def state_shardings(self, optimizer: Optimizer) -> State:
        """Returns the layout of each array of a `State`."""
        config, model, whole = self.config, self.model, PartitionSpec()
        carried = None
        if config.carry_capacity:
            empty = empty_groups(1, 1, 1, config.verify.graded, config.rollout.partial)
            carried = jax.tree.map(lambda _: whole, (empty, 0))
        begin = self.engine.first_in_flight(config)
        trained, _ = split_weights(model.shapes)
        trained_specs, frozen_specs = split_weights(model.weight_specs)
        specs = State(
            weights=trained_specs,
            optimizer_state=state_specs(optimizer, trained, trained_specs),
            step=whole,
            cursor=whole,
            carried=carried,
            reference=trained_specs if config.loss.kl_weight else None,
            frozen=frozen_specs,
            teacher=self.teacher and self.teacher.weight_specs,
            in_flight=begin and self.engine.kept_specs(jax.eval_shape(begin, model.shapes)),
        )
        shardings = layout.shardings(model.mesh, specs)
        if not optimizer.offload:
            return shardings
        moments = jax.eval_shape(optimizer.init, trained)
        return shardings._replace(optimizer_state=offload_shardings(shardings.optimizer_state, moments))

    def initial_state(self, optimizer: Optimizer, weights: Any) -> State:
        """Returns the state before the first step; it takes over `weights`, which are in the training layout."""
        shardings = self.state_shardings(optimizer)
        # Jitted, so that each moment is allocated in its own layout.
        init = jax.jit(optimizer.init, out_shardings=shardings.optimizer_state)
        begin = self.engine.first_in_flight(self.config)
        in_flight = begin and jax.jit(begin, out_shardings=shardings.in_flight)(weights)
        state, shardings = self._first_state(init, weights, self.load_teacher()), shardings._replace(in_flight=None)
        return jax.device_put(state, shardings)._replace(in_flight=in_flight)

    def load_teacher(self) -> Any:
        """Loads the weights of the teacher; None without one. Raises as `teacher.load_teacher`."""
        return self.teacher and load_teacher(self.teacher)

    def abstract_state(self, optimizer: Optimizer) -> State:
        """Returns shapes and layouts of the state: a checkpoint is read into them, and the step compiled for them."""
        first = functools.partial(self._first_state, optimizer.init)
        shapes = jax.eval_shape(first, self.model.shapes, self.teacher and self.teacher.shapes)
        begin = self.engine.first_in_flight(self.config)
        shapes = shapes._replace(in_flight=begin and jax.eval_shape(begin, self.model.shapes))
        return jax.tree.map(with_sharding, shapes, self.state_shardings(optimizer))

    def _first_state(self, init, weights, teacher):
        config, carried = self.config, None
        if config.carry_capacity:
            sizes = config.carry_capacity, config.answers_per_prompt, config.rollout.max_answer_tokens
            carried = (empty_groups(*sizes, config.verify.graded, config.rollout.partial), jnp.int32(0))
        trained, frozen = split_weights(weights)
        reference = jax.tree.map(jnp.copy, trained) if config.loss.kl_weight else None
        return State(trained, init(trained), jnp.int32(0), jnp.int32(0), carried, reference, frozen, teacher)


def open_data(config: Config, folder: Path, problems: dict[str, list[Problem]] | None = None) -> Dataset:
    """Loads the data of a loaded config, or the given `problems`, by the name of their table, in place of it.

    Raises:
      FileNotFoundError, ValueError: As `load_dataset`, and for a model folder that cannot be used.
    """
    return load_dataset(locate(config, folder), folder, problems)


def open_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Arranges the devices, by default all, in a mesh.

    Raises:
      ValueError: When they are too few, or a process has no part of the mesh.
    """
    mesh = make_mesh(config.data, config.tensor, devices, config.replica)
    distributed.check_mesh(mesh)
    return mesh


def build_experiment(
    config: Config,
    folder: Path,
    devices: list[jax.Device] | None = None,
    *,
    problems: dict[str, list[Problem]] | None = None,
    dataset: Dataset | None = None,
) -> Experiment:
    """Opens the data and the mesh, resolves the config, and builds the model; starts no process.

    Args:
      folder: The workdir.
      devices: By default all.
      problems: Problems by the name of their table, in place of the config's; such an experiment is only evaluated.
      dataset: Data in place of the config's; then nothing is read.

    Raises:
      FileNotFoundError, ValueError: For data or sizes that cannot work, before anything is compiled.
    """
    dataset = dataset or open_data(config, folder, problems)
    mesh = open_mesh(config.mesh, devices)
    config = resolve(config, folder, dataset.tokenizer.vocab_size, mesh)
    model = build_model(config.model, dataset.tokenizer.vocab_size, mesh, config.lora)
    loss = config.resolve_loss()
    # What is only evaluated needs no teacher, which may be gone.
    teacher = build_teacher(config, dataset.tokenizer, model.attention.name, mesh) if problems is None else None
    if teacher is not None:
        config = replace_value(config, "distillation.teacher", teacher.config.path)
    engine = make_engine(model, config.rollout, dataset.tokenizer)
    return Experiment(config, dataset, model, loss, engine, teacher=teacher)


@contextlib.contextmanager
def open_experiment(config: Config, folder: Path, *arguments: Any, **data: Any) -> Iterator[Experiment]:
    """Builds the experiment and starts its grading processes, which end with the `with` block.

    Arguments and exceptions are those of `build_experiment` and `open_verifier`.
    """
    experiment = build_experiment(config, folder, *arguments, **data)
    with open_verifier(experiment.config.verify) as verifier:
        yield dataclasses.replace(experiment, verifier=verifier)


def make_engine(model: ShardedModel, config: RolloutConfig, tokenizer: Tokenizer) -> Engine:
    """Returns the engine that samples answers with the model's weights."""
    lockstep = config.lockstep == "yes" or (config.lockstep == "auto" and hardware_notes.uses_lockstep(model.mesh))
    ends = tokenizer.eos_ids, model.config.dtype, lockstep, tokenizer.stop_table
    return Engine(*model.sampled, model.mesh, config, *ends, adapter_scale=model.merge_scale)


def make_evaluator(experiment: Experiment, tables: dict[str, PromptTable]) -> Evaluator:
    """Compiles the held-out evaluation of these tables, with the sampling settings of `config.evaluation`.

    Raises:
      ValueError: As `compile_evaluator`.
    """
    config, model = experiment.config, experiment.model
    sampling = {name: getattr(config.evaluation, name) for name in ("temperature", "top_p", "top_k")}
    rollout = dataclasses.replace(config.rollout, weights="model", partial=False, **sampling)
    engine = make_engine(model, rollout, experiment.tokenizer)
    return compile_evaluator(model, engine, experiment.grader, tables, config.evaluation, config.seed)


def compile_step(
    step: Step, state: State, prompts: Prompts, state_shardings: State, options: dict[str, Any] | None = None
) -> jax.stages.Compiled:
    """Compiles the step, which takes over the memory of the state that it is given.

    Args:
      state: A state, or its shapes and layouts.
      prompts: The prompt table, or its shapes.
      state_shardings: The layout of the state before and after a step.
      options: Options of the compiler.
    """
    whole = NamedSharding(step.mesh, PartitionSpec())
    # Every process reads the numbers. The groups stay sharded; only a step that logs them gathers them.
    record = Record(**{name: whole for name in Record._fields} | {"last": None, "length_RQK": None})

    def train_step(state, prompts):
        return step(state, prompts)

    jitted = jax.jit(
        train_step, in_shardings=(state_shardings, whole), out_shardings=(state_shardings, record), donate_argnums=0
    )
    return jitted.lower(state, prompts).compile(options)
