"""The host's side of a run, after compilation: dispatches steps, reads the previous step's record, evaluates, saves."""

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import jax

from nft_jax import report
from nft_jax.config import Config
from nft_jax.data.prompts import PromptTable
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.evaluation.evaluator import Evaluator
from nft_jax.evaluation.scores import Answers, score
from nft_jax.evaluation.tables import format_score, format_table
from nft_jax.experiment import Experiment
from nft_jax.processes import distributed
from nft_jax.run.best import Best
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.compilations import Compilations
from nft_jax.run.metrics import format_step, step_metrics
from nft_jax.run.stopping import RUN_AGAIN, StopSignal
from nft_jax.run.tensorboard import TensorBoard
from nft_jax.run.watchdog import Watchdog
from nft_jax.run.workdir import Workdir, as_json, host_rss_mib, host_rss_peak_mib, read_lines
from nft_jax.state import Record, State
from nft_jax.types import Groups, Prompts


@dataclass
class Trainer:
    """The loop over the steps of one run.

    Attributes:
      experiment: The experiment, with its grading processes.
      folder: The workdir.
      compilations: Warns of programs that are compiled once the steps have begun.
      fingerprint: The settings and problems that determine the run's numbers, saved with each checkpoint.
      base_answers: By split, the answers before the first step.
      prompts: The prompt table on the mesh.
      state: The state after step `done`; each step takes over its memory.
      done: Number of steps that were done before this process began.
    """

    experiment: Experiment
    folder: Workdir
    checkpoints: Checkpoints
    compilations: Compilations
    fingerprint: dict
    evaluator: Evaluator
    base_answers: dict[str, Answers]
    program: jax.stages.Compiled
    compile_seconds: float
    prompts: Prompts
    state: State
    done: int
    board: TensorBoard = field(init=False)
    best: Best = field(init=False)

    @property
    def config(self) -> Config:
        return self.experiment.config

    def run(self, stop_signal: StopSignal) -> None:
        """Runs all steps that are left; the host reads step n − 1 while the device runs step n.

        Raises:
          OSError: When the folder cannot be written any more, with the step from which the run resumes.
        """
        try:
            self._run(stop_signal)
        except OSError as error:
            raise OSError(
                f"{self.folder.path}: {error}\nmake room if the disk is full; {self.checkpoints.describe_resume()}"
            ) from error

    def _run(self, stop_signal: StopSignal) -> None:
        self._begin()
        with TensorBoard(self.folder.path / "tensorboard", self.done) as self.board:
            self._evaluate_missing()
            record = self.config.record
            watchdog = Watchdog(record.hang_factor, record.hang_seconds, lambda: self.experiment.verifier.activity)
            with stop_signal.wait_for_steps(), watchdog:
                self._steps(stop_signal, watchdog)
            self._finish()

    def _begin(self) -> None:
        if self.done:
            print(f"resumed from step {self.done} in {self.folder.path}", flush=True)
        for file in ("metrics.jsonl", "evaluation.jsonl"):
            # A run that begins anew evaluates step 0 again.
            self.folder.remove_after(self.done or -1, file=file)
        self.best = Best(self.config.record.best_by, self.folder, self.checkpoints)

    def _evaluate_missing(self) -> None:
        """Evaluates the step to start from, if the run ended between saving and evaluating it."""
        if self.done == 0:
            self._report_answers(0, self.base_answers)
            return
        seen = {row["step"] for row in read_lines(self.folder.path / "evaluation.jsonl")}
        # Only process 0 is sure to see the rows that it wrote.
        if self._is_evaluated(self.done) and distributed.any_process(self.done not in seen):
            self._report_answers(self.done, self._answers(("validation",)))

    def _is_evaluated(self, step: int) -> bool:
        return step != self.config.steps and _is_due(step, self.config.evaluation.every_steps)

    def _steps(self, stop_signal: StopSignal, watchdog: Watchdog) -> None:
        config, waiting = self.config, None
        for step in range(self.done + 1, config.steps + 1):
            began = time.perf_counter()
            with watchdog.watch("step", step):
                self.state, record = self.program(self.state, self.prompts)
                if waiting is not None:
                    self._report_step(*waiting)
                jax.block_until_ready(record)
            seconds = time.perf_counter() - began
            with watchdog.watch("agreeing after step", step):
                waiting = (step, record._replace(last=self._logged_groups(step, record.last)), seconds)
                last, stop = step == config.steps, stop_signal.is_requested_anywhere()
            evaluate = self._is_evaluated(step)
            save = last or stop or _is_due(step, config.record.checkpoint_every_steps)
            if save or evaluate:
                self._report_step(*waiting)
                waiting = None
            if stop:
                stop_signal.lift_deadline()
            if save:
                with watchdog.watch("saving step", step):
                    self.folder.push()  # the lines of a step are in the bucket before its checkpoint is
                    self._save(step)
            if stop and not last:
                self._stop(step)
            if evaluate:
                with watchdog.watch("evaluating step", step):
                    self._report_answers(step, self._answers(("validation",)))
            self.checkpoints.check()
            self.compilations.report_late(step)
        self.checkpoints.wait()

    def _save(self, step: int) -> None:
        self.compilations.report_late(step)
        self.checkpoints.save(step, self.state, self.fingerprint)
        # Several processes save a replicated array in slices; Orbax compiles the slicing at the first save.
        self.compilations.finish()

    def _logged_groups(self, step: int, groups: Groups) -> Groups | None:
        """Gathers the groups of a step that goes into the rollout log; None for other steps."""
        logged = step in (1, self.config.steps) or _is_due(step, self.config.record.rollouts_every_steps)
        return distributed.gather(groups) if logged else None

    def _stop(self, step: int) -> None:
        self.checkpoints.wait()
        print(
            f"stopped after step {step}, which is saved; {self.checkpoints.describe_resume()}",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(RUN_AGAIN)

    def _report_step(self, step: int, record: Record, seconds: float) -> None:
        """Writes and prints the metrics of a step, and its rollouts if they are logged."""
        experiment, record = self.experiment, jax.device_get(record)
        metrics = {"step": step} | step_metrics(record)
        metrics |= {
            "seconds": seconds,
            "tokens_per_second": metrics["tokens"] / seconds,
            "compile_seconds": self.compile_seconds,
            "host_rss_mib": host_rss_mib(),
            "host_rss_peak_mib": host_rss_peak_mib(),
        }
        self.folder.append(metrics)
        self.board.add(step, metrics)
        if record.last is not None:
            self.folder.write_rollouts(step, record.last, experiment.dataset.tables["train"], experiment.tokenizer)
        print(format_step(step, self.config.steps, metrics), flush=True)

    def _answers(self, splits: Iterable[str]) -> dict[str, Answers]:
        """Answers the problems of those `splits` that the data has, with the current weights."""
        return {name: self.evaluator(self.state.weights, name) for name in splits if name in self.evaluator.tables}

    def _report_answers(self, step: int, answers: dict[str, Answers]) -> None:
        """Writes and prints the validation score, and saves the best step; the test split counts only at the ends."""
        if "validation" in answers:
            result = score(answers["validation"])
            row = {"step": step} | as_json(result)
            self.folder.append(row, file="evaluation.jsonl")
            self.board.add(step, as_json(result), prefix="validation")
            print("  " + format_score("validation", result), flush=True)
            self.best.consider(row, lambda: self._save(step))
        self.folder.push()

    def _finish(self) -> None:
        """Evaluates the last step, compares it with the base, and draws the curves."""
        experiment, config = self.experiment, self.config
        answers = self._answers(("validation", "test"))
        self.folder.remove_after(config.steps - 1, file="evaluation.jsonl")
        self._report_answers(config.steps, answers)
        results = {}
        for name, final in answers.items():
            before, after = score(self.base_answers[name]), score(final)
            results[name] = {"base": as_json(before), "final": as_json(after)}
            print(f"\n{format_score(f'{name}, base ', before)}\n{format_score(f'{name}, final', after)}")
        self.folder.write_json("result.json", results)
        if "test" in answers:
            table = experiment.dataset.tables["test"]
            print("\n" + tabulate_answers(table, experiment.tokenizer, self.base_answers["test"], answers["test"]))
        if self.folder.is_writer:
            picture = report.draw(self.folder.path, f"{config.loss.name}, seed {config.seed}")
            print(f"\nrun: {self.folder.path}\npicture: {picture}", flush=True)


def _is_due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def tabulate_answers(table: PromptTable, tokenizer: Tokenizer, before: Answers, after: Answers, count: int = 6) -> str:
    """Returns a table of problems spread over a split, with the greedy answers of the base and of the final model."""
    rows, problems = [], len(before.correct_EK)
    for index in range(0, problems, max(problems // count, 1))[:count]:
        texts = [_format_greedy(tokenizer, answers, index) for answers in (before, after)]
        rows.append((" ".join(table.problems[index].problem.split())[:40], *texts, table.answers[index]))
    return format_table(rows, ("problem", "base", "final", "reference"))


def _format_greedy(tokenizer: Tokenizer, answers: Answers, index: int) -> str:
    """Returns the end of a problem's greedy answer, on one line, marked as correct or incorrect."""
    ids = answers.token_EKT[index, 0, : answers.length_EK[index, 0]].tolist()
    mark = "✓" if answers.correct_EK[index, 0] else "✗"
    return f"{mark} {' '.join(tokenizer.decode(ids).split())[-58:]}"
