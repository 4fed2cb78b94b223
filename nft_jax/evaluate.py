r"""Answers problems with the weights of a run, or with those it starts from, and says how good the answers are.

python -m nft_jax.evaluate --workdir=runs/tiny [--step=best]
python -m nft_jax.evaluate --workdir=runs/qwen --step=40 --problems=aime24,mine.parquet --config.data.folder=DATA \
    --config.evaluation.answers_per_problem=16 --config.evaluation.temperature=0.6 --config.evaluation.top_p=0.95
python -m nft_jax.evaluate --workdir=runs/nft --against=runs/grpo    # evaluated before: paired differences

In <workdir>/evaluations/step_000040/ there are then, of each file, its scores and settings (.json), and every answer to
every problem (.jsonl). An evaluation that was ended goes on with the first problem that isn't answered.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from nft_jax import cli
from nft_jax.config import Config, resolved
from nft_jax.data.dataset import read_problems, read_splits, unreadable_answers
from nft_jax.data.prompts import PromptTable
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.evaluation import paired
from nft_jax.evaluation.evaluator import Evaluator
from nft_jax.evaluation.scores import Answers, Score, score
from nft_jax.experiment import Experiment
from nft_jax.processes import distributed
from nft_jax.run import remote_workdir
from nft_jax.run.best import chosen_step
from nft_jax.run.checkpoint import Checkpoints, has_weights, load_weights
from nft_jax.run.fingerprint import problems_digest, weights_digest
from nft_jax.run.metrics import format_with_error
from nft_jax.run.workdir import as_json, provenance, read_lines
from nft_jax.verify.callback import NOT_ASKED
from nft_jax.verify.extract import final_answer
from nft_jax.verify.grade import STATUSES
from nft_jax.verify.math.normalize import normalize
from nft_jax.verify.version import version


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
        with Experiment(config, workdir, problems=problems or read_splits(config, ("test",))) as experiment:
            source, weights = _weights(experiment, workdir, checkpoints, step)
            folder = _writable(workdir / "evaluations" / f"step_{step:06d}")
            evaluator, digest = Evaluator(experiment, experiment.dataset.tables, weights), weights_digest(weights)
            print(_description(evaluator, step, source), flush=True)
            scores = {}
            for name in evaluator.tables:
                origin = {"step": step, "weights": source, "weights_digest": digest}
                origin |= {"problems": paths.get(name, "generated arithmetic")}
                scores[name] = _evaluated(evaluator, weights, name, folder, origin)
                remote_workdir.share(workdir)
    print(f"\n{table(scores)}\n\n{_caption(config, digest)}\nanswers and scores: {folder}", flush=True)
    return scores


def table(scores: dict[str, Score]) -> str:
    """A line of text for each file, under a header, and their mean; pass@1 is left out, for it is avg@n."""
    compared = any(found.disagreement is not None for found in scores.values())
    rows = [_columns(name, found, compared) for name, found in scores.items()]
    if len(scores) > 1:
        rows.append(_columns("mean", _mean(list(scores.values())), compared))
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def _columns(name: str, found: Score, compared: bool) -> dict[str, str]:
    columns = {
        "file": name,
        "problems": str(found.problems),
        "greedy": format_with_error(found.greedy, found.greedy_error),
        f"avg@{found.answers}": format_with_error(found.sampled, found.sampled_error),
        **{f"pass@{k}": f"{value:.3f}" for k, value in found.pass_at.items() if k > 1},
        **{f"maj@{k}": f"{value:.3f}" for k, value in found.maj_at.items() if k == max(found.maj_at)},
        "truncated": f"{found.truncated:.3f}",
        "length": f"{found.length:.1f}",
    }
    differ = "–" if found.disagreement is None else f"{found.disagreement:.3f}"
    return columns | ({"graders differ": differ} if compared else {})


def _mean(scores: list[Score]) -> Score:
    """The mean over files, each counting alike, as papers report it; errors of independent files add in squares."""

    def mean(part):
        return float(np.mean([getattr(found, part) for found in scores]))

    def error(part):
        errors = [getattr(found, part) for found in scores]
        return None if None in errors else float(np.sqrt(np.sum(np.square(errors)))) / len(errors)

    def by_k(part):
        return {k: float(np.mean([getattr(found, part)[k] for found in scores])) for k in getattr(scores[0], part)}

    means = {part: mean(part) for part in ("greedy", "sampled", "truncated", "length")}
    errors = {part: error(part) for part in ("greedy_error", "sampled_error")}
    ks = {part: by_k(part) for part in ("pass_at", "maj_at")}
    problems = sum(found.problems for found in scores)
    judged = [found.disagreement for found in scores if found.disagreement is not None]
    disagreement = float(np.mean(judged)) if judged else None
    return scores[0]._replace(**means, **errors, **ks, problems=problems, disagreement=disagreement)


def against(workdir: Path, other: Path, step: int | None = None) -> str:
    """A table of the paired differences between what `evaluate` left in `workdir` (of `step`) and in `other`.

    Of a workdir the newest step that was evaluated is taken; either may be such a folder of evaluations itself.

    Raises:
      FileNotFoundError: when one has no evaluations.
      ValueError: when none is common to both.
    """
    folders = _evaluations(workdir, step), _evaluations(other, None)
    return f"this   {folders[0]}\nother  {folders[1]}\n\n{paired.table(paired.compare(*folders))}"


def _evaluations(folder: Path, step: int | None) -> Path:
    if any(folder.glob("*_n*.jsonl")):
        return folder
    steps = sorted((folder / "evaluations").glob("step_*" if step is None else f"step_{step:06d}"))
    if not steps:
        raise FileNotFoundError(f"{folder}: no evaluations there; run python -m nft_jax.evaluate --workdir={folder}")
    return steps[-1]


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
    own = [folder for folder in (workdir / "warm_start", workdir) if has_weights(folder)]
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
    """Answers one file, going on where an evaluation of the same was ended; then writes its scores."""
    config, prompts = evaluator.experiment.config, evaluator.tables[name]
    sampling = config.evaluation
    stem = f"{name}_n{sampling.answers_per_problem}_t{sampling.temperature:g}_p{sampling.top_p:g}_k{sampling.top_k}"
    scores, responses, began = folder / f"{stem}.json", folder / f"{stem}.jsonl", time.perf_counter()
    result = {
        "settings": settings(config),
        "problems": {
            "evaluated": evaluator.problems[name],
            "fit": len(prompts.answers),
            "dropped": prompts.dropped,
            "digest": problems_digest(prompts),
        },
        "origin": origin,
    }
    done = read_lines(responses)[: evaluator.problems[name]] if _is_of(scores, result) else []
    # Process 0 writes these files anew.
    distributed.barrier("answered before")
    if done:
        print(f"  {name}: {len(done)} of {evaluator.problems[name]} problems are answered already ({responses})")
    result |= {"config": resolved(config), "run": provenance(config, evaluator.experiment.attention.name)}
    writes = jax.process_index() == 0
    if writes:
        _write(scores, result)
    rows = _answered(evaluator, weights, name, done, responses if writes else Path(os.devnull))
    votes = [[voted(text) for text in row["answers"][1:]] for row in rows]
    found = score(read_answers(rows), votes, config.evaluation.ks)
    if writes:
        _write(scores, {"score": as_json(found)} | result | {"seconds": time.perf_counter() - began})
    return found


def _is_of(scores: Path, result: dict) -> bool:
    """Whether an evaluation with the same settings, problems and weights has left its answers beside `scores`."""
    try:
        before = json.loads(scores.read_text())
    except (OSError, ValueError):
        return False
    return all(before.get(part) == json.loads(json.dumps(value)) for part, value in result.items())


def _write(path: Path, result: dict) -> None:
    path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")


def _answered(evaluator: Evaluator, weights: Any, name: str, done: list[dict], path: Path) -> list[dict]:
    """Answers the problems of one file that aren't `done`, batch by batch; writes them to `path`; all rows."""
    rows, began, problems = list(done), time.perf_counter(), evaluator.problems[name]
    with open(path, "w", encoding="utf-8") as out:
        # On the disk before anything is answered: an evaluation that is killed again loses none of them.
        out.writelines(_line(row) for row in done)
        out.flush()
        for answers in evaluator.batches(weights, name, len(done)):
            batch = list(describe_answers(answers, evaluator.tables[name], len(rows), evaluator.experiment.tokenizer))
            out.writelines(_line(row) for row in batch)
            out.flush()
            rows += batch
            seconds = time.perf_counter() - began
            left = seconds / (len(rows) - len(done)) * (problems - len(rows))
            _show(_progress(name, problems, score(read_answers(rows)), seconds, left), last=len(rows) == problems)
    return rows


