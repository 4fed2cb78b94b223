"""Supervised training on worked solutions: the same model, mesh, packing, optimizer and files as in training.

    python -m nft_jax.sft --config=tiny --workdir=runs/base
    python -m nft_jax.sft --config=tiny --workdir=runs/sft --config.data.train=TRAIN.jsonl \
        --config.data.validation=HELD_OUT.jsonl --config.data.tokenizer=FOLDER --config.warm_start.steps=500

The loss is that of the responses' tokens; prompts are masked. The same --workdir resumes from its newest checkpoint.
`python -m nft_jax.train --config.base=runs/base` starts from the last weights, `python -m nft_jax.export
--workdir=runs/base` writes them as a model folder. `train` runs the same phase first if config.warm_start.steps is set.
"""

import contextlib
import dataclasses
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nft_jax import cli
from nft_jax.base import read_fingerprint
from nft_jax.config import Config, Phase
from nft_jax.evaluation.tables import format_with_error
from nft_jax.experiment import Experiment, build_experiment
from nft_jax.loop import VALIDATION, Loop, is_due
from nft_jax.models.lora import join_weights, split_weights
from nft_jax.printing import terminal_width
from nft_jax.processes import distributed
from nft_jax.processes.ending import RUN_AGAIN, exit_on_process_loss, is_multiprocess
from nft_jax.report import curves
from nft_jax.run import best
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.compilations import Compilations
from nft_jax.run.damage import compile_checks
from nft_jax.run.fingerprint import (
    FINGERPRINT_FILE,
    check_same,
    examples_digest,
    make_fingerprint,
    read_fingerprint_file,
    weights_digest,
)
from nft_jax.run.inspection import LOSS_SCORES, Damage, inspect_folder
from nft_jax.run.json_files import set_aside
from nft_jax.run.metrics import format_progress, share
from nft_jax.run.stopping import StopSignal
from nft_jax.run.trackers import check_installed
from nft_jax.run.weights import has_weights, load_weights, save_weights
from nft_jax.run.workdir import Workdir, as_json
from nft_jax.start_table import describe_warm_start
from nft_jax.supervised import ExampleLosses, SupervisedRecord, SupervisedStep, held_out_loss, make_sequences
from nft_jax.update.optimizer import make_optimizer

LINES = 20  # that a phase prints


