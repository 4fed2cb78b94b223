"""Trains one experiment: warm start if the config has one, then the one program, step after step.

    python -m nft_jax.train --config=tiny --workdir=runs/tiny [--config.loss.name=rft] [--config.section.field=value]

The same --workdir resumes from its newest checkpoint.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from nft_jax import cli, report
from nft_jax.config import Config
from nft_jax.data.prompts import PromptTable
from nft_jax.experiment import Experiment
from nft_jax.sft import warm_start
from nft_jax.step import Record, compile_step
from nft_jax.training.checkpoint import Checkpoints, load_weights
from nft_jax.training.evaluation import Answers, Evaluator, score
from nft_jax.training.metrics import line, score_line, step_metrics
from nft_jax.training.optimizer import make_optimizer
from nft_jax.training.record import RunFolder, as_json, host_rss_mib


def main(config: Config, workdir: Path) -> None:
    """Runs the experiment to its last step, and reports."""
    folder = RunFolder(workdir, config)
    with Experiment(config, workdir) as experiment, Checkpoints(workdir) as checkpoints:
        print(describe(experiment), flush=True)
        Trainer(experiment, folder, checkpoints).run()


class Trainer:
    """The host's side of a run: dispatches steps, reads the step before, evaluates, saves."""

    def __init__(self, experiment: Experiment, folder: RunFolder, checkpoints: Checkpoints):
        self.experiment, self.folder, self.checkpoints = experiment, folder, checkpoints
        self.config = config = experiment.config
        self.table = experiment.dataset.tables["train"]
        self.optimizer = make_optimizer(config.optimizer, config.steps * config.updates_per_step, experiment.axes)
        weights = self._base_weights()
        self.evaluators = {
            name: Evaluator(experiment, table, weights)
            for name, table in experiment.dataset.tables.items()
            if name != "train"
        }
        # Answers of the base to the test split, for the comparison at the end.
        self.base_answers = self._answers(weights, ("validation", "test"))
        self.state = experiment.initial_state(self.optimizer, weights)
        self.prompts = experiment.prompts(self.table)
        self.reader = ThreadPoolExecutor(1)
        began = time.perf_counter()
        shardings = experiment.state_shardings(self.optimizer)
        self.program = compile_step(experiment.step(self.optimizer), self.state, self.prompts, shardings)
        self.finished = time.perf_counter()
        self.compile_seconds = self.finished - began
        print(f"step: one program, compiled in {self.compile_seconds:.0f} s", flush=True)

    def run(self) -> None:
        """All steps that are left; the host reads step n − 1 while the device runs step n."""
        config = self.config
        done = self._resume()
        if done == 0:
            self._evaluated(0, self.base_answers)
        waiting = None
        for step in range(done + 1, config.steps + 1):
            began = time.perf_counter()
            self.state, record = self.program(self.state, self.prompts)
            if waiting is not None:
                self._report(*waiting)
            waiting = (step, self.reader.submit(fetch, record), began)
            last = step == config.steps
            evaluate = not last and config.evaluation.every and step % config.evaluation.every == 0
            save = last or (config.record.checkpoint_every and step % config.record.checkpoint_every == 0)
            if evaluate or save:
                self._report(*waiting)
                waiting = None
            if save:
                self.checkpoints.save(step, self.state)
            if evaluate:
                self._evaluated(step, self._answers(self.state.weights, ("validation",)))
        self._finish()

    def _base_weights(self) -> Any:
        phase = self.folder.path / "warm_start"
        if self.config.base:
            return load_weights(Path(self.config.base), self.experiment.abstract_weights())
        if (phase / "weights").exists():
            return load_weights(phase, self.experiment.abstract_weights())
        if self.config.warm_start.steps:
            return warm_start(self.experiment, RunFolder(phase, self.config))
        return self.experiment.random_weights()

    def _resume(self) -> int:
        step = self.checkpoints.latest or 0
        if step:
            self.state = self.checkpoints.restore(step, self.state)
            print(f"resumed from step {step} in {self.folder.path}", flush=True)
        for file in ("metrics.jsonl", "evaluation.jsonl"):
            self.folder.drop_after(step, file=file)
        return step

    def _report(self, step: int, fetched: Future, began: float) -> None:
        record, finished = fetched.result()
        # A step dispatched while the one before still ran has its own time from there on.
        seconds = finished - max(began, self.finished)
        self.finished = finished
        metrics = {"step": step} | step_metrics(record)
        metrics |= {
            "seconds": seconds,
            "tokens_per_second": metrics["tokens"] / seconds,
            "compile_seconds": self.compile_seconds,
            "host_rss_mib": host_rss_mib(),
        }
        self.folder.metrics(metrics)
        every = self.config.record.rollouts_every
        if step == 1 or step == self.config.steps or (every and step % every == 0):
            self.folder.rollouts(step, record.last, self.table, self.experiment.tokenizer)
        print(line(step, self.config.steps, metrics), flush=True)

    def _answers(self, weights: Any, splits: tuple[str, ...]) -> dict[str, Answers]:
        return {name: self.evaluators[name](weights) for name in splits if name in self.evaluators}

    def _evaluated(self, step: int, answers: dict[str, Answers]) -> None:
        """Writes and prints the validation score: the test split is looked at only at the ends."""
        if "validation" in answers:
            result = score(answers["validation"])
            self.folder.metrics({"step": step} | as_json(result), file="evaluation.jsonl")
            print("  " + score_line("validation", result), flush=True)

    def _finish(self) -> None:
        config = self.config
        answers = self._answers(self.state.weights, ("validation", "test"))
        self.folder.drop_after(config.steps - 1, file="evaluation.jsonl")
        self._evaluated(config.steps, answers)
        results = {}
        for name, final in answers.items():
            before, after = score(self.base_answers[name]), score(final)
            results[name] = {"base": as_json(before), "final": as_json(after)}
            print(f"\n{score_line(f'{name}, base ', before)}\n{score_line(f'{name}, final', after)}")
        self.folder.result(results)
        if "test" in answers:
            print("\n" + side_by_side(self.experiment, self.base_answers["test"], answers["test"]))
        picture = report.draw(self.folder.path, f"{config.loss.name}, seed {config.seed}")
        print(f"\nrun: {self.folder.path}\npicture: {picture}", flush=True)