def read_answers(rows: Sequence[dict]) -> Answers:
    """Answers, without their tokens, from what `described` made of them."""
    length_EK, truncated_EK, logp_EK = (
        np.array([row[part] for row in rows]) for part in ("lengths", "truncated", "logps")
    )
    verdict_EK, second_EK = (
        np.array([[NOT_ASKED if status is None else STATUSES.index(status) for status in row[part]] for row in rows])
        for part in ("verdicts", "second_verdicts")
    )
    correct_EK = (verdict_EK == STATUSES.index("correct")) & ~truncated_EK
    no_tokens = np.zeros((*length_EK.shape, 0), np.int32)
    return Answers(no_tokens, logp_EK, length_EK, truncated_EK, verdict_EK, correct_EK, second_EK)


def voted(response: str) -> str | None:
    """What a response votes for: its final answer, normalised."""
    answer = final_answer(response)
    return None if answer is None else normalize(answer)


def _line(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def settings(config: Config) -> dict:
    """What a score depends on beside weights and problems."""
    sampling = config.evaluation
    return {
        "answers": sampling.answers_per_problem,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_answer_tokens": config.rollout.max_answer_tokens,
        "max_prompt_tokens": config.data.max_prompt_tokens,
        "seed": config.seed,
        "template": config.data.template,
        "grader": version(config.verify.grader),
        "second_grader": config.verify.second_grader and version(config.verify.second_grader),
    }


def describe_answers(answers: Answers, prompts: PromptTable, first: int, tokenizer: Tokenizer) -> Iterator[dict]:
    """Each problem in words, the greedy answer first; the first of them is number `first` of its table."""
    for e, tokens_KT in enumerate(answers.token_EKT):
        length_K = answers.length_EK[e]
        yield {
            "id": prompts.problems[first + e].id,
            "prompt": prompts.prompts[first + e],
            "reference": prompts.answers[first + e],
            "answers": tokenizer.decode_batch([row[:n].tolist() for row, n in zip(tokens_KT, length_K, strict=True)]),
            "verdicts": [STATUSES[code] for code in answers.verdict_EK[e]],
            "second_verdicts": [None if code == NOT_ASKED else STATUSES[code] for code in answers.second_EK[e]],
            "truncated": answers.truncated_EK[e].tolist(),
            "lengths": length_K.tolist(),
            "logps": answers.logp_EK[e].tolist(),
        }


def _description(evaluator: Evaluator, step: int, source: str) -> str:
    """What is going to be done."""
    config, mesh = evaluator.experiment.config, evaluator.experiment.mesh
    found = settings(config)
    lines = [
        f"weights   step {step}, from {source}",
        f"mesh      {dict(mesh.shape)} on {mesh.devices.flat[0].platform}, {evaluator.batch} problems a batch",
        f"answers   1 greedy and {found['answers']} sampled a problem, {_sampling(found)}",
        f"verifier  {evaluator.experiment.verifier}",
    ]
    for name, prompts in evaluator.tables.items():
        there, taken = len(prompts.answers), evaluator.problems[name]
        line = f"problems  {name}: all {there}"
        if taken < there:
            line = f"problems  {name}: the first {taken} of {there} (--config.evaluation.max_problems=0 takes all)"
        if prompts.dropped:
            line += f"; {prompts.dropped} more are left out, with prompts of over {found['max_prompt_tokens']} tokens"
        lines.append(line)
    lines += unreadable_answers(config.verify.grader, evaluator.tables)
    return "\n".join(lines)


def _sampling(found: dict) -> str:
    return (
        f"at temperature {found['temperature']:g}, top_p {found['top_p']:g}, top_k {found['top_k']}, of up to "
        f"{found['max_answer_tokens']} tokens; seed {found['seed']}"
    )


def _caption(config: Config, digest: str) -> str:
    """What the numbers of the table hold for."""
    found = settings(config)
    return f"sampled {_sampling(found)}\nverifier {found['grader']}; weights {digest[:12]}; ± one standard error"


def _progress(name: str, problems: int, found: Score, seconds: float, left: float) -> str:
    width, bar = len(str(problems)), "█" * (20 * found.problems // problems)
    return (
        f"  {name} ▕{bar:<20}▏ {found.problems:>{width}}/{problems}  greedy {found.greedy:.3f}  avg@{found.answers} "
        f"{found.sampled:.3f}  cut {found.truncated:.3f}  {seconds:.0f} s, {left:.0f} s left"
    )


def _show(line: str, last: bool) -> None:
    """A line of progress: a terminal shows it in place of the one before, a file keeps them all."""
    rewrites = sys.stdout.isatty()
    end = "\n" if last or not rewrites else ""
    print(f"\r{line}\x1b[K" if rewrites else line, end=end, flush=True)


def main(config: Config, workdir: Path) -> None:
    """Evaluates what the flags say."""
    step = chosen_step(flags.FLAGS.step, workdir)
    if flags.FLAGS.against:
        print(against(workdir, remote_workdir.opened(flags.FLAGS.against, "--against"), step))
        return
    files = [file for file in (flags.FLAGS.problems or "").split(",") if file]
    evaluate(config, workdir, step, files)


def _define_flags() -> None:
    """Not at import, where flags of the same names of two programs would clash."""
    flags.DEFINE_string(
        "step",
        None,
        "Step whose checkpoint is taken, 0 for the starting weights, or 'best'; by default the newest.",
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
