"""The stages of a run, scored on all problems of a split and on the kinds that training had and had not."""

import numpy as np
import pytest

from nft_jax.data.files import Problem
from nft_jax.data.prompts import PromptTable
from nft_jax.evaluation.scores import Answers
from nft_jax.evaluation.stages import format_stages, score_stages
from nft_jax.verify.callback import NOT_GRADED


def table(kinds):
    problems = [Problem("1+1=", "2", kind=kind) for kind in kinds]
    return PromptTable(None, None, ["2"] * len(problems), [], problems, 0)


def answers(correct_E):
    correct_EK = np.array(correct_E, bool)[:, None].repeat(2, axis=1)
    zeros, none = np.zeros(correct_EK.shape, np.int32), np.full(correct_EK.shape, NOT_GRADED)
    return Answers(
        zeros[..., None], zeros.astype(float), zeros + 1, zeros > 0, correct_EK.astype(int), correct_EK, none
    )


def test_score_stages_scores_kinds_of_training_and_other_kinds_apart():
    stages = {"base": answers([1, 0, 0, 0]), "final": answers([1, 1, 0, 1])}
    # Only the first four problems were evaluated.
    found = score_stages("test", stages, table("axbyb"), table("aabb"))
    assert {part: {stage: each.greedy for stage, each in row.items()} for part, row in found.items()} == {
        "test": {"base": 0.25, "final": 0.75},
        "test, kinds of training": {"base": 0.5, "final": 0.5},
        "test, other kinds": {"base": 0.0, "final": 1.0},
    }
    assert [each.problems for row in found.values() for each in row.values()] == [4, 4, 2, 2, 2, 2]
    lines = format_stages(found).split("\n")
    assert lines[0].startswith("test, base : greedy 0.250") and lines[1].startswith("test, final: greedy 0.750")
    assert lines[2] == "" and lines[3].startswith("test, kinds of training, base : ") and len(lines) == 8


@pytest.mark.parametrize("kinds", ["ab", "aa", "xy", ["", ""]])
def test_score_stages_has_no_parts_where_all_kinds_are_alike(kinds):
    train = table(["a", "b", ""])
    assert list(score_stages("test", {"final": answers([1, 0])}, table(kinds), train)) == ["test"]
