r"""Answers problems with the weights of a run, or with those it starts from, and says how good the answers are.

python -m nft_jax.evaluate --workdir=runs/tiny
python -m nft_jax.evaluate --workdir=runs/qwen --step=40 --problems=math500.jsonl,aime24.parquet \
    --config.evaluation.answers=16 --config.evaluation.temperature=0.6 --config.evaluation.top_p=0.95

In <workdir>/evaluations/step_000040/ there are then, of each file, its scores and settings (.json), and every answer to
every problem (.jsonl).
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from nft_jax import cli
from nft_jax.config import Config, resolved
from nft_jax.data.dataset import own_problems, read_problems
from nft_jax.data.prompts import PromptTable
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.experiment import Experiment
from nft_jax.training.checkpoint import Checkpoints, load_weights
from nft_jax.training.evaluation import Answers, Evaluator, Score, score
from nft_jax.training.metrics import with_error
from nft_jax.training.record import as_json, provenance
from nft_jax.verify.grade import STATUSES


def evaluate(config: Config, workdir: Path, step: int | None = None, files: Sequence[str] = ()) -> dict[str, Score]:
    """Scores by name of the problem file, with the weights after `step` (0: those before the first step).

    Without `step`, the newest checkpoint is taken, or where there is none the weights to start from; without `files`,
    the config's test problems. Writes `<workdir>/evaluations/step_<step>/`, and prints what it does.

    Raises:
      FileNotFoundError: when there is no such file or checkpoint.
      ValueError: for two files of one name, or anything wrong with the data, the weights or the folder.
      All before anything is compiled.
    """
    paths = _paths(config, files)
    with Checkpoints(workdir) as checkpoints:
        step = _checked(step, checkpoints)
        problems = {name: read_problems(config, path) for name, path in paths.items()}
        with Experiment(config, workdir, problems=problems or own_problems(config, ("test",))) as experiment:
            source, weights = _weights(experiment, workdir, checkpoints, step)
            folder = _writable(workdir / "evaluations" / f"step_{step:06d}")
            evaluator = Evaluator(experiment, experiment.dataset.tables, weights)
            print(_description(evaluator, step, source), flush=True)
            scores = {}
            for name in evaluator.tables:
                origin = {"step": step, "weights": source, "problems": paths.get(name, "generated arithmetic")}
                scores[name] = _evaluated(evaluator, weights, name, folder, origin)
    print(f"\n{table(scores)}\n\nanswers and scores: {folder}", flush=True)
    return scores


def table(scores: dict[str, Score]) -> str:
    """A line of text for each file, under a header; pass@1 is left out, for it is avg@n."""
    rows = []
    for name, found in scores.items():
        n = max(found.pass_at)
        columns = {
            "file": name,
            "problems": str(found.problems),
            "greedy": with_error(found.greedy, found.greedy_error),
            f"avg@{n}": with_error(found.sampled, found.sampled_error),
            **{f"pass@{k}": f"{value:.3f}" for k, value in found.pass_at.items() if k > 1},
            "truncated": f"{found.truncated:.3f}",
            "length": f"{found.length:.1f}",
        }
        rows += [list(columns.values())] if rows else [list(columns), list(columns.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _paths(config: Config, files: Sequence[str]) -> dict[str, str]:
    """The problem files by the name of their results; none for the generated problems."""
    if not files and config.data.test:
        files = [config.data.test]
    if not files and config.data.train:
        raise ValueError("config.data.test names no problems; name some by --problems=FILE.jsonl")
    paths = {Path(file).stem: file for file in files}
    for file in files:
        if paths[Path(file).stem] != file:
            raise ValueError(
                f"--problems: the results of {file} and {paths[Path(file).stem]} would both be called "
                f"{Path(file).stem!r}; rename one"
            )
    return paths


def _checked(step: int | None, checkpoints: Checkpoints) -> int:
    if step is None:
        return checkpoints.latest or 0
    if step and step not in checkpoints.steps:
        there = ", ".join(map(str, checkpoints.steps)) or "none"
        raise FileNotFoundError(
            f"--step={step}: no such checkpoint in {checkpoints.folder}; there are: {there} (0: the starting weights)"
        )
    return step


def _weights(experiment: Experiment, workdir: Path, checkpoints: Checkpoints, step: int) -> tuple[str, Any]:
    """Where the weights after `step` are from, and they themselves."""
    config, abstract = experiment.config, experiment.abstract_weights()
    if step:
        return str(checkpoints.folder / str(step)), checkpoints.restore_weights(step, abstract)
    own = [folder for folder in (workdir / "warm_start", workdir) if (folder / "weights").exists()]
    if own and not config.base:
        return str(own[0] / "weights"), load_weights(own[0], abstract)
    if config.base or config.model.path:
        return config.base or config.model.path, experiment.starting_weights()
    raise ValueError(
        f"--workdir={workdir} holds no weights, and the config names none to start from; give the --workdir of a run, "
        f"--config.model.path=FOLDER of a Hugging Face model, or --config.base=WORKDIR of another run"
    )


def _writable(folder: Path) -> Path:
    if jax.process_index() == 0:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"{folder} can't be written: {error}") from error
    return folder


def _evaluated(evaluator: Evaluator, weights: Any, name: str, folder: Path, origin: dict) -> Score:
    """Answers one file and writes its answers; then its scores, so that where they are, the answers are all there."""
    config, prompts = evaluator.experiment.config, evaluator.tables[name]
    sampling = config.evaluation
    stem = f"{name}_n{sampling.answers}_t{sampling.temperature:g}_p{sampling.top_p:g}_k{sampling.top_k}"
    path, writes, began = folder / f"{stem}.json", jax.process_index() == 0, time.perf_counter()
    if writes:
        path.unlink(missing_ok=True)
    found = _answered(evaluator, weights, name, folder / f"{stem}.jsonl" if writes else Path(os.devnull))
    result = {
        "score": as_json(found),
        "settings": settings(config),
        "problems": {"evaluated": found.problems, "fit": len(prompts.answers), "dropped": prompts.dropped},
        "origin": origin,
        "seconds": time.perf_counter() - began,
        "config": resolved(config),
        "run": provenance(config),
    }
    if writes:
        path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
    return found


def _answered(evaluator: Evaluator, weights: Any, name: str, path: Path) -> Score:
    """Answers the problems of one file batch by batch; writes each batch to `path`, and prints how it goes."""
    parts, began, first = [], time.perf_counter(), 0
    with open(path, "w", encoding="utf-8") as out:
        for answers in evaluator.batches(weights, name):
            for row in described(answers, evaluator.tables[name], first, evaluator.experiment.tokenizer):
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
            first += len(answers.length_EK)
            # Tokens are what is large of the answers: they are written, and no score needs them.
            parts.append(answers._replace(token_EKT=answers.token_EKT[..., :0]))
            found = score(Answers(*(np.concatenate(part) for part in zip(*parts, strict=True))))
            print(_progress(name, evaluator.problems[name], found, time.perf_counter() - began), flush=True)
    return found


def settings(config: Config) -> dict:
    """What a score depends on beside weights and problems."""
    sampling = config.evaluation
    return {
        "answers": sampling.answers,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "answer_limit": config.rollout.answer_limit,
        "prompt_limit": config.data.prompt_limit,
        "seed": config.seed,
        "template": config.data.template,
        "grader": config.verify.grader,
    }


def described(answers: Answers, prompts: PromptTable, first: int, tokenizer: Tokenizer) -> Iterator[dict]:
    """Each problem in words, the greedy answer first; the first of them is number `first` of its table."""
    for e, tokens_KT in enumerate(answers.token_EKT):
        length_K = answers.length_EK[e]
        yield {
            "id": prompts.problems[first + e].id,
            "prompt": prompts.prompts[first + e],
            "reference": prompts.answers[first + e],
            "answers": tokenizer.decode_batch([row[:n].tolist() for row, n in zip(tokens_KT, length_K, strict=True)]),
            "verdicts": [STATUSES[code] for code in answers.verdict_EK[e]],
            "truncated": answers.truncated_EK[e].tolist(),
            "lengths": length_K.tolist(),
        }


def _description(evaluator: Evaluator, step: int, source: str) -> str:
    """What is going to be done."""
    config, mesh = evaluator.experiment.config, evaluator.experiment.mesh
    found = settings(config)
    lines = [
        f"weights   step {step}, from {source}",
        f"mesh      {dict(mesh.shape)} on {mesh.devices.flat[0].platform}, {evaluator.batch} problems a batch",
        f"answers   1 greedy and {found['answers']} sampled a problem, at temperature {found['temperature']:g}, top_p "
        f"{found['top_p']:g}, top_k {found['top_k']}, of up to {found['answer_limit']} tokens; seed {found['seed']}",
    ]
    for name, prompts in evaluator.tables.items():
        there, taken = len(prompts.answers), evaluator.problems[name]
        line = f"problems  {name}: all {there}"
        if taken < there:
            line = f"problems  {name}: the first {taken} of {there} (--config.evaluation.problems=0 takes all)"
        if prompts.dropped:
            line += f"; {prompts.dropped} more are left out, with prompts of over {found['prompt_limit']} tokens"
        lines.append(line)
    return "\n".join(lines)


def _progress(name: str, problems: int, found: Score, seconds: float) -> str:
    width = len(str(problems))
    return (
        f"  {name} {found.problems:>{width}}/{problems}  greedy {found.greedy:.3f}  avg@{max(found.pass_at)} "
        f"{found.sampled:.3f}  cut {found.truncated:.3f}  {seconds:.1f} s"
    )


def main(config: Config, workdir: Path) -> None:
    """Evaluates what the flags say."""
    files = [file for file in (flags.FLAGS.problems or "").split(",") if file]
    evaluate(config, workdir, flags.FLAGS.step, files)


def _define_flags() -> None:
    """Not at import, where flags of the same names of two programs would clash."""
    flags.DEFINE_integer(
        "step",
        None,
        "Step whose checkpoint is taken, 0 for the starting weights; by default the newest.",
        lower_bound=0,
    )
    flags.DEFINE_string("problems", None, "Problem files, comma between them; by default the config's test problems.")


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
