r"""Evaluates the weights of a run, or those it starts from: answers problems, grades the answers, and scores them.

python -m nft_jax.evaluate --workdir=runs/tiny [--step=best]
python -m nft_jax.evaluate --workdir=runs/qwen --step=40 --problems=aime24,mine.parquet --config.data.folder=DATA \
    --config.evaluation.answers_per_problem=16 --config.evaluation.temperature=0.6 --config.evaluation.top_p=0.95
python -m nft_jax.evaluate --workdir=runs/nft --against=runs/grpo    # evaluated before: paired differences

In <workdir>/evaluations/step_000040/ it writes for each problem file the scores and settings (.json), and every answer
to every problem (.jsonl). An evaluation that was interrupted continues with the first unanswered problem.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from nft_jax import cli
from nft_jax.config import Config, replace_value, to_dict
from nft_jax.data.dataset import name_set, read_problems, read_splits, unreadable_answers
from nft_jax.data.prompts import template_notes
from nft_jax.evaluation import paired
from nft_jax.evaluation.answers import (
    make_rows,
    parse_rows,
    read_rows,
    score_rows,
    score_settings,
    write_result,
    write_rows,
)
from nft_jax.evaluation.evaluator import Evaluator
from nft_jax.evaluation.scores import Score, score
from nft_jax.evaluation.tables import format_progress, format_score, tabulate_scores
from nft_jax.experiment import Experiment, make_evaluator, open_experiment
from nft_jax.printing import print_progress
from nft_jax.processes import distributed
from nft_jax.resolve import locate, use_kept_settings
from nft_jax.run import remote_workdir
from nft_jax.run.best import resolve_step
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.fingerprint import check_origin, make_origin, problems_digest, weights_digest
from nft_jax.run.json_files import set_aside
from nft_jax.run.lock import WorkdirLock
from nft_jax.run.weights import has_weights
from nft_jax.run.workdir import WARM_START_FOLDER, as_json, provenance
from nft_jax.sft import load_warm_start


def evaluate(config: Config, workdir: Path, step: int | None = None, files: Sequence[str] = ()) -> dict[str, Score]:
    """Evaluates problem files, prints a table, and writes `<workdir>/evaluations/step_<step>/`.

    Args:
      step: Step whose checkpoint is evaluated; 0: the weights before the first step; None: the newest checkpoint, or
        without one the weights before the first step.
      files: Problem files or names of benchmarks; by default the config's test problems.

    Returns:
      The score of each problem file, by its name.

    Raises:
      FileNotFoundError: When a file or the checkpoint does not exist.
      ValueError: For two files of one name, or data, weights or a folder that cannot be used; as the other, before
        anything is compiled.
    """
    paths = _paths(config, files)
    with Checkpoints(workdir) as checkpoints:
        step = _choose_step(step, checkpoints)
        problems = {name: read_problems(config, path) for name, path in paths.items()}
        problems, kept = problems or read_splits(config, ("test",)), use_kept_settings(config, workdir)
        with open_experiment(kept, workdir, problems=problems) as experiment, contextlib.ExitStack() as stack:
            source, weights = _load_weights(experiment, workdir, checkpoints, step, config)
            folder = stack.enter_context(_held_folder(workdir / "evaluations" / f"step_{step:06d}"))
            evaluator, digest = make_evaluator(experiment, experiment.dataset.tables), weights_digest(weights)
            print(_describe(experiment, evaluator, step, source), flush=True)
            scores = {}
            for name in evaluator.tables:
                origin = {"step": step, "weights": source, "weights_digest": digest}
                origin |= {"problems": paths.get(name) or f"generated {name_set(config, 'test')}"}
                scores[name] = _evaluate_file(experiment, evaluator, weights, name, folder, origin)
                remote_workdir.push(workdir)
    caption = _caption(experiment.config, digest)
    print(f"\n{tabulate_scores(scores)}\n\n{caption}\nanswers and scores: {folder}", flush=True)
    return scores


def compare(workdir: Path, other: Path, step: int | None = None) -> str:
    """Returns a table of the paired differences between the evaluations of two workdirs, and other settings of theirs.

    Args:
      workdir: A workdir, or one of its folders of evaluations.
      step: The step of `workdir` that is compared; of `other`, and by default, the newest that was evaluated.

    Raises:
      FileNotFoundError: When one has no evaluations.
      ValueError: When they have none in common.
    """
    folders = paired.find_evaluations(workdir, step), paired.find_evaluations(other, None)
    table, notes = paired.tabulate_pairs(paired.compare(*folders)), paired.find_other_settings(*folders)
    return "\n".join([f"this   {folders[0]}", f"other  {folders[1]}", *notes, "", table])


def _paths(config: Config, files: Sequence[str]) -> dict[str, str]:
    """Returns the problem files by the name of their results; none for the generated problems of the config."""
    if not files and config.data.test:
        files = [config.data.test]
    if not files and not name_set(config, "test"):
        raise ValueError("config.data.test names no problems; name some by --problems=FILE.jsonl")
    paths = {Path(file).stem: file for file in files}
    for file in files:
        if paths[Path(file).stem] != file:
            raise ValueError(
                f"--problems: the results of {file} and {paths[Path(file).stem]} would both be called "
                f"{Path(file).stem!r}; rename one"
            )
    return paths


def _choose_step(step: int | None, checkpoints: Checkpoints) -> int:
    if step is None:
        return checkpoints.latest or 0
    if step and step not in checkpoints.steps:
        there = ", ".join(map(str, checkpoints.steps)) or "none"
        raise FileNotFoundError(
            f"--step={step}: no such checkpoint in {checkpoints.folder}; there are: {there} (0: the starting weights)"
        )
    return step


def _load_weights(
    experiment: Experiment, workdir: Path, saved: Checkpoints, step: int, config: Config
) -> tuple[str, Any]:
    """Returns the place of the weights after `step`, and the weights; the config, as given, names those of step 0."""
    given = replace_value(experiment.config, "model.path", locate(config, workdir).model.path)
    origin, experiment = make_origin(given, experiment.tokenizer), dataclasses.replace(experiment, config=given)
    check_origin(workdir, origin | {"weights": None})
    if step:
        trained = saved.restore_weights(step, experiment.model.abstract_trained())
        return str(saved.folder / str(step)), experiment.add_frozen(trained, saved.read_run(step), workdir)
    own = [folder for folder in (workdir / WARM_START_FOLDER, workdir) if has_weights(folder)]
    if own and not config.base:
        return str(own[0] / "weights"), load_warm_start(experiment, own[0])
    if config.base or config.model.path:
        check_origin(workdir, origin)
        return config.base or config.model.path, experiment.starting_weights()
    raise ValueError(
        f"--workdir={workdir} holds no weights, and the config names none to start from; give the --workdir of a run, "
        f"--config.model.path=FOLDER of a Hugging Face model, or --config.base=WORKDIR of another run"
    )


@contextlib.contextmanager
def _held_folder(folder: Path) -> Iterator[Path]:
    """Makes the folder, and locks it while the block runs: another evaluation would write the same files."""
    lock = WorkdirLock(folder, str(folder))
    distributed.on_process_0(lock.acquire, "lock")
    try:
        yield folder
    finally:
        lock.release()


def _evaluate_file(
    experiment: Experiment, evaluator: Evaluator, weights: Any, name: str, folder: Path, origin: dict
) -> Score:
    """Answers one file, starting where an interrupted evaluation of the same stopped; then writes its scores."""
    config, prompts, problems = experiment.config, evaluator.tables[name], evaluator.problems[name]
    sampling = config.evaluation
    stem = f"{name}_n{sampling.answers_per_problem}_t{sampling.temperature:g}_p{sampling.top_p:g}_k{sampling.top_k}"
    scores, responses, began = folder / f"{stem}.json", folder / f"{stem}.jsonl", time.perf_counter()
    result = {
        "settings": score_settings(config),
        "problems": {
            "evaluated": problems,
            "fit": len(prompts.answers),
            "dropped": prompts.dropped,
            "digest": problems_digest(prompts),
        },
        "origin": origin,
    }
    done, fault = read_rows(responses, scores, result, prompts)
    done = done[:problems]
    # Process 0 writes these files anew.
    distributed.barrier("answered before")
    if fault and jax.process_index() == 0:
        set_aside(responses, fault)
    if done:
        print(f"  {name}: {len(done)} of {problems} problems are answered already ({responses})")
    result |= {"config": to_dict(config), "run": provenance(config, experiment.model.attention.name)}
    writes = jax.process_index() == 0
    if writes:
        write_result(scores, result)
    rows = _answer(experiment, evaluator, weights, name, done, responses if writes else Path(os.devnull))
    totals = score_rows(rows, config.evaluation.ks, config.verify.second_grader)
    if "second_score" in totals:
        print("  " + format_score(f"{name} by {config.verify.second_grader}", totals["second_score"]), flush=True)
    if writes:
        totals_json = {part: as_json(total) for part, total in totals.items()}
        write_result(scores, totals_json | result | {"seconds": time.perf_counter() - began})
    return totals["score"]


def _answer(
    experiment: Experiment, evaluator: Evaluator, weights: Any, name: str, done: list[dict], path: Path
) -> list[dict]:
    """Answers the problems of one file that have no row in `done`, writes all rows to `path`, and returns them."""
    rows, began, problems = list(done), time.perf_counter(), evaluator.problems[name]
    with open(path, "w", encoding="utf-8") as out:
        write_rows(out, done)
        for answers in evaluator.batches(weights, name, len(done)):
            batch = list(make_rows(answers, evaluator.tables[name], len(rows), experiment.tokenizer))
            write_rows(out, batch)
            rows += batch
            seconds = time.perf_counter() - began
            left = seconds / (len(rows) - len(done)) * (problems - len(rows))
            line = format_progress(name, problems, score(parse_rows(rows)), seconds, left)
            print_progress(line, last=len(rows) == problems)
    return rows


def _describe(experiment: Experiment, evaluator: Evaluator, step: int, source: str) -> str:
    """Returns what is going to be evaluated, and how."""
    config, mesh = experiment.config, experiment.model.mesh
    settings = score_settings(config)
    lines = [
        f"weights   step {step}, from {source}",
        f"mesh      {dict(mesh.shape)} on {mesh.devices.flat[0].platform}, {evaluator.batch} problems a batch",
        f"answers   1 greedy and {settings['answers']} sampled a problem, {_format_sampling(settings)}",
        f"verifier  {experiment.verifier.description}",
    ]
    for name, prompts in evaluator.tables.items():
        count, evaluated = len(prompts.answers), evaluator.problems[name]
        line = f"problems  {name}: all {count}"
        if evaluated < count:
            line = f"problems  {name}: the first {evaluated} of {count} (--config.evaluation.max_problems=0 takes all)"
        if prompts.dropped:
            line += f"; {prompts.dropped} more are left out: prompts of over {settings['max_prompt_tokens']} tokens"
        lines.append(line)
    lines += template_notes(config.data.template, experiment.tokenizer)
    lines += [*unreadable_answers(config.verify.grader, evaluator.tables), *experiment.dataset.notes]
    return "\n".join(lines)


def _format_sampling(settings: dict) -> str:
    return (
        f"at temperature {settings['temperature']:g}, top_p {settings['top_p']:g}, top_k {settings['top_k']}, of up to "
        f"{settings['max_answer_tokens']} tokens; seed {settings['seed']}"
    )


def _caption(config: Config, digest: str) -> str:
    """Returns the settings that the numbers of the table depend on."""
    settings = score_settings(config)
    return (
        f"sampled {_format_sampling(settings)}\nverifier {settings['grader']}; weights {digest[:12]}; "
        f"± one standard error"
    )


def main(config: Config, workdir: Path) -> None:
    """Evaluates, or compares evaluations, with the arguments given as flags."""
    step = resolve_step(flags.FLAGS.step, workdir)
    if flags.FLAGS.against:
        print(compare(workdir, remote_workdir.open_workdir(flags.FLAGS.against, "--against"), step))
        return
    files = [file for file in (flags.FLAGS.problems or "").split(",") if file]
    evaluate(config, workdir, step, files)


def _define_flags() -> None:
    """Defines the flags; not at import, because flags of the same name of two programs would clash."""
    flags.DEFINE_string(
        "step",
        None,
        "Step whose checkpoint is evaluated, 0 for the starting weights, or 'best'; by default the newest.",
    )
    flags.DEFINE_string("against", None, "Another workdir: compare what was evaluated there and here; answers nothing.")
    flags.DEFINE_string(
        "problems",
        None,
        "Problem files, or names of benchmarks, comma between them; by default the config's test problems.",
    )


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__, several=True)
