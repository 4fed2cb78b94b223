"""What all programs of a run share: its data, model, mesh, layouts, loss and verifier."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nft_jax import losses
from nft_jax.config import Config, VerifyConfig
from nft_jax.data.dataset import Dataset, load_dataset
from nft_jax.data.files import Problem
from nft_jax.data.prompts import PromptTable
from nft_jax.files import atomically
from nft_jax.losses import Loss
from nft_jax.models import attention_backends, hf, transformer
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import TENSOR, make_mesh, shard_count
from nft_jax.processes import distributed
from nft_jax.randomness import stream
from nft_jax.rollout.engine import Engine
from nft_jax.run import remote_workdir
from nft_jax.run.checkpoint import load_weights
from nft_jax.state import Record, State
from nft_jax.step import Step
from nft_jax.types import Prompts
from nft_jax.update.groups import empty_groups
from nft_jax.update.minibatches import row_tokens, units_per_group
from nft_jax.update.optimizer import Optimizer, on_host, state_specs
from nft_jax.update.update import Updater
from nft_jax.verify.callback import Grader
from nft_jax.verify.pool.pool import Pool
from nft_jax.verify.pool.process import StartError


class Experiment:
    """One experiment on one mesh. A context manager: leaving it ends the verifier's workers.

    Given `problems` by name of their table, it has these in place of the config's own, and can only be evaluated; given
    a whole `dataset`, it reads nothing.

    Raises:
      ValueError: for data, sizes or a grader that can't work, before anything is compiled.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        devices: list[jax.Device] | None = None,
        problems: dict[str, list[Problem]] | None = None,
        dataset: Dataset | None = None,
    ):
        config = located(config, folder)
        self.dataset = dataset or load_dataset(config, folder, problems)
        self.tokenizer = self.dataset.tokenizer
        self.config = config = with_shape(config, self.tokenizer.vocab_size)
        self.loss = losses.resolve(config.loss.name, config.loss.options)
        self.mesh = make_mesh(config.mesh.data, config.mesh.tensor, devices, config.mesh.replica)
        distributed.check_mesh(self.mesh)
        layout.check_host_memory(self.mesh, _on_host(config))
        self.attention = attention_backends.select_attention(config.model, self.mesh)
        self.config = config = with_packing(config, self.attention)
        check_sizes(config, self.loss, self.mesh)
        self.graph, self.abstract, self.axes = transformer.abstract_model(
            config.model, self.tokenizer.vocab_size, self.attention
        )
        layout.check_divisible(self.abstract, self.axes, self.mesh)
        self.weight_specs = layout.specs(self.axes, layout.TRAINING)
        self.engine = Engine(
            self.graph, self.axes, self.mesh, config.rollout, self.tokenizer.eos_ids, config.model.dtype
        )
        self.pool, self.second_pool = _start_pools(config.verify)

    def __enter__(self) -> "Experiment":
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.close()
        if self.second_pool is not None:
            self.second_pool.close()

    def grader(self, answers: Sequence[str]) -> Grader:
        """The verifier's host side for problems with these reference answers."""
        seconds = self.config.verify.seconds_per_round
        return Grader(self.pool, self.tokenizer.decode_batch, answers, seconds, self.second_pool)

    def step(self, optimizer: Optimizer) -> Step:
        """The step on the training problems."""
        config, loss = self.config, self.loss
        normalizer = config.loss.normalizer or loss.normalizer
        model = (self.graph, self.axes, self.mesh)
        updater = Updater(config, loss, optimizer, *model, old_logp=config.old_logp, normalizer=normalizer)
        return Step(config, self.mesh, self.engine, self.grader(self.dataset.tables["train"].answers), loss, updater)

    def place(self, tree: Any, specs: Any = None) -> Any:
        """Puts host arrays on the mesh: as `specs` say, or whole on each device."""
        specs = jax.tree.map(lambda _: PartitionSpec(), tree) if specs is None else specs
        return distributed.place(tree, layout.shardings(self.mesh, specs))

    def prompts(self, table: PromptTable) -> Prompts:
        """A prompt table on the device."""
        return self.place(Prompts(table.token_NP, table.length_N))

    def starting_weights(self) -> Any:
        """Weights to start from, in the training layout: of `config.base`, of the model folder, or random ones."""
        if self.config.base:
            return load_weights(remote_workdir.opened(self.config.base, "config.base"), self.abstract_weights())
        if self.config.model.path:
            return hf.load_weights(Path(self.config.model.path), self.abstract_weights())
        return self.random_weights()

    def keep_settings(self, folder: Path) -> None:
        """Writes the model's settings and tokenizer as a Hugging Face folder without weights, whole or not at all.

        Of several processes the first does.
        """
        source = Path(self.config.model.path) if self.config.model.path else None
        if source == folder or jax.process_index():
            return
        with atomically(folder) as temporary:
            hf.write_settings(temporary, self.config.model, self.tokenizer, source)
            shutil.rmtree(folder, ignore_errors=True)

    def random_weights(self) -> Any:
        """Random weights from the seed, born in the training layout."""
        shardings = layout.shardings(self.mesh, self.weight_specs)
        config, vocabulary, seed = self.config.model, self.tokenizer.vocab_size, self.config.seed

        def init():
            return transformer.initial_weights(config, vocabulary, stream(seed, "weights"))

        return jax.jit(init, out_shardings=shardings)()

    def abstract_weights(self) -> Any:
        """Shapes and layouts of the weights: what a checkpoint is read into."""
        shardings = layout.shardings(self.mesh, self.weight_specs)
        return jax.tree.map(with_sharding, self.abstract, shardings)

    def state_shardings(self, optimizer: Optimizer) -> State:
        """Where each array of a `State` lies."""
        config, whole = self.config, PartitionSpec()
        carried = None
        if config.selection.carry:
            carried = (jax.tree.map(lambda _: whole, empty_groups(1, 1, 1)), whole)
        specs = State(
            weights=self.weight_specs,
            optimizer_state=state_specs(optimizer, self.abstract, self.weight_specs),
            step=whole,
            cursor=whole,
            carried=carried,
            reference=self.weight_specs if config.loss.kl_weight else None,
        )
        shardings = layout.shardings(self.mesh, specs)
        if not optimizer.offload:
            return shardings
        moments = jax.eval_shape(optimizer.init, self.abstract)
        return shardings._replace(optimizer_state=on_host(shardings.optimizer_state, moments))

    def initial_state(self, optimizer: Optimizer, weights: Any) -> State:
        """The state before the first step, from weights in the training layout (which it takes over)."""
        shardings = self.state_shardings(optimizer)
        # Jitted, so that each moment is born where it is to lie.
        init = jax.jit(optimizer.init, out_shardings=shardings.optimizer_state)
        return jax.device_put(self._first(init, weights), shardings)

    def abstract_state(self, optimizer: Optimizer) -> State:
        """Shapes and layouts of the state: what a checkpoint is read into, and the step is compiled for."""
        shapes = jax.eval_shape(lambda weights: self._first(optimizer.init, weights), self.abstract)
        return jax.tree.map(with_sharding, shapes, self.state_shardings(optimizer))

    def _first(self, init, weights):
        config, carried = self.config, None
        if config.selection.carry:
            room = empty_groups(config.carry_capacity, config.answers_per_prompt, config.rollout.max_answer_tokens)
            carried = (room, jnp.int32(0))
        reference = jax.tree.map(jnp.copy, weights) if config.loss.kl_weight else None
        return State(weights, init(weights), jnp.int32(0), jnp.int32(0), carried, reference)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self.abstract))

    @property
    def verifier(self) -> str:
        """The graders, and what is enforced on their processes, in words."""
        config = self.config.verify
        second = f", compared with {config.second_grader}" if config.second_grader else ""
        isolated = "isolated" if self.pool.isolated else "not isolated"
        if not self.pool.isolated and config.isolation == "auto":
            own = "a grader of your own: config.verify.isolation=required does"
            isolated += f" ({own if ':' in config.grader else 'pip install seccompy, on Linux'})"
        return f"{config.grader}{second}; {config.workers} processes, {isolated}"

    @property
    def whole(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())


