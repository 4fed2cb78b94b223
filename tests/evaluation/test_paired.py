"""Paired comparison of two evaluations."""

import json

import numpy as np
import pytest

from nft_jax.evaluation.paired import compare, compare_values, find_other_settings, tabulate_pairs


def write(folder, name, rows):
    folder.mkdir(exist_ok=True)
    lines = [
        json.dumps({"id": i, "prompt": f"p{i}", "verdicts": verdicts, "truncated": [False] * len(verdicts)})
        for i, verdicts in rows.items()
    ]
    (folder / name).write_text("\n".join(lines) + "\n")


def test_compare_values_of_equal_evaluations():
    value_E = np.random.default_rng(0).random(50)
    assert compare_values(value_E, value_E) == (value_E.mean(), value_E.mean(), 0.0, 0.0, 0.0, 50)


def test_compare_values_with_a_constant_difference():
    value_E = np.random.default_rng(0).random(50)
    found = compare_values(value_E + 0.25, value_E)
    np.testing.assert_allclose([found.difference, found.low, found.high], 0.25, atol=1e-12)


def test_compare_values_interval_is_that_of_the_mean_difference():
    """Close to mean ± 1.96 standard errors of the paired differences, however much the problems themselves differ."""
    random = np.random.default_rng(1)
    hardness_E, change_E = 10 * random.random(400), random.normal(0.1, 0.5, 400)
    found = compare_values(hardness_E + change_E, hardness_E)
    half = 1.96 * change_E.std() / 20
    np.testing.assert_allclose([found.low, found.high], change_E.mean() + np.array([-half, half]), atol=0.15 * half)
    assert found == compare_values(hardness_E + change_E, hardness_E)
    swapped = compare_values(hardness_E, hardness_E + change_E)
    np.testing.assert_allclose([swapped.low, swapped.high], [-found.high, -found.low], atol=1e-12)


def test_compare_pairs_problems_by_id_in_any_order(tmp_path):
    correct, incorrect = ["correct"] * 3, ["incorrect"] * 3
    write(
        tmp_path / "a", "few_n2.jsonl", {1: correct, 2: incorrect, 3: ["incorrect", "correct", "incorrect"], 9: correct}
    )
    write(tmp_path / "b", "few_n2.jsonl", {3: incorrect, 2: correct, 1: correct})
    write(tmp_path / "b", "more_n2.jsonl", {1: correct})
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found.keys() == {"few_n2"}
    greedy, sampled = found["few_n2"]["greedy"], found["few_n2"]["avg@2"]
    assert greedy[:3] == pytest.approx((1 / 3, 2 / 3, -1 / 3))
    assert sampled[:3] == pytest.approx((1.5 / 3, 2 / 3, -0.5 / 3))
    assert greedy.problems == 3
    header, *lines = tabulate_pairs(found).splitlines()
    assert header.split()[:3] == ["file", "measure", "problems"]
    assert [line.split()[:5] for line in lines] == [
        ["few_n2", "greedy", "3", "0.333", "0.667"],
        ["few_n2", "avg@2", "3", "0.500", "0.667"],
    ]


def test_find_other_settings_tells_what_else_may_make_the_difference(tmp_path):
    settings = {"seed": 0, "max_answer_tokens": 9, "grader": "g 1"}
    for folder, name, changes in (
        ("a", "x", {}),
        ("b", "x", {"max_answer_tokens": 12, "grader": "g 2"}),
        *(("a", "same", {}), ("b", "same", {}), ("a", "alone", {})),
    ):
        write(tmp_path / folder, f"{name}.jsonl", {1: ["correct"] * 2})
        (tmp_path / folder / f"{name}.json").write_text(json.dumps({"settings": settings | changes}))
    write(tmp_path / "a", "no_settings.jsonl", {1: ["correct"] * 2})
    write(tmp_path / "b", "no_settings.jsonl", {1: ["correct"] * 2})
    assert find_other_settings(tmp_path / "a", tmp_path / "b") == [
        "x: grader is 'g 1' in this, 'g 2' in the other",
        "x: max_answer_tokens is 9 in this, 12 in the other",
    ]
    assert find_other_settings(tmp_path / "a", tmp_path / "a") == []


def test_compare_counts_truncated_answers_as_incorrect(tmp_path):
    for folder, cut in (("a", True), ("b", False)):
        row = {"id": 1, "prompt": "p", "verdicts": ["correct", "correct"], "truncated": [cut, cut]}
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jsonl").write_text(json.dumps(row) + "\n")
    assert compare(tmp_path / "a", tmp_path / "b")["x"]["greedy"].difference == -1


def test_compare_refuses_evaluations_without_common_problems(tmp_path):
    write(tmp_path / "a", "x.jsonl", {1: ["correct", "incorrect"]})
    write(tmp_path / "b", "y.jsonl", {1: ["correct", "incorrect"]})
    with pytest.raises(ValueError, match=r"a: x.jsonl; .*b: y.jsonl\): evaluate both with the same settings"):
        compare(tmp_path / "a", tmp_path / "b")
    write(tmp_path / "b", "x.jsonl", {2: ["correct", "incorrect"]})
    with pytest.raises(ValueError, match="no problem in common"):
        compare(tmp_path / "a", tmp_path / "b")
