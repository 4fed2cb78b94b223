"""Small experiments for tests: settings, custom graders, and a compiled step with everything around it."""

import contextlib
import dataclasses
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from helpers.small_parts import lively_weights
from nft_jax.config import Config, default, load
from nft_jax.experiment import Experiment, build_experiment, compile_step
from nft_jax.models import hf
from nft_jax.parallel import layout
from nft_jax.state import Record, State
from nft_jax.step import Step
from nft_jax.update.optimizer import Optimizer, make_optimizer
from nft_jax.verifier import Verifier, start_pool
from nft_jax.verify.grade import Verdict

# A module as a user writes it, found on the path of the process that starts the run.
GRADERS = '''
import os, sys, time, zlib

DEEDS = 16
HANGS, FAILS = (0,), (1, 2, 3)

def draw(response, sides):
    """A number below `sides` that depends on the text alone, the same in every process."""
    return zlib.crc32(response.encode()) % sides

def coin(response, answer):
    return draw(response, 2) == 0

def share(response, answer):
    return draw(response, 11) / 10

def all_correct(response, answer):
    return True

def all_incorrect(response, answer):
    return False

def hostile(response, answer):
    """Hangs, crashes, raises or floods the pipe on some answers; the others get a coin's verdict."""
    deed = draw(response, DEEDS)
    if deed in HANGS:
        time.sleep(3600)
    if deed == FAILS[0]:
        raise RuntimeError("no verdict")
    if deed in FAILS:
        os._exit(3)
    if deed in (4, 5):
        print("noise" * 100_000, flush=True)
    return coin(response, answer)
'''
GRADERS_MODULE = "custom_graders"


def write_graders(folder: Path) -> Path:
    """Writes the module of the graders where this process and its workers find it; returns the folder."""
    (folder / f"{GRADERS_MODULE}.py").write_text(textwrap.dedent(GRADERS))
    sys.path.insert(0, str(folder))
    return folder


def grader(name: str) -> str:
    """Returns the config value of one of the graders above."""
    return f"{GRADERS_MODULE}:{name}"


def settings(**changes: Any) -> ConfigDict:
    """The settings of a step of 8 prompts × 4 answers on one device; `loss__name="rft"` sets `config.loss.name`."""
    config = default()
    config.steps = 4
    config.prompts_per_step, config.answers_per_prompt = 8, 4
    config.data.arithmetic_max_operand, config.data.max_prompt_tokens, config.rollout.max_answer_tokens = 3, 16, 16
    config.model.layers, config.model.width, config.model.mlp_width = 2, 32, 48
    config.model.heads, config.model.kv_heads, config.model.head_size = 4, 2, 8
    config.model.vocab_multiple, config.model.remat, config.model.tied_embedding = 8, "none", False
    config.optimizer.learning_rate, config.optimizer.warmup_updates = 1e-3, 0
    config.mesh.data, config.mesh.tensor = 1, 1
    config.warm_start.validate_every_steps = 0
    with config.loss.own.unlocked():
        config.update_from_flattened_dict({path.replace("__", "."): value for path, value in changes.items()})
    return config


def small(**changes: Any) -> Config:
    """`settings`, loaded and checked."""
    return load(settings(**changes))


def keep_gradient(inner: Optimizer) -> Optimizer:
    """Returns the optimizer with the last gradient in its state, so that a compiled step returns it."""

    def init(weights):
        return inner.init(weights), jax.tree.map(jnp.zeros_like, weights)

    def update(gradient, state, weights):
        change, state = inner.update(gradient, state[0], weights)
        return change, (state, gradient)

    return Optimizer(init, update)


def write_teacher(path: Path, **sizes: Any) -> Path:
    """Writes a model folder with the tokenizer of `small`, whose model has these sizes, and returns the folder."""
    experiment = build_on_mesh(small(**sizes), path.parent)
    weights = jax.tree.map(jnp.asarray, lively_weights(experiment.config.model, seed=5))
    hf.write_settings(path, experiment.config.model, experiment.tokenizer)
    hf.save_weights(path, weights, vocab=experiment.tokenizer.vocab_size)
    return path


def build_on_mesh(config: Config, folder: Path) -> Experiment:
    """Builds the experiment on as many devices as its mesh has, without grading processes."""
    mesh = config.mesh
    return build_experiment(config, folder, jax.devices()[: mesh.replica * mesh.data * mesh.tensor])


def open_on_mesh(config: Config, folder: Path) -> Experiment:
    """Builds it with `verifier.pool`, whose grading processes a test may replace, and must close."""
    verify = config.verify
    second = start_pool(verify, "second_grader") if verify.second_grader else None
    verifier = Verifier(verify, ExchangeablePool(start_pool(verify, "grader")), second)
    return dataclasses.replace(build_on_mesh(config, folder), verifier=verifier)


class ExchangeablePool:
    """Grades by `pool`, which a test may replace between two steps of one compiled program; records the items."""

    def __init__(self, pool: Any):
        self.pool = self.own = pool
        self.items: list = []
        self.grader = pool.grader

    def begin(self) -> Any:
        return NotedBatch(self.pool.begin(), self.items)

    def log_first_error(self, verdicts: Sequence[Verdict]) -> None:
        """Logs nothing."""

    def close(self) -> None:
        self.own.close()


