"""Trains one experiment: the warm start if the config has one, then the steps.

    python -m nft_jax.train --config=tiny --workdir=runs/tiny [--config.loss.name=rft] [--config.section.field=value]

The same --workdir resumes from its newest checkpoint.
"""

import contextlib
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nft_jax import cli
from nft_jax.config import Config
from nft_jax.config.idle import describe_idle
from nft_jax.evaluation.evaluator import Evaluator
from nft_jax.evaluation.scores import Answers
from nft_jax.experiment import Experiment, compile_step, make_evaluator, open_experiment
from nft_jax.models.lora import split_weights
from nft_jax.processes import distributed
from nft_jax.processes.ending import exit_on_process_loss, is_multiprocess
from nft_jax.rehearsal import rehearse
from nft_jax.run.checkpoint import Checkpoints, remove_checkpoints
from nft_jax.run.compilations import Compilations
from nft_jax.run.damage import compile_checks
from nft_jax.run.fingerprint import FINGERPRINT_FILE, check_same, make_fingerprint
from nft_jax.run.inspection import SCORES, Damage, inspect_folder
from nft_jax.run.json_files import find_fault, read_json, set_aside
from nft_jax.run.stopping import StopSignal
from nft_jax.run.trackers import check_installed
from nft_jax.run.workdir import RESULT_FILE, WARM_START_FOLDER, Workdir
from nft_jax.sft import check_warm_start, warm_start
from nft_jax.start_table import describe
from nft_jax.state import State
from nft_jax.step import Step
from nft_jax.trainer import Trainer
from nft_jax.types import Prompts
from nft_jax.update.optimizer import Optimizer
from nft_jax.update.token_scores import compile_scores


def main(config: Config, workdir: Path) -> None:
    """Runs the experiment to its last step, and reports."""
    damage: list[Damage] = []
    distributed.on_process_0(lambda: damage.extend(inspect_folder(workdir, SCORES)), "inspection")
    check_installed(config.record.tracker_names)
    folder = Workdir(workdir)
    with (
        Compilations() as compilations,
        Checkpoints(workdir, config.record.keep_checkpoints) as checkpoints,
        StopSignal(config.record.grace_seconds, checkpoints.describe_resume) as stop_signal,
        exit_on_process_loss(checkpoints.describe_resume) if is_multiprocess() else contextlib.nullcontext(),
        open_experiment(config, workdir) as experiment,
    ):
        start = "\n".join([describe(experiment), *describe_idle(config)])
        print(start, flush=True)
        if experiment.dataset.hygiene is not None:
            print(experiment.dataset.hygiene.table(), flush=True)
        if not distributed.any_process(bool(damage)) and is_finished(experiment, folder, checkpoints):
            return

        def begin():
            for path, fault in damage:
                set_aside(path, fault)
            # A resumed run reads the config as it was given, and resolves it again.
            folder.write_run(config, experiment.model.attention.name, start)

        prepare(experiment, folder, checkpoints, compilations, begin).run(stop_signal)


def is_finished(experiment: Experiment, folder: Workdir, checkpoints: Checkpoints) -> bool:
    """Returns whether the folder holds this run to its last step, with its results; then prints where they are.

    Raises:
      ValueError: When the folder holds another run.
    """
    steps, result = experiment.config.steps, folder.path / RESULT_FILE
    # Only process 0 is sure to see the file that it wrote.
    if checkpoints.latest != steps or not distributed.any_process(_has_results(experiment, folder)):
        return False
    fingerprint = make_fingerprint(experiment.config, experiment.dataset, folder.path)
    check_same(checkpoints.read_run(steps), fingerprint, folder.path)
    print(f"finished: step {steps} of {steps} is saved, and its results are in {result}; nothing to do", flush=True)
    return True


