"""Trains one experiment: warm start if the config has one, then the one program, step after step.

    python -m nft_jax.train --config=tiny --workdir=runs/tiny [--config.loss.name=rft] [--config.section.field=value]

The same --workdir resumes from its newest checkpoint.
"""

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nft_jax import cli, report
from nft_jax.config import Config
from nft_jax.data.dataset import unreadable_answers
from nft_jax.data.prompts import PromptTable
from nft_jax.evaluation.evaluator import Evaluator
from nft_jax.evaluation.scores import Answers, score
from nft_jax.experiment import Experiment, compile_step
from nft_jax.processes import distributed, ending
from nft_jax.run.best import Best
from nft_jax.run.checkpoint import Checkpoints, has_weights, load_weights
from nft_jax.run.compilations import Compilations
from nft_jax.run.fingerprint import WARM_START, check_same, make_fingerprint
from nft_jax.run.metrics import format_score, format_step, step_metrics
from nft_jax.run.stopping import AGAIN, Stopper
from nft_jax.run.tensorboard import TensorBoard
from nft_jax.run.watchdog import Watchdog
from nft_jax.run.workdir import Workdir, as_json, host_rss_mib, read_lines
from nft_jax.sft import warm_start
from nft_jax.state import Record
from nft_jax.types import Groups
from nft_jax.update.optimizer import make_optimizer


def main(config: Config, workdir: Path) -> None:
    """Runs the experiment to its last step, and reports."""
    folder = Workdir(workdir)
    with (
        Compilations() as compilations,
        Checkpoints(workdir, config.record.keep_checkpoints) as checkpoints,
        Stopper(config.record.grace_seconds, checkpoints.resumes) as stopper,
        Experiment(config, workdir) as experiment,
    ):
        ending.set_resume_message(checkpoints.resumes)
        print(describe(experiment), flush=True)
        if experiment.dataset.hygiene is not None:
            print(experiment.dataset.hygiene.table(), flush=True)
        Trainer(config, experiment, folder, checkpoints, compilations).run(stopper)


