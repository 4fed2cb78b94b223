"""The stages of a run (pretrained, base, final): scores of their answers to the same held-out problems."""

from collections.abc import Iterator, Mapping

import numpy as np

from nft_jax.data.prompts import PromptTable
from nft_jax.evaluation.scores import Answers, Score, score
from nft_jax.evaluation.tables import format_score


def score_stages(
    name: str, stages: Mapping[str, Answers], table: PromptTable, train: PromptTable
) -> dict[str, dict[str, Score]]:
    """Scores each stage's answers to a split.

    Returns:
      {name: {stage: score}}. Where the split has problems of kinds that occur in training and of other kinds, these two
      parts are scored too, as "name, kinds of training" and "name, other kinds".
    """
    problems = len(next(iter(stages.values())).correct_EK)
    return {
        part: {stage: score(Answers(*(field[index] for field in answers))) for stage, answers in stages.items()}
        for part, index in _parts(name, table, train, problems)
    }


def _parts(name: str, table: PromptTable, train: PromptTable, problems: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name of each part, and which of the first `problems` problems of the split it has."""
    kinds = {problem.kind for problem in train.problems}
    trained_E = np.array([problem.kind in kinds for problem in table.problems[:problems]])
    yield name, np.ones(problems, bool)
    if trained_E.any() and not trained_E.all():
        yield f"{name}, kinds of training", trained_E
        yield f"{name}, other kinds", ~trained_E


def format_stages(scores: Mapping[str, Mapping[str, Score]]) -> str:
    """Returns a line for each stage of each part, parts separated by empty lines."""
    parts = []
    for part, stages in scores.items():
        width = max(map(len, stages))
        parts.append("\n".join(format_score(f"{part}, {stage:<{width}}", each) for stage, each in stages.items()))
    return "\n\n".join(parts)