@dataclass(kw_only=True)
class SupervisedLoop(Loop):
    """The loop over the updates of one supervised phase.

    Attributes:
      measure: Takes all weights and the number of the first example; returns the losses of a held-out batch.
      held_out: Number of held-out examples; 0: none are measured.
    """

    measure: Callable[[Any, np.int32], ExampleLosses]
    held_out: int

    @property
    def steps(self) -> int:
        return self.config.warm_start.steps

    @property
    def checkpoint_every(self) -> int:
        return self.config.warm_start.checkpoint_every_steps

    @property
    def optimizer_setting(self) -> str:
        return "warm_start.optimizer"

    @property
    def best_by(self) -> str:
        return best.LOSS if self.held_out and self.config.record.best_by != best.NONE else best.NONE

    def is_evaluated(self, step: int) -> bool:
        """Returns whether the held-out loss is measured after this update."""
        every = self.config.warm_start.validate_every_steps
        return bool(self.held_out) and (step == self.steps or is_due(step, every))

    def report_step(self, step: int, record: SupervisedRecord, seconds: float) -> None:
        """Writes the metrics of an update; prints every twentieth part of the phase, and what is not finite."""
        applied, tokens = jax.device_get(record)
        metrics = {
            "step": step,
            "epoch": step * self.config.warm_start.examples_per_update / self.inputs.present_I.shape[0],
            "loss": share(applied.statistics.objective, 1.0),
            "entropy": share(applied.statistics.entropy, tokens),
            "gradient_norm": share(applied.gradient_norm, 1.0),
            "updates_taken": int(applied.taken),
            "updates_nonfinite": int(applied.nonfinite),
            "tokens": int(tokens),
            **self.cost(int(tokens), seconds),
        }
        self.folder.append(metrics)
        self.trackers.add(step, metrics)
        self.nonfinite.add(metrics)
        left = self.time_left(step, seconds)
        if step == self.steps or is_due(step, max(self.steps // LINES, 1)) or applied.nonfinite:
            print("  " + format_progress(step, self.steps, metrics, SHOWN, left, terminal_width()), flush=True)

    def evaluate(self, step: int) -> None:
        """Measures the held-out loss, reports it, and saves the best step."""
        if not self.held_out:
            return
        starts = range(0, self.held_out, self.config.warm_start.examples_per_update)
        result = held_out_loss(self.measure(self.state.model_weights, np.int32(start)) for start in starts)
        row = {"step": step} | as_json(result)
        self.folder.append(row, file="evaluation.jsonl")
        self.trackers.add(step, row, prefix=VALIDATION)
        loss = "–" if result.loss is None else format_with_error(result.loss, result.loss_error)
        print(f"  validation: loss {loss} a token ({result.examples} examples, {result.tokens} tokens)", flush=True)
        self.best.consider(row, lambda: self.save(step))
        self.folder.push()

    def finish(self) -> None:
        """Saves the weights alone, and draws the curves."""
        save_weights(self.folder.path, self.state.weights)
        if self.folder.is_writer:
            curves.draw(self.folder.path, f"supervised, seed {self.config.seed}")
        self.folder.push()


SHOWN = {"loss": "loss {:.4f}", "gradient_norm": "grad {:.2f}", "epoch": "epoch {:.2f}"}


def warm_start(experiment: Experiment, folder: Workdir, start: Any = None) -> Any:
    """Trains the starting weights for `warm_start.steps` updates, saves them in `folder/weights`, and returns them.

    Goes on from the newest checkpoint in the folder; where the weights are complete, they are loaded. `start` are the
    starting weights, if they are loaded already; this takes over their memory.

    Raises:
      SystemExit: With code 75, when it was asked to stop; the state is saved.
      ValueError: Before anything is compiled, when the folder holds another run or has no room for a checkpoint.
    """
    config, frozen = experiment.config, None
    experiment = dataclasses.replace(experiment, teacher=None)  # it belongs to the steps after this phase
    if config.lora.rank:
        start = start or experiment.starting_weights()
        frozen = split_weights(start)[1]
    fingerprint = check_warm_start(experiment, folder.path, frozen and weights_digest(frozen))
    if has_weights(folder.path):
        return join_weights(load_weights(folder.path, experiment.model.abstract_trained()), frozen)
    with (
        Compilations() as compilations,
        Checkpoints(folder.path, config.record.keep_checkpoints) as checkpoints,
        StopSignal(config.record.grace_seconds, checkpoints.describe_resume) as stop_signal,
        exit_on_process_loss(checkpoints.describe_resume) if is_multiprocess() else contextlib.nullcontext(),
    ):
        loop = _prepare(experiment, folder, checkpoints, compilations, fingerprint, start)
        loop.run(stop_signal)
        if stop_signal.is_requested_anywhere():
            raise SystemExit(RUN_AGAIN)
    return loop.state.model_weights


def load_warm_start(experiment: Experiment, folder: Path) -> Any:
    """Returns the weights after the warm start that a run of this experiment saved in a folder."""
    trained = load_weights(folder, experiment.model.abstract_trained())
    return experiment.add_frozen(trained, read_fingerprint(folder), folder)


def check_warm_start(experiment: Experiment, folder: Path, frozen: str | None = None) -> dict:
    """Returns the fingerprint of the experiment's warm start, after a check that the folder holds no other.

    Args:
      frozen: Digest of the frozen weights beside adapters; None: without adapters, or not known yet.

    Raises:
      ValueError: With both values of everything that differs.
    """
    dataset = experiment.dataset
    trained = dataset._replace(tables={"train": dataset.tables["train"]})
    given = make_fingerprint(experiment.config, trained, folder) | {"phase": "supervised", "frozen": frozen}
    given["problems"]["worked training"] = examples_digest(dataset.examples)
    saved = folder / FINGERPRINT_FILE
    with Checkpoints(folder) as checkpoints:
        begun = has_weights(folder) or checkpoints.latest is not None
    if begun and saved.exists():
        check_same(read_fingerprint_file(saved), given, folder, Phase.WARM_START)
    return given


def _prepare(
    experiment: Experiment,
    folder: Workdir,
    checkpoints: Checkpoints,
    compilations: Compilations,
    fingerprint: dict,
    start: Any,
) -> SupervisedLoop:
    """Restores or starts the state, and compiles the update and the held-out loss."""
    config, warm = experiment.config, experiment.config.warm_start
    optimizer = make_optimizer(warm.optimizer, warm.steps, experiment.model.trained_axes)
    # The KL term's reference and what a step leaves to the next belong to the steps after this phase.
    unused = {"carried": None, "reference": None, "in_flight": None}
    abstract = experiment.abstract_state(optimizer)._replace(**unused)
    folder.check_space(abstract.saved_bytes)
    restored = checkpoints.restore(abstract, lambda run: check_same(run, fingerprint, folder.path, Phase.WARM_START))
    folder.write_run(config, experiment.model.attention.name)
    folder.write_json(FINGERPRINT_FILE, fingerprint)
    folder.push()
    if restored is None:
        restored = 0, experiment.initial_state(optimizer, start or experiment.starting_weights())._replace(**unused)
    elif config.lora.rank:
        restored = restored[0], restored[1]._replace(frozen=split_weights(start)[1])
    (done, state), examples = restored, experiment.place(make_sequences(experiment.dataset.examples))
    step, began = SupervisedStep(experiment, optimizer), time.perf_counter()
    shardings, whole = jax.tree.map(lambda x: x.sharding, abstract), experiment.model.whole
    program = _compile_update(step, state, examples, shardings, whole)
    measure, held_out = _compile_measure(experiment, step, state, shardings), 0
    if experiment.dataset.held_out_examples is not None:
        held_out = len(experiment.dataset.held_out_examples.prompt_length_Q)
    distributed.compile_collectives()
    compile_checks(state)
    compilations.finish()
    seconds = time.perf_counter() - began
    print(f"{describe_warm_start(experiment)} (compiled in {seconds:.0f} s)", flush=True)
    return SupervisedLoop(
        experiment=experiment,
        folder=folder,
        checkpoints=checkpoints,
        compilations=compilations,
        fingerprint=fingerprint,
        program=program,
        compile_seconds=seconds,
        inputs=examples,
        state=state,
        done=done,
        measure=measure,
        held_out=held_out,
    )


def _compile_update(step, state, examples, shardings, whole) -> jax.stages.Compiled:
    def sft_step(state, examples):
        return step(state, examples)

    jitted = jax.jit(sft_step, in_shardings=(shardings, whole), out_shardings=(shardings, whole), donate_argnums=0)
    return jitted.lower(state, examples).compile()


def _compile_measure(experiment, step, state, shardings) -> Callable[[Any, np.int32], ExampleLosses] | None:
    if experiment.dataset.held_out_examples is None:
        return None
    examples, whole = experiment.place(make_sequences(experiment.dataset.held_out_examples)), experiment.model.whole

    def sft_held_out(weights, examples, start):
        return step.measure(weights, examples, start)

    jitted = jax.jit(sft_held_out, in_shardings=(shardings.model_weights, whole, whole), out_shardings=whole)
    compiled = jitted.lower(state.model_weights, examples, np.int32(0)).compile()
    return lambda weights, start: compiled(weights, examples, start)


def main(config: Config, workdir: Path) -> None:
    """Runs the warm start alone."""
    if not config.warm_start.steps:
        raise ValueError("config.warm_start.steps=0: nothing to do; set it to the number of updates")
    if config.base:
        raise ValueError(
            f"config.base={config.base}: the warm start begins with the weights of config.model.path, or random ones; "
            f'use config.base=""'
        )
    damage: list[Damage] = []
    distributed.on_process_0(lambda: damage.extend(inspect_folder(workdir, LOSS_SCORES)), "inspection")
    check_installed(config.record.tracker_names)
    folder = Workdir(workdir)
    with Checkpoints(workdir) as checkpoints, StopSignal(config.record.grace_seconds, checkpoints.describe_resume):
        experiment = build_experiment(config, workdir)
        check_warm_start(experiment, workdir)
        finished = has_weights(workdir)
        for path, fault in damage:
            print(f"{fault}; nothing reads it any more", file=sys.stderr) if finished else set_aside(path, fault)
        if not (workdir / "model").is_dir():
            experiment.write_model_settings(workdir / "model")
        if not finished:
            warm_start(experiment, folder)
    command = f"python -m nft_jax.train --config=… --config.base={shlex.quote(str(workdir))}"
    before = "finished before, nothing to do; " if finished else ""
    print(f"{before}weights: {workdir / 'weights'}; go on with: {command}")


if __name__ == "__main__":
    cli.run(main, __doc__, several=True, holds_workdir=True)