@dataclasses.dataclass
class NotedBatch:
    """A batch that records its items."""

    batch: Any
    items: list

    def add(self, items: Sequence) -> None:
        self.items.extend(items)
        self.batch.add(items)

    def collect(self, total_seconds: float | None) -> list[Verdict]:
        return self.batch.collect(total_seconds)


class JudgedPool:
    """Grades in this process: `judge(number, response, answer)` returns the verdict of answer `number`."""

    def __init__(self, judge: Callable[[int, str, str], str]):
        self.judge, self.number = judge, itertools.count()

    def begin(self) -> "JudgedBatch":
        return JudgedBatch(self)


class JudgedBatch:
    """A batch whose items are judged when they are added."""

    def __init__(self, pool: JudgedPool):
        self.pool, self.verdicts = pool, []

    def add(self, items: Sequence) -> None:
        pool = self.pool
        self.verdicts += [Verdict(pool.judge(next(pool.number), *item), None, 0.0) for item in items]

    def collect(self, total_seconds: float | None) -> list[Verdict]:
        return self.verdicts


class Program:
    """One experiment's compiled step on its mesh, from weights that sample answers of all lengths.

    `step_class` and `wrap_engine` let a test watch, or change, the parts of the program that trains.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        *,
        step_class: type[Step] = Step,
        wrap_engine: Callable[[Any], Any] = lambda engine: engine,
    ):
        self.experiment = experiment = open_on_mesh(config, folder)
        self.config, self.table, self.pool = (
            experiment.config,
            experiment.dataset.tables["train"],
            experiment.verifier.pool,
        )
        self.optimizer = keep_gradient(make_optimizer(config.optimizer, config.steps, experiment.model.trained_axes))
        self.weights = lively_weights(experiment.config.model)
        self.prompts = experiment.prompts(self.table)
        step = experiment.step(self.optimizer)
        parts = {part.name: getattr(step, part.name) for part in dataclasses.fields(step)}
        self.step = step_class(**parts | {"engine": wrap_engine(step.engine)})
        self.state = self.start()
        shardings = experiment.state_shardings(self.optimizer)
        self.compiled = compile_step(self.step, self.state, self.prompts, shardings)

    def start(self, weights: Any = None) -> State:
        """Resets to the state before the first step and the original pool; starts from these host weights, if given."""
        self.pool.pool, self.pool.items = self.pool.own, []
        model, weights = self.experiment.model, self.weights if weights is None else weights
        weights = jax.tree.map(lambda x, like: x.astype(like.dtype), weights, model.base.shapes)
        weights = self.experiment.place(weights, layout.specs(model.base.axes, layout.TRAINING))
        weights = model.start_adapters(model.freeze_all(weights), self.config.seed)
        self.state = self.experiment.initial_state(self.optimizer, weights)
        return self.state

    def take(self, steps: int = 1) -> list[Record]:
        """Takes steps and returns their records, on the host."""
        records = []
        for _ in range(steps):
            self.state, record = self.compiled(self.state, self.prompts)
            records.append(jax.device_get(record))
        jax.effects_barrier()
        return records

    @property
    def gradient(self) -> Any:
        """The gradient of the last update, on the host."""
        return jax.device_get(self.state.optimizer_state[1])

    def close(self) -> None:
        self.pool.close()


# The names of the metrics that `step_metrics` returns.
STEP_METRICS = {
    *("reward", "rate_histogram", "groups_kept", "groups_trained", "groups_carried_in", "groups_wasted", "rounds"),
    *("updates_taken", "updates_nonfinite", "loss", "gradient_norm", "entropy", "kl", "sampler_gap_mean"),
    *("sampler_gap_max", "ratio_mean", "ratio_max", "ratio_max_by_update", "clamped_value"),
    *("clamped_rate", "clamped_log_ratio"),
    *("answer_length", "answer_length_max", "truncated", "verdicts", "answers", "tokens", "tokens_trained"),
    *("grading_seconds", "verifier_disagreement", "slots_useful"),
}
# Those that it returns besides with `rollout.partial`.
PARTIAL_METRICS = {
    *("answers_in_flight", "answers_older", "answer_age_mean", "answer_age_max", "sampler_drift_mean"),
}
# Those of `optimizer_metrics`.
OPTIMIZER_METRICS = {"updates_clipped", "gradient_over_epsilon"}


def on_host(tree: Any) -> Any:
    """Copies to the host, so that the original may be donated."""
    return jax.tree.map(np.array, jax.device_get(tree))


def assert_same(one: Any, other: Any) -> None:
    """Asserts that two trees are equal bit for bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def moved(before: Any, after: Any) -> bool:
    """Returns whether every tensor changed somewhere and is finite."""
    pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    return all(np.isfinite(new).all() and (old != new).any() for old, new in pairs)


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Yields a list that grows with each program that XLA compiles in the block."""
    seen: list[str] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
