"""The stages of a run, scored on all problems of a split and on the kinds that training had and had not."""

import json

import numpy as np
import pytest

from nft_jax.data.files import Problem
from nft_jax.data.prompts import PromptTable
from nft_jax.evaluation.scores import Answers
from nft_jax.evaluation.stages import score_stages, tabulate_stages
from nft_jax.files import json_text
from nft_jax.report.page import describe_gain
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
    assert {part: {stage: each["greedy"] for stage, each in row.items()} for part, row in found.items()} == {
        "test": {"base": 0.25, "final": 0.75},
        "test, kinds of training": {"base": 0.5, "final": 0.5},
        "test, other kinds": {"base": 0.0, "final": 1.0},
    }
    assert [each["problems"] for row in found.values() for each in row.values()] == [4, 4, 2, 2, 2, 2]
    kept = json.loads(json_text(found))
    columns, rows = tabulate_stages(kept)
    assert columns == ("problems", "measure", "base", "final", "base → final") and len(rows) == 3 * 5
    assert rows[0] == ("test (4)", "greedy", "25.0% ± 25.0%", "75.0% ± 25.0%", "+50.0% [+0.0%, +100.0%]")
    assert rows[2] == ("test (4)", "pass@1", "25.0%", "75.0%", "") and rows[4][1:] == (
        "tokens of an answer",
        "1.0",
        "1.0",
        "",
    )
    assert rows[5][0] == "test, kinds of training (2)"
    # A run of an older version has scores alone.
    del kept["test"]["final"]["gain"]
    assert tabulate_stages(kept)[1][0][-1] == "+50.0% ± 35.4%"
    assert tabulate_stages({}) == (("problems", "measure", "gain"), [])
    assert tabulate_stages({"test": {"final": kept["test"]["final"]}})[1][0][2:] == ("75.0% ± 25.0%", "")


def test_score_stages_pairs_the_last_stage_by_problem_with_the_one_that_it_trained_from():
    """Problems differ much, and half of the incorrect answers become correct: paired, the gain is much surer.

    What a warm start taught before is not in it.
    """
    base_E = np.arange(200) % 2
    stages = {"pretrained": answers(0 * base_E), "base": answers(base_E), "final": answers(np.arange(200) % 4 > 0)}
    scores = score_stages("test", stages, table("a" * 200), table("a"))
    columns, rows = tabulate_stages(json.loads(json_text(scores)))
    assert columns[2:] == ("pretrained", "base", "final", "base → final") and rows[0][-1].startswith("+25.0% [")
    assert describe_gain(columns, rows)[0].startswith("test (200), greedy: pretrained 0.0% ± 0.0% → base 50.0% ±")
    gain = scores["test"]["final"]["gain"]
    assert gain.keys() == {"greedy", "avg@1"}
    for found in gain.values():
        assert (found["difference"], found["problems"]) == (0.25, 200)
        half = 1.96 * (0.25 * 0.75 / 200) ** 0.5
        np.testing.assert_allclose([found["low"], found["high"]], [0.25 - half, 0.25 + half], atol=0.1 * half)


@pytest.mark.parametrize("kinds", ["ab", "aa", "xy", ["", ""]])
def test_score_stages_has_no_parts_where_all_kinds_are_alike(kinds):
    train = table(["a", "b", ""])
    assert list(score_stages("test", {"final": answers([1, 0])}, table(kinds), train)) == ["test"]
