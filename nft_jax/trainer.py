"""The steps of a run on the host: their metrics and rollouts, held-out answers, and the table at the end."""

from collections.abc import Iterable
from dataclasses import dataclass

import jax

from nft_jax import report
from nft_jax.data.prompts import PromptTable
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.evaluation.evaluator import Evaluator
from nft_jax.evaluation.scores import Answers, score
from nft_jax.evaluation.tables import format_score, format_table
from nft_jax.loop import Loop, is_due
from nft_jax.processes import distributed
from nft_jax.run.metrics import format_step, step_metrics
from nft_jax.run.workdir import as_json, host_rss_mib, host_rss_peak_mib
from nft_jax.state import Record


@dataclass(kw_only=True)
class Trainer(Loop):
    """The loop over the steps of one run.

    Attributes:
      base_answers: By split, the answers before the first step.
    """

    evaluator: Evaluator
    base_answers: dict[str, Answers]

    @property
    def steps(self) -> int:
        return self.config.steps

    @property
    def checkpoint_every(self) -> int:
        return self.config.record.checkpoint_every_steps

    @property
    def best_by(self) -> str:
        return self.config.record.best_by

    def is_evaluated(self, step: int) -> bool:
        """Returns whether validation problems are answered after this step; `finish` answers those of the last."""
        return step != self.steps and is_due(step, self.config.evaluation.every_steps)

    def prepare_record(self, step: int, record: Record) -> Record:
        """Gathers the groups of a step that goes into the rollout log, and leaves out those of other steps."""
        logged = step in (1, self.steps) or is_due(step, self.config.record.rollouts_every_steps)
        return record._replace(last=distributed.gather(record.last) if logged else None)

    def report_step(self, step: int, record: Record, seconds: float) -> None:
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

    def evaluate(self, step: int) -> None:
        """Answers the validation problems, except before the first step, and reports the answers."""
        self._report_answers(step, self._answers(("validation",)) if step else self.base_answers)

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
            self.best.consider(row, lambda: self.save(step))
        self.folder.push()

    def finish(self) -> None:
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