def _has_results(experiment: Experiment, folder: Workdir) -> bool:
    """Returns whether the writer finds the results of all held-out splits, and the model's settings."""
    path, splits = folder.path / RESULT_FILE, experiment.dataset.tables.keys() - {"train"}
    if not folder.is_writer or not path.is_file() or not (folder.path / "model" / "config.json").is_file():
        return False
    if fault := find_fault(read_json(path), dict.fromkeys(sorted(splits), dict)):
        print(f"{path} {fault}: it is made anew", file=sys.stderr, flush=True)
    return not fault


def prepare(
    experiment: Experiment,
    folder: Workdir,
    checkpoints: Checkpoints,
    compilations: Compilations,
    begin: Callable[[], None],
) -> Trainer:
    """Prepares a run: restores or starts, warm start, base answers, compilation.

    Calls `begin`, which writes the config into the folder, once it is known that the folder can hold this run.

    Raises:
      ValueError: Before anything is compiled, when the folder holds another run or has no room for a checkpoint.
    """
    config, tables = experiment.config, experiment.dataset.tables
    # No checkpoint holds frozen weights: a resumed run needs them too.
    start = experiment.starting_weights() if config.lora.rank else None
    frozen = start and split_weights(start)[1]
    fingerprint = make_fingerprint(config, experiment.dataset, folder.path, frozen)
    optimizer = experiment.make_optimizer()
    done, state = restore(experiment, optimizer, folder, checkpoints, fingerprint, frozen)
    begin()
    _write_inputs(experiment, folder, fingerprint, anew=state is None)
    # A pretrained model is scored before its warm start too, so that what follows is not credited with the format.
    is_pretrained, resumes = bool(config.model.path) and experiment.dataset.examples is not None, state is not None
    # A warm start takes over the memory of `start`, which a resumed state needs.
    load_base = functools.partial(load_base_weights, experiment, folder, None if resumes else start)
    # Weights that can't be read are refused before anything is compiled.
    weights = None if resumes else start or experiment.starting_weights() if is_pretrained else load_base()
    evaluator = _compile_evaluator(experiment)
    answer = functools.partial(load_answers, folder, evaluator, done)
    pretrained_answers = {}
    if is_pretrained:
        pretrained_answers = answer("pretrained_answers.npz", weights, experiment.starting_weights)
        weights = None  # the warm start needs the memory
        weights = None if resumes else load_base()
    base_answers = answer("base_answers.npz", weights, load_base)
    state = experiment.initial_state(optimizer, weights) if state is None else state
    compile_checks(state)
    prompts = experiment.prompts(tables["train"])
    step = experiment.step(optimizer)
    program, scorer, seconds = _compile_step(step, state, prompts, experiment.state_shardings(optimizer))
    print(f"step: one program, compiled in {seconds:.0f} s\n{compilations.finish()}", flush=True)
    return Trainer(
        experiment=experiment,
        folder=folder,
        checkpoints=checkpoints,
        compilations=compilations,
        fingerprint=fingerprint,
        program=program,
        compile_seconds=seconds,
        inputs=prompts,
        state=state,
        done=done,
        scorer=scorer,
        grader=step.grader,
        evaluator=evaluator,
        pretrained_answers=pretrained_answers,
        base_answers=base_answers,
    )


def _compile_evaluator(experiment: Experiment) -> Evaluator:
    held_out = {name: table for name, table in experiment.dataset.tables.items() if name != "train"}
    if held_out:
        print("evaluation: one program for all held-out problems is being compiled", flush=True)
    return make_evaluator(experiment, held_out)


def _compile_step(step: Step, state: State, prompts: Prompts, shardings: State) -> tuple[Any, Any, float]:
    """Rehearses a step if it must; returns its program, that of its tokens' scores, and the seconds of both."""
    step.grader.take_findings()  # from here on it keeps them, for the rollouts that are saved
    if step.config.model.bitwise:
        print(rehearse(step, state, prompts), flush=True)
    print("step: one program is being compiled", flush=True)
    began = time.perf_counter()
    program = compile_step(step, state, prompts, shardings)
    scorer = compile_scores(step.updater, program, state, prompts)
    distributed.compile_collectives(program)
    return program, scorer, time.perf_counter() - began


