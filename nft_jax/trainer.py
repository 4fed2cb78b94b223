"""The steps of a run on the host: their metrics and rollouts, held-out answers, and the table at the end."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import numpy as np

from nft_jax.data.prompts import PromptTable
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.evaluation.answers import make_rows, write_rows
from nft_jax.evaluation.evaluator import Evaluator
from nft_jax.evaluation.scores import Answers, score
from nft_jax.evaluation.stages import score_stages, stage_of, tabulate_stages
from nft_jax.evaluation.tables import format_score, format_table
from nft_jax.files import atomically
from nft_jax.loop import VALIDATION, Loop, is_due
from nft_jax.models.sharded import count_weights
from nft_jax.parallel.mesh import DATA, shard_count
from nft_jax.printing import terminal_width
from nft_jax.processes import distributed
from nft_jax.rehearsal import check_gap
from nft_jax.report import curves, page
from nft_jax.report.slots import Decoding
from nft_jax.run.health import Hints
from nft_jax.run.json_files import read_lines
from nft_jax.run.metrics import format_step, optimizer_metrics, step_metrics
from nft_jax.run.rollouts import TokenRecord, describe_groups
from nft_jax.run.workdir import HELD_OUT_FOLDER, RESULT_FILE, as_json
from nft_jax.state import Record
from nft_jax.verify.callback import Grader
from nft_jax.verify.findings import Finding


class StepReport(NamedTuple):
    """What the host reports of a step.

    Attributes:
      record: The step's record; its groups are gathered on the host if the step is logged.
      after_QKT: Log-probs of the recorded tokens by the weights after the step; None where none are recorded.
      findings: What the grader found in the answers that this process graded.
    """

    record: Record
    after_QKT: np.ndarray | None
    findings: dict[bytes, Finding]


@dataclass(kw_only=True)
class Trainer(Loop):
    """The loop over the steps of one run.

    Attributes:
      scorer: Scores the tokens of logged groups: `token_scores.score_tokens`, compiled; None if none are recorded.
      grader: The host's side of grading the answers of steps.
      pretrained_answers: By split, the answers of a pretrained model before its warm start; empty without one.
      base_answers: By split, the answers before the first step.
    """

    scorer: jax.stages.Compiled | None
    grader: Grader
    evaluator: Evaluator
    pretrained_answers: dict[str, Answers]
    base_answers: dict[str, Answers]
    hints: Hints = field(init=False)

    @property
    def steps(self) -> int:
        return self.config.steps

    @property
    def checkpoint_every(self) -> int:
        return self.config.record.checkpoint_every_steps

    @property
    def optimizer_setting(self) -> str:
        return "optimizer"

    @property
    def best_by(self) -> str:
        return self.config.record.best_by

    def begin(self) -> None:
        """Begins as every loop, and removes the results of a run with fewer steps."""
        self.folder.remove(RESULT_FILE)
        # `finish` evaluates the last step, also where an earlier one was interrupted.
        self.folder.remove_after(self.steps - 1, file="evaluation.jsonl")
        self.hints = Hints(self.config)
        super().begin()

    def is_evaluated(self, step: int) -> bool:
        """Returns whether validation problems are answered after this step; `finish` answers those of the last."""
        return step != self.steps and is_due(step, self.config.evaluation.every_steps)

    def _is_logged(self, step: int) -> bool:
        """Returns whether the rollouts of this step are saved."""
        return step in (1, self.steps) or is_due(step, self.config.record.rollouts_every_steps)

    def prepare_record(self, step: int, record: Record) -> StepReport:
        """Gathers and scores the groups of a step that is logged, and leaves out those of other steps."""
        # The next step has not begun, and costs nothing for what no file will hold.
        findings = self.grader.take_findings(keep_next=self._is_logged(step + 1))
        if not self._is_logged(step):
            return StepReport(record._replace(last=None, length_RQK=None, watched=None), None, {})
        after_QKT = None
        if self.scorer is not None:
            weights = self.state.weights, self.state.frozen
            after_QKT = jax.device_get(self.scorer(*weights, self.inputs, record.last, record.watched.place_Q))
        last, length_RQK = distributed.gather((record.last, record.length_RQK))
        return StepReport(record._replace(last=last, length_RQK=length_RQK), after_QKT, findings)

    def report_step(self, step: int, report: StepReport, seconds: float) -> None:
        """Writes and prints the metrics of a step, what they show, and its rollouts if they are logged."""
        experiment, record = self.experiment, jax.device_get(report.record)
        metrics = {"step": step} | step_metrics(record)
        weights = count_weights(experiment.model.trained_shapes)
        norm_O = record.applied.gradient_norm[record.applied.taken > 0]
        metrics |= optimizer_metrics(norm_O, self.config.optimizer, weights)
        metrics |= self.cost(metrics["tokens"], seconds)
        self.folder.append(metrics)
        self.trackers.add(step, metrics)
        if record.last is not None:
            table, tokens = experiment.dataset.tables["train"], None
            if report.after_QKT is not None:
                tokens = TokenRecord(record.watched, report.after_QKT, self.config.old_logp == "recompute")
            groups = describe_groups(record.last, table, experiment.tokenizer, tokens, report.findings)
            self.folder.write_rollouts(step, groups)
            self._write_slots(step, record)
        self.nonfinite.add(metrics)
        check_gap(self.config, step, metrics)
        line = format_step(step, self.steps, metrics, self.time_left(step, seconds), terminal_width())
        print("\n  ".join([line, *self.hints.add_step(metrics)]), flush=True)

    def _write_slots(self, step: int, record: Record) -> None:
        """Writes what the page needs to say which decode slot gave which answer when."""
        config, engine, length_RQK = self.config, self.experiment.engine, record.length_RQK[: int(record.rounds)]
        shards, partial = shard_count(engine.mesh), config.rollout.partial
        decoding = Decoding(
            slots=engine.slots(length_RQK[0].size // shards),
            shards=shards,
            in_step=shards if partial else engine.mesh.shape[DATA] if engine.lockstep else 1,
            begins_next=config.selection.begin_next_round,
            max_rounds=config.selection.max_rounds,
            max_halvings=0 if partial else config.rollout.max_halvings,
            rounds_ahead=config.rollout.rounds_ahead,
            halving_steps=config.rollout.halving_steps,
        )
        values = {"step": step, "decoding": decoding._asdict(), "capacity": float(record.statistics.capacity)}
        values["lengths"] = length_RQK.tolist()
        if record.partial is not None:
            flights = {"before": record.partial.before, "after": record.partial.after}
            values["draws"] = record.partial.draw_RQ[: int(record.rounds)].tolist()
            values |= {name: {part: x.tolist() for part, x in as_json(one).items()} for name, one in flights.items()}
        self.folder.write_json(f"rollouts/slots_{step:06d}.json", values, indent=None)

    def evaluate(self, step: int) -> None:
        """Answers the validation problems, except before the first step, and reports the answers."""
        self._report_answers(step, self._answers(("validation",), step) if step else self.base_answers)

    def _answers(self, splits: Iterable[str], step: int) -> dict[str, Answers]:
        """Answers the problems of those `splits` that the data has, with the current weights."""
        weights, there = self.state.model_weights, [name for name in splits if name in self.evaluator.tables]
        return {name: self.evaluator(weights, name, f"{name}, step {step}") for name in there}

    def _report_answers(self, step: int, answers: dict[str, Answers]) -> None:
        """Writes and prints the validation score, and saves the best step; the test split counts only at the ends."""
        if "validation" in answers:
            result = score(answers["validation"])
            row = {"step": step} | as_json(result)
            self.folder.append(row, file="evaluation.jsonl")
            self.trackers.add(step, as_json(result), prefix=VALIDATION)
            hints = self.hints.add_score(result.greedy, result.sampled, (result.greedy_error, result.sampled_error))
            print("  " + "\n  ".join([format_score("validation", result), *hints]), flush=True)
            self.best.consider(row, lambda: self.save(step))
        if 0 < step < self.steps:  # those of the ends are written together
            self._write_stage(stage_of(step), answers)
        self.folder.push()

    def finish(self) -> None:
        """Evaluates the last step, compares it with the base, and draws the curves."""
        experiment, config = self.experiment, self.config
        answers = self._answers(("validation", "test"), config.steps)
        self._report_answers(config.steps, answers)
        results, tables = {}, experiment.dataset.tables
        for name, final in answers.items():
            stages = self._stages(name, final)
            results |= score_stages(name, stages, tables[name], tables["train"])
        if "test" in answers:
            stages = self._stages("test", answers["test"])
            print("\n" + tabulate_answers(tables["test"], experiment.tokenizer, stages))
        if self.folder.is_writer:
            self._write_held_out(answers)
            picture, drawing = curves.draw(self.folder.path, page.title_of(config))
            report = page.write_page(self.folder.path, config, results, drawing)
            columns, rows = tabulate_stages(results)
            headline = page.describe_steps(read_lines(self.folder.path / "metrics.jsonl")), format_table(rows, columns)
            places = f"run: {self.folder.path}", f"picture: {picture}", f"page: {report}"
            print("\n".join(["", *headline, "", *places]), flush=True)
        # The last file: it says that the run is finished.
        self.folder.write_json(RESULT_FILE, results)

    def _write_held_out(self, answers: dict[str, Answers]) -> None:
        """Writes each stage's answers to the held-out problems as text."""
        for split, final in answers.items():
            for stage, each in self._stages(split, final).items():
                self._write_stage(stage, {split: each})

    def _write_stage(self, stage: str, answers: dict[str, Answers]) -> None:
        """Writes a stage's answers to the problems of some splits."""
        if not self.folder.is_writer:
            return
        folder, tables = self.folder.path / HELD_OUT_FOLDER, self.experiment.dataset.tables
        folder.mkdir(exist_ok=True)
        for split, each in answers.items():
            with (
                atomically(folder / f"{split}_{stage}.jsonl") as temporary,
                open(temporary, "w", encoding="utf-8") as out,
            ):
                write_rows(out, make_rows(each, tables[split], 0, self.experiment.tokenizer))

    def _stages(self, split: str, final: Answers) -> dict[str, Answers]:
        """Returns the answers to a split by stage of the run."""
        before = {"pretrained": self.pretrained_answers, "base": self.base_answers}
        return {stage: answers[split] for stage, answers in before.items() if answers} | {"final": final}


def tabulate_answers(table: PromptTable, tokenizer: Tokenizer, stages: dict[str, Answers], count: int = 6) -> str:
    """Returns a table of problems spread evenly over a split, with each stage's greedy answers."""
    problems = len(stages["base"].correct_EK)
    rows = []
    for index in np.linspace(0, problems - 1, min(count, problems)).round().astype(int).tolist():
        texts = [_format_greedy(tokenizer, answers, index) for answers in stages.values()]
        rows.append((" ".join(table.problems[index].problem.split())[:40], *texts, table.answers[index]))
    return format_table(rows, ("problem", *stages, "reference"))


def _format_greedy(tokenizer: Tokenizer, answers: Answers, index: int) -> str:
    """Returns the end of a problem's greedy answer, on one line, marked as correct or incorrect."""
    ids = answers.token_EKT[index, 0, : answers.length_EK[index, 0]].tolist()
    mark = "✓" if answers.correct_EK[index, 0] else "✗"
    return f"{mark} {' '.join(tokenizer.decode(ids).split())[-58:]}"