def _on_host(config: Config) -> dict[str, bool]:
    """The settings by which arrays wait in the host's memory, and whether they are chosen."""
    return {
        "config.optimizer.offload=true": config.optimizer.offload,
        "config.warm_start.optimizer.offload=true": config.warm_start.optimizer.offload,
        "config.model.remat='offload'": config.model.remat == "offload",
    }


def _start_pools(verify: VerifyConfig) -> tuple[Pool, Pool | None]:
    """The workers of the grader, and those of the second one."""
    first = _start_pool(verify, "grader")
    if not verify.second_grader:
        return first, None
    try:
        return first, _start_pool(verify, "second_grader")
    except ValueError:
        first.close()
        raise


def _start_pool(verify: VerifyConfig, setting: str) -> Pool:
    grader = getattr(verify, setting)
    limits = {
        "item_seconds": verify.seconds_per_answer,
        "memory_mib": verify.worker_memory_mib,
        "isolation": verify.isolation,
    }
    try:
        return Pool(grader, workers=verify.workers, **limits)
    except (StartError, ValueError) as error:
        raise ValueError(f"config.verify.{setting}={grader!r}: {error}") from error


def with_sharding(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    """The shape of an array that lies so."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def located(config: Config, folder: Path) -> Config:
    """The config with the files that are there: settings and tokenizer of the model folder, where it names one.

    A run keeps a copy of these settings in its own folder, so that it goes on where the model folder is gone.

    Raises:
      FileNotFoundError, ValueError: when there is no such folder, or none of a model that we know.
    """
    path = config.model.path
    if not path:
        return config
    kept = folder / "model"
    if not Path(path).exists() and kept.is_dir():
        path = str(kept)
    hf.read_model_settings(Path(path))
    model = dataclasses.replace(config.model, path=path)
    data = dataclasses.replace(config.data, tokenizer=config.data.tokenizer or path)
    return dataclasses.replace(config, model=model, data=data)


def with_packing(config: Config, attention: attention_backends.AttentionBackend) -> Config:
    """The config with it decided whether rows share prompts, which kernels don't know.

    Raises:
      ValueError: where they should but can't, or rows are then too short.
    """
    choice = config.packing.share_prompts
    if choice == "yes" and attention is not attention_backends.XLA:
        raise ValueError(
            f"config.packing.share_prompts='yes': attention by {attention.name} wants rows that hold their prompts; "
            f"use 'auto' or 'no', or config.model.attention='xla'"
        )
    if choice == "auto" and attention is not attention_backends.XLA:
        choice = "no"
    return dataclasses.replace(config, packing=dataclasses.replace(config.packing, share_prompts=choice))


def with_shape(config: Config, vocabulary: int) -> Config:
    """The config with the model's shape filled in: that of its folder, and the embedding's rows.

    Raises:
      ValueError: when the embedding has fewer rows than the tokenizer has ids.
    """
    model = config.model
    if model.path:
        rows = hf.read_model_settings(Path(model.path))["vocab"]
        if rows < vocabulary:
            raise ValueError(
                f"the model in {model.path} has {rows} vocabulary rows, the tokenizer {config.data.tokenizer} "
                f"{vocabulary} ids: they don't belong together; give the model's own by config.data.tokenizer"
            )
        model = hf.resolve_model(model, Path(model.path))
    rows = model.vocab or -(-vocabulary // model.vocab_multiple) * model.vocab_multiple
    if rows < vocabulary:
        raise ValueError(f"config.model.vocab={rows} is smaller than the tokenizer's {vocabulary} ids; use 0 to fit it")
    return dataclasses.replace(config, model=dataclasses.replace(model, vocab=rows))


def _split_tokens(config: Config, unit: str) -> dict[str, int]:
    """How long rows are where their tokens are split, by the setting that says it."""
    if not config.mesh.sequence_parallel:
        return {}
    shared = config.prompts_are_shared
    rows = {"config.packing.row_tokens": row_tokens(config, unit, shared)}
    return rows | ({"config.data.max_prompt_tokens": config.data.max_prompt_tokens} if shared else {})


def check_sizes(config: Config, loss: Loss, mesh: Mesh) -> None:
    """Checks that answers and units divide over the mesh.

    Raises:
      ValueError: with the sizes that would work.
    """
    shards, faults = shard_count(mesh), []
    Q, K, U = config.prompts_per_step, config.answers_per_prompt, config.updates_per_step
    C = config.candidates_per_round
    if C % shards:
        near = f"{C - C % shards} or {C - C % shards + shards}" if shards < C else f"{shards}"
        faults.append(f"{C} candidate prompts a round are not divisible by {shards} data shards; use {near}")
    if C * K % mesh.size:
        faults.append(
            f"{C} prompts × {K} answers = {C * K} answers are not divisible by {mesh.size} devices, which grade them"
        )
    each = units_per_group(loss.unit, K)
    units = Q // U * each
    if units % shards or not units:
        faults.append(
            f"an update's {Q // U} prompts × {each} {loss.unit}s = {units} units are not divisible by {shards} data "
            f"shards; change prompts_per_step={Q}, answers_per_prompt={K} or updates_per_step={U}"
        )
    T, parts = mesh.shape[TENSOR], _split_tokens(config, loss.unit)
    faults += [
        f"config.mesh.sequence_parallel=true splits rows of {setting}={tokens} tokens over mesh.tensor={T}, which does "
        f"not divide them; use {tokens + -tokens % T}, or sequence_parallel=false"
        for setting, tokens in parts.items()
        if tokens % T
    ]
    if config.model.kv_heads % T:
        faults.append(
            f"{config.model.kv_heads} key-value heads are not divisible by mesh.tensor={T}; "
            f"use a tensor axis that divides them"
        )
    if faults:
        raise ValueError("the step does not divide over the mesh:\n  " + "\n  ".join(faults))


def compile_step(step: Step, state: State, prompts: Prompts, state_shardings: State):
    """The jitted, donated program, compiled ahead of its first call."""
    whole = NamedSharding(step.mesh, PartitionSpec())
    # Every process reads the numbers; the groups stay in parts, which only a step that writes them brings together.
    record = Record(**{name: whole for name in Record._fields} | {"last": None})

    def train_step(state, prompts):
        return step(state, prompts)

    jitted = jax.jit(
        train_step, in_shardings=(state_shardings, whole), out_shardings=(state_shardings, record), donate_argnums=0
    )
    return jitted.lower(state, prompts).compile()