def _write_inputs(experiment: Experiment, folder: Workdir, fingerprint: dict, *, anew: bool) -> None:
    """Writes what the run is made of, beside its config: its fingerprint, its model's settings, what its data lack."""
    folder.write_json(FINGERPRINT_FILE, fingerprint)
    if anew or not (folder.path / "model" / "config.json").is_file():
        experiment.write_model_settings(folder.path / "model")
    if experiment.dataset.hygiene is not None:
        folder.write_json("hygiene.json", experiment.dataset.hygiene.to_json())


def restore(
    experiment: Experiment,
    optimizer: Optimizer,
    folder: Workdir,
    checkpoints: Checkpoints,
    fingerprint: dict,
    frozen: Any,
) -> tuple[int, State | None]:
    """Reads the newest checkpoint of the folder: the number of steps done, and the state; 0 and None without one.

    The state gets the `frozen` weights and the teacher, which no checkpoint holds.

    Raises:
      ValueError: When the folder holds another run, is past the last step, or has no room for a checkpoint.
    """
    abstract, steps = experiment.abstract_state(optimizer), experiment.config.steps
    folder.check_space(abstract.saved_bytes)
    restored = checkpoints.restore(abstract, lambda run: check_same(run, fingerprint, folder.path))
    if restored is None:
        if experiment.dataset.examples is not None:
            check_warm_start(experiment, folder.path / WARM_START_FOLDER, fingerprint["frozen"])
        return 0, None
    if restored[0] > steps:
        raise ValueError(f"config.steps={steps}: {folder.path} is at step {restored[0]} already")
    return restored[0], restored[1]._replace(frozen=frozen, teacher=experiment.load_teacher())


def load_base_weights(experiment: Experiment, folder: Workdir, start: Any = None) -> Any:
    """Returns the weights before the first step, after the warm start if the config has one; trains it if needed.

    `start` are the starting weights, if they are loaded already; a warm start takes over their memory.
    """
    path = folder.path / WARM_START_FOLDER
    if experiment.dataset.examples is None:
        return start or experiment.starting_weights()
    weights = warm_start(experiment, Workdir(path, folder.path), start)
    # They served to resume the warm start.
    remove_checkpoints(path)
    return weights


def load_answers(
    folder: Workdir, evaluator: Evaluator, done: int, file: str, weights: Any, load: Callable[[], Any]
) -> dict[str, Answers]:
    """Returns the answers to the held-out splits by weights of an earlier stage, and keeps them in a file.

    A resumed run, which has no such weights at hand (None), reads the file, and loads them only if it is missing.
    """
    path, splits = folder.path / file, evaluator.tables
    if done and path.exists():
        try:
            return _read_answers(path, evaluator)
        except (KeyError, ValueError) as error:
            if folder.is_writer:
                set_aside(path, f"{path} is not that of this run and version: {error}")
    weights = load() if weights is None else weights
    stage, problems = file.partition("_")[0], sum(evaluator.problems.values())
    if problems:
        total = problems * evaluator.answers
        print(f"{stage}: {problems} held-out problems × {evaluator.answers} answers = {total} answers", flush=True)
    answers = {name: evaluator(weights, name, f"{name}, {stage}") for name in splits}
    arrays = {f"{name}.{field}": x for name, part in answers.items() for field, x in part._asdict().items()}
    folder.write_arrays(path.name, arrays)
    return answers


def _read_answers(path: Path, evaluator: Evaluator) -> dict[str, Answers]:
    """Returns the answers of a file that `load_answers` wrote; raises a KeyError or ValueError for another file."""
    with np.load(path) as kept:
        read = {name: Answers(*(kept[f"{name}.{field}"] for field in Answers._fields)) for name in evaluator.tables}
    for name, answers in read.items():
        there, wanted = {part.shape[:2] for part in answers}, (evaluator.problems[name], evaluator.answers)
        if there != {wanted}:
            raise ValueError(f"{name} has answers of shape {sorted(there)}, and {wanted} is needed")
    return read


if __name__ == "__main__":
    cli.run(main, __doc__, several=True, holds_workdir=True)
