"""The stages of a run (pretrained, base, steps, final): scores of their answers to the same held-out problems."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from nft_jax.data.prompts import PromptTable
from nft_jax.evaluation.paired import Paired, compare_correct, format_difference
from nft_jax.evaluation.scores import Answers, score
from nft_jax.run.workdir import as_json

STAGES = ("pretrained", "base", "step", "final")


def stage_of(step: int) -> str:
    """Returns the name of the stage after a step that is not the last."""
    return f"step{step:06d}"


def order_of(stage: str) -> tuple[int, str]:
    """Returns a key that sorts the names of stages by time."""
    return STAGES.index(stage.rstrip("0123456789")), stage


def score_stages(
    name: str, stages: Mapping[str, Answers], table: PromptTable, train: PromptTable
) -> dict[str, dict[str, dict[str, Any]]]:
    """Scores each stage's answers to the same problems of a split.

    Returns:
      {name: {stage: score}}, as `result.json` has it. Where the split has problems of kinds that occur in training and
      of other kinds, these two parts are scored too, as "name, kinds of training" and "name, other kinds". The last
      stage's "change" is its paired difference from the first, {"greedy": …, "avg@4": …}.
    """
    problems = len(next(iter(stages.values())).correct_EK)
    return {
        part: _score_part({stage: jax.tree.map(lambda x, i=index: x[i], each) for stage, each in stages.items()})
        for part, index in _parts(name, table, train, problems)
    }


def _score_part(stages: Mapping[str, Answers]) -> dict[str, dict[str, Any]]:
    scores = {stage: as_json(score(answers)) for stage, answers in stages.items()}
    correct = [answers.correct_EK for answers in stages.values()]
    if len(correct) > 1 and len(correct[0]) > 1:
        changes = compare_correct(correct[-1], correct[0])
        scores[list(scores)[-1]]["change"] = {measure: as_json(pair) for measure, pair in changes.items()}
    return scores


def _parts(name: str, table: PromptTable, train: PromptTable, problems: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name of each part, and which of the first `problems` problems of the split it has."""
    kinds = {problem.kind for problem in train.problems}
    trained_E = np.array([problem.kind in kinds for problem in table.problems[:problems]])
    yield name, np.ones(problems, bool)
    if trained_E.any() and not trained_E.all():
        yield f"{name}, kinds of training", trained_E
        yield f"{name}, other kinds", ~trained_E


def tabulate_stages(results: Mapping[str, Mapping[str, Mapping]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns the table of what a run improved, for terminal and page: its columns, and its rows.

    Args:
      results: The scores of `score_stages` as JSON has them.
    """
    stages = list(dict.fromkeys(stage for scores in results.values() for stage in scores))
    rows = []
    for part, scores in results.items():
        first, last = next(iter(scores.values())), list(scores.values())[-1]
        n, name_of_part = first["answers"], f"{part} ({first['problems']})"
        for measure, name in (("greedy", "greedy"), ("sampled", f"avg@{n}")):
            cells = [_format_share(score[measure], score[f"{measure}_error"]) for score in scores.values()]
            paired = last.get("change", {}).get(name)
            change = format_difference(Paired(**paired)) if paired else _format_change(first, last, measure)
            rows.append((name_of_part, name, *cells, change))
        rows.append((name_of_part, f"pass@{n}", *(f"{_last(score['pass_at']):.1%}" for score in scores.values()), ""))
        rows.append((name_of_part, "cut at the limit", *(f"{score['truncated']:.1%}" for score in scores.values()), ""))
        rows.append((name_of_part, "tokens of an answer", *(f"{score['length']:.1f}" for score in scores.values()), ""))
    return ("problems", "measure", *stages, "change"), rows


def _format_share(value: float, error: float | None) -> str:
    return f"{value:.1%}" if error is None else f"{value:.1%} ± {error:.1%}"


def _format_change(first: Mapping, last: Mapping, measure: str) -> str:
    """Returns the change of two stages of which only the scores are known, as if they were independent."""
    if first is last:
        return ""
    errors = [score[f"{measure}_error"] for score in (first, last)]
    change = f"{last[measure] - first[measure]:+.1%}"
    return change if None in errors else f"{change} ± {math.hypot(*errors):.1%}"


def _last(by_k: Mapping) -> float:
    """Returns the value at the largest k; the keys are texts in JSON."""
    return by_k[max(by_k, key=int)]