def fetch(record: Record) -> tuple[Record, float]:
    """A step's record on the host, and when it was there; run beside the main thread, which is a step ahead."""
    return jax.device_get(record), time.perf_counter()


def side_by_side(experiment: Experiment, before: Answers, after: Answers, count: int = 6) -> str:
    """A table of test problems spread over the split, with the greedy answers of the base and of the final model."""
    table: PromptTable = experiment.dataset.tables["test"]
    rows = [("problem", "base", "final", "reference")]
    problems = len(before.correct_EK)
    for index in range(0, problems, max(problems // count, 1))[:count]:
        texts = []
        for answers in (before, after):
            ids = answers.token_EKT[index, 0, : answers.length_EK[index, 0]].tolist()
            mark = "✓" if answers.correct_EK[index, 0] else "✗"
            texts.append(f"{mark} {' '.join(experiment.tokenizer.decode(ids).split())[-58:]}")
        rows.append((" ".join(table.problems[index].problem.split())[:40], *texts, table.answers[index]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def describe(experiment: Experiment) -> str:
    """What the run is going to do: sizes, with the numbers derived from them."""
    config, dataset = experiment.config, experiment.dataset
    Q, K, U = config.prompts_per_step, config.answers_per_prompt, config.updates_per_step
    tables = ", ".join(f"{len(t.answers)} {name} ({t.dropped} too long)" for name, t in dataset.tables.items())
    return "\n".join(
        [
            f"model     {experiment.parameters:,} weights, {config.model.layers} layers, {config.model.dtype}, "
            f"vocabulary {experiment.tokenizer.vocab_size} of {config.model.vocab} rows",
            f"mesh      {dict(experiment.mesh.shape)} on {experiment.mesh.devices.flat[0].platform}",
            f"problems  {tables}",
            f"a step    {Q} prompts × {K} answers = {Q * K} answers, from at most "
            f"{config.selection.max_rounds} rounds of {config.candidates_per_round} prompts",
            f"          {U} updates of {Q // U} prompts = {Q // U * K} answers each; answers of up to "
            f"{config.rollout.answer_limit} tokens",
            f"loss      {experiment.loss.name} {config.loss.options}, normaliser "
            f"{config.loss.normalizer or experiment.loss.normalizer}, old log-probs: {config.old_logp}",
        ]
    )


if __name__ == "__main__":
    cli.run(main, __doc__)
