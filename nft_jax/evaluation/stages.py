"""The stages of a run (pretrained, base, steps, final): scores of their answers to the same held-out problems."""

import math
from collections.abc import Iterable, Iterator, Mapping
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
      stage's "gain" is its paired difference from the stage from which it trained, {"greedy": …, "avg@4": …}.
    """
    problems = len(next(iter(stages.values())).correct_EK)
    return {
        part: _score_part({stage: jax.tree.map(lambda x, i=index: x[i], each) for stage, each in stages.items()})
        for part, index in _parts(name, table, train, problems)
    }


def _score_part(stages: Mapping[str, Answers]) -> dict[str, dict[str, Any]]:
    scores = {stage: as_json(score(answers)) for stage, answers in stages.items()}
    start, last = _find_start(stages), list(stages)[-1]
    if start != last and len(stages[start].correct_EK) > 1:
        gains = compare_correct(stages[last].correct_EK, stages[start].correct_EK)
        scores[last]["gain"] = {measure: as_json(pair) for measure, pair in gains.items()}
    return scores


def _find_start(stages: Iterable[str]) -> str:
    """Returns the stage from which the loss trained: after a warm start, if there was one."""
    names = list(stages)
    return "base" if "base" in names else names[0]


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
        start, last = scores[_find_start(scores)], list(scores.values())[-1]
        n, name_of_part = last["answers"], f"{part} ({last['problems']})"
        for measure, name in (("greedy", "greedy"), ("sampled", f"avg@{n}")):
            cells = [_format_share(score[measure], score[f"{measure}_error"]) for score in scores.values()]
            paired = last.get("gain", {}).get(name)
            gain = format_difference(Paired(**paired)) if paired else _format_gain(start, last, measure)
            rows.append((name_of_part, name, *cells, gain))
        rows.append((name_of_part, f"pass@{n}", *(f"{_last(score['pass_at']):.1%}" for score in scores.values()), ""))
        rows.append((name_of_part, "cut at the limit", *(f"{score['truncated']:.1%}" for score in scores.values()), ""))
        rows.append((name_of_part, "tokens of an answer", *(f"{score['length']:.1f}" for score in scores.values()), ""))
    gain = f"{_find_start(stages)} → {stages[-1]}" if len(stages) > 1 else "gain"
    return ("problems", "measure", *stages, gain), rows


def _format_share(value: float, error: float | None) -> str:
    return f"{value:.1%}" if error is None else f"{value:.1%} ± {error:.1%}"


def _format_gain(start: Mapping, last: Mapping, measure: str) -> str:
    """Returns the difference of two stages of which only the scores are known, as if they were independent."""
    if start is last:
        return ""
    errors = [score[f"{measure}_error"] for score in (start, last)]
    gain = f"{last[measure] - start[measure]:+.1%}"
    return gain if None in errors else f"{gain} ± {math.hypot(*errors):.1%}"


def _last(by_k: Mapping) -> float:
    """Returns the value at the largest k; the keys are texts in JSON."""
    return by_k[max(by_k, key=int)]