class Trainer:
    """The host's side of a run: dispatches steps, reads the step before, evaluates, saves.

    Making one reads the newest checkpoint, or the weights to start from, and compiles.

    Raises:
      ValueError: before anything is compiled, when the folder holds another run or has no room for a checkpoint.
    """

    def __init__(
        self,
        config: Config,
        experiment: Experiment,
        folder: Workdir,
        checkpoints: Checkpoints,
        compilations: Compilations,
    ):
        self.experiment, self.folder, self.checkpoints = experiment, folder, checkpoints
        self.compilations = compilations
        self.config = experiment.config
        self.tables = experiment.dataset.tables
        self.identity = make_fingerprint(self.config, self.tables)
        self.optimizer = make_optimizer(
            self.config.optimizer, self.config.steps * self.config.updates_per_step, experiment.axes
        )
        abstract = experiment.abstract_state(self.optimizer)
        folder.check_room(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract)))
        resumed = checkpoints.restore(abstract, lambda run: check_same(run, self.identity, folder.path))
        self.done = resumed[0] if resumed else 0
        if self.done > self.config.steps:
            raise ValueError(f"config.steps={self.config.steps}: {folder.path} is at step {self.done} already")
        if not resumed:
            self._check_warm_start()
        # From here on this run is what the folder holds.
        folder.begin(config, experiment.attention.name)
        experiment.keep_settings(folder.path / "model")
        if experiment.dataset.hygiene is not None:
            folder.write("hygiene.json", experiment.dataset.hygiene.to_json())
        weights = None if resumed else self._base_weights()
        held_out = {name: table for name, table in self.tables.items() if name != "train"}
        self.evaluator = Evaluator(experiment, held_out, experiment.abstract_weights())
        self.base_answers = self._base_answers(weights)
        self.state = resumed[1] if resumed else experiment.initial_state(self.optimizer, weights)
        self.prompts = experiment.prompts(self.tables["train"])
        began = time.perf_counter()
        step, shardings = experiment.step(self.optimizer), experiment.state_shardings(self.optimizer)
        self.program = compile_step(step, self.state, self.prompts, shardings)
        distributed.compile_collectives(self.program)
        self.compile_seconds = time.perf_counter() - began
        print(f"step: one program, compiled in {self.compile_seconds:.0f} s\n{compilations.end()}", flush=True)

    def run(self, stopper: Stopper) -> None:
        """All steps that are left; the host reads step n − 1 while the device runs step n.

        Raises:
          OSError: when the folder can't be written any more, with the step from which the run goes on.
        """
        try:
            self._run(stopper)
        except OSError as error:
            raise OSError(
                f"{self.folder.path}: {error}\nmake room if the disk is full; {self.checkpoints.resumes()}"
            ) from error

    def _run(self, stopper: Stopper) -> None:
        self._begin()
        with TensorBoard(self.folder.path / "tensorboard", self.done) as self.board:
            self._catch_up()
            record = self.config.record
            with stopper.patient(), Watchdog(record.hang_factor, record.hang_seconds, self._grading) as watchdog:
                self._steps(stopper, watchdog)
            self._finish()

    def _catch_up(self) -> None:
        """The evaluation that belongs to the step to start from, where the run was ended before it."""
        if self.done == 0:
            self._evaluated(0, self.base_answers)
            return
        seen = {row["step"] for row in read_lines(self.folder.path / "evaluation.jsonl")}
        # Process 0 alone is sure to read what it wrote.
        if self._is_evaluated(self.done) and distributed.any_process(self.done not in seen):
            self._evaluated(self.done, self._answers(self.state.weights, ("validation",)))

    def _is_evaluated(self, step: int) -> bool:
        return step != self.config.steps and _is_due(step, self.config.evaluation.every_steps)

    def _grading(self) -> str:
        pools = self.experiment.pool, self.experiment.second_pool
        return "; ".join(pool.activity for pool in pools if pool is not None)

    def _steps(self, stopper: Stopper, watchdog: Watchdog) -> None:
        config, waiting = self.config, None
        for step in range(self.done + 1, config.steps + 1):
            began = time.perf_counter()
            with watchdog.over("step", step):
                self.state, record = self.program(self.state, self.prompts)
                if waiting is not None:
                    self._report(*waiting)
                jax.block_until_ready(record)
            seconds = time.perf_counter() - began
            with watchdog.over("agreeing after step", step):
                waiting = (step, record._replace(last=self._written(step, record.last)), seconds)
                last, stop = step == config.steps, stopper.agreed()
            evaluate = self._is_evaluated(step)
            save = last or stop or _is_due(step, config.record.checkpoint_every_steps)
            if save or evaluate:
                self._report(*waiting)
                waiting = None
            if stop:
                stopper.reached()
            if save:
                with watchdog.over("saving step", step):
                    self.folder.share()  # the lines of a step are in the bucket before its checkpoint is
                    self._save(step)
            if stop and not last:
                self._stop(step)
            if evaluate:
                with watchdog.over("evaluating step", step):
                    self._evaluated(step, self._answers(self.state.weights, ("validation",)))
            self.checkpoints.check()
            self.compilations.check(step)
        self.checkpoints.wait()

    def _save(self, step: int) -> None:
        self.compilations.check(step)
        self.checkpoints.save(step, self.state, self.identity)
        # Several processes save an array that all have in slices, which Orbax compiles when it first does.
        self.compilations.end()

    def _written(self, step: int, groups: Groups) -> Groups | None:
        """The groups of a step that goes into the rollout log, on the host."""
        logged = step in (1, self.config.steps) or _is_due(step, self.config.record.rollouts_every_steps)
        return distributed.gather(groups) if logged else None

    def _stop(self, step: int) -> None:
        self.checkpoints.wait()
        print(f"stopped after step {step}, which is saved; {self.checkpoints.resumes()}", file=sys.stderr, flush=True)
        raise SystemExit(AGAIN)

    def _check_warm_start(self) -> None:
        phase = self.folder.path / "warm_start"
        if has_weights(phase) and (phase / "identity.json").exists():
            check_same(json.loads((phase / "identity.json").read_text()), self.identity, phase, WARM_START)

    def _base_weights(self) -> Any:
        """The weights before the first step: those of a warm start where the config has one."""
        experiment, config, phase = self.experiment, self.config, self.folder.path / "warm_start"
        if config.base or not config.warm_start.steps:
            return experiment.starting_weights()
        if has_weights(phase):
            return load_weights(phase, experiment.abstract_weights())
        folder = Workdir(phase)
        folder.begin(config, experiment.attention.name)
        folder.write("identity.json", self.identity)
        self.folder.share()
        return warm_start(experiment, folder)

    def _base_answers(self, weights: Any) -> dict[str, Answers]:
        """The base's answers to the held-out splits, kept: a resumed run compares with them at its end."""
        path, splits = self.folder.path / "base_answers.npz", self.evaluator.tables
        if self.done and path.exists():
            with np.load(path) as kept:
                return {name: Answers(*(kept[f"{name}.{field}"] for field in Answers._fields)) for name in splits}
        answers = self._answers(self._base_weights() if weights is None else weights, splits)
        arrays = {f"{name}.{field}": x for name, part in answers.items() for field, x in part._asdict().items()}
        self.folder.arrays(path.name, arrays)
        return answers

    def _begin(self) -> None:
        if self.done:
            print(f"resumed from step {self.done} in {self.folder.path}", flush=True)
        for file in ("metrics.jsonl", "evaluation.jsonl"):
            # A run that begins anew evaluates step 0 again.
            self.folder.drop_after(self.done or -1, file=file)
        self.best = Best(self.config.record.best_by, self.folder, self.checkpoints)

    def _report(self, step: int, record: Record, seconds: float) -> None:
        record = jax.device_get(record)
        metrics = {"step": step} | step_metrics(record)
        metrics |= {
            "seconds": seconds,
            "tokens_per_second": metrics["tokens"] / seconds,
            "compile_seconds": self.compile_seconds,
            "host_rss_mib": host_rss_mib(),
        }
        self.folder.metrics(metrics)
        self.board.add(step, metrics)
        if record.last is not None:
            self.folder.rollouts(step, record.last, self.tables["train"], self.experiment.tokenizer)
        print(format_step(step, self.config.steps, metrics), flush=True)

    def _answers(self, weights: Any, splits: Iterable[str]) -> dict[str, Answers]:
        return {name: self.evaluator(weights, name) for name in splits if name in self.evaluator.tables}

    def _evaluated(self, step: int, answers: dict[str, Answers]) -> None:
        """Writes and prints the validation score: the test split is looked at only at the ends."""
        if "validation" in answers:
            result = score(answers["validation"])
            self.folder.metrics({"step": step} | as_json(result), file="evaluation.jsonl")
            self.board.add(step, as_json(result), prefix="validation")
            print("  " + format_score("validation", result), flush=True)
            row = {"step": step} | as_json(result)
            self.best.offer(row, lambda: self._save(step))
        self.folder.share()

    def _finish(self) -> None:
        config = self.config
        answers = self._answers(self.state.weights, ("validation", "test"))
        self.folder.drop_after(config.steps - 1, file="evaluation.jsonl")
        self._evaluated(config.steps, answers)
        results = {}
        for name, final in answers.items():
            before, after = score(self.base_answers[name]), score(final)
            results[name] = {"base": as_json(before), "final": as_json(after)}
            print(f"\n{format_score(f'{name}, base ', before)}\n{format_score(f'{name}, final', after)}")
        self.folder.write("result.json", results)
        if "test" in answers:
            print("\n" + side_by_side(self.experiment, self.base_answers["test"], answers["test"]))
        if self.folder.writes:
            picture = report.draw(self.folder.path, f"{config.loss.name}, seed {config.seed}")
            print(f"\nrun: {self.folder.path}\npicture: {picture}", flush=True)


def _is_due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


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
            f"attention {experiment.attention.name}",
            f"problems  {tables}",
            *unreadable_answers(config.verify.grader, dataset.tables),
            f"verifier  {experiment.verifier}",
            f"a step    {Q} prompts × {K} answers = {Q * K} answers, from at most "
            f"{config.selection.max_rounds} rounds of {config.candidates_per_round} prompts",
            f"          {U} updates of {Q // U} prompts = {Q // U * K} answers each; answers of up to "
            f"{config.rollout.max_answer_tokens} tokens",
            f"loss      {experiment.loss.name} {config.loss.options}, normaliser "
            f"{config.loss.normalizer or experiment.loss.normalizer}, old log-probs: {config.old_logp}",
        ]
    )


if __name__ == "__main__":
    cli.run(main, __doc__, several=True)
