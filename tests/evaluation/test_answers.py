"""Rows of an interrupted evaluation: all that count are read, and nothing behind a damaged one."""

import json

import numpy as np
import pytest

from helpers.experiments import small
from nft_jax.data.files import Problem
from nft_jax.data.prompts import PromptTable
from nft_jax.evaluation.answers import read_rows, score_settings

COUNT, ANSWERS = 5, 2
PROBLEMS = [Problem(f"{i}+{i}=", str(2 * i), id=f"p{i}") for i in range(COUNT)]
PROMPTS = PromptTable(
    np.zeros((COUNT, 4), np.int32),
    np.ones(COUNT, np.int32),
    [problem.answer for problem in PROBLEMS],
    [problem.problem for problem in PROBLEMS],
    PROBLEMS,
    0,
)
RESULT = {"settings": {"answers": ANSWERS}, "problems": {"digest": "0"}, "origin": {"step": 3}}


def test_score_settings_tell_apart_whatever_changes_an_answer_or_its_verdict():
    """An evaluation of other settings would else give the rows of this one as its own."""
    given = {"verify__grader": "helpers.lenient_grader:share", "verify__correct_from": 0.5}
    changes = {
        "evaluation__answers_per_problem": 3,
        "evaluation__temperature": 0.5,
        "evaluation__top_p": 0.5,
        "evaluation__top_k": 5,
        "rollout__max_answer_tokens": 9,
        "rollout__stop": "x",
        "rollout__end_ids": "1",
        "data__max_prompt_tokens": 9,
        "data__template": "chat",
        "verify__correct_from": 0.75,
        "verify__second_grader": "boxed_exact",
        "model__dtype": "bfloat16",
        "model__precision": "default",
        "seed": 1,
    }
    before = score_settings(small(**given))
    for name, value in changes.items():
        assert score_settings(small(**given | {name: value})) != before, name
    assert score_settings(small(**given, evaluation__every_steps=7, rollout__slots=3, steps=9)) == before


def make_row(i: int) -> dict:
    values = {"answers": ["a"] * 3, "verdicts": ["correct", "incorrect", "timeout"], "second_verdicts": [None] * 3}
    values |= {"truncated": [False] * 3, "lengths": [1, 2, 3], "logps": [-0.5, -1.5, None]}
    return {"id": f"p{i}", "prompt": PROMPTS.prompts[i], "reference": PROMPTS.answers[i]} | values


ROWS = [make_row(i) for i in range(4)]


@pytest.fixture
def files(tmp_path):
    """`(lines, settings) -> Rows`: what is read of files with these lines and settings."""

    def read(lines, settings=RESULT):
        responses, scores = tmp_path / "test.jsonl", tmp_path / "test.json"
        responses.write_bytes(b"".join(lines))
        if settings is not None:
            scores.write_bytes(settings if isinstance(settings, bytes) else json.dumps(settings).encode())
        return read_rows(responses, scores, RESULT, PROMPTS)

    return read


def encode(rows) -> list[bytes]:
    return [json.dumps(row).encode() + b"\n" for row in rows]


def test_read_rows_of_the_same_evaluation(files, tmp_path):
    assert read_rows(tmp_path / "no.jsonl", tmp_path / "no.json", RESULT, PROMPTS) == ([], "")
    assert files([]) == ([], "")
    assert files(encode(ROWS), RESULT | {"score": {}}) == (ROWS, "")
    assert files([*encode(ROWS), b'{"id": "p4", "pro']) == (ROWS, "")  # it was killed
    assert files(encode(ROWS), RESULT | {"origin": {"step": 4}}) == ([], "")


DAMAGES = {
    "no JSON": b"garbage\n",
    "a list": b"[]\n",
    "cut": encode(ROWS)[2][:50] + b"\n",
    "of another problem": encode([make_row(3)])[0],
    "of an unknown verdict": encode([ROWS[2] | {"verdicts": ["correct", "maybe", "correct"]}])[0],
    **{f"without {name}": encode([{k: v for k, v in ROWS[2].items() if k != name}])[0] for name in ROWS[2]},
    **{f"with a short {name}": encode([ROWS[2] | {name: v[:2]}])[0] for name, v in ROWS[2].items() if len(v) == 3},
    "with a text as length": encode([ROWS[2] | {"lengths": ["1", 2, 3]}])[0],
}
del DAMAGES["without reference"]  # nothing reads it


@pytest.mark.parametrize("damage", DAMAGES)
def test_read_rows_ends_before_a_damaged_row_and_names_it(files, damage):
    lines = encode(ROWS)
    rows, fault = files([*lines[:2], DAMAGES[damage], lines[3]])
    assert rows == ROWS[:2]
    assert "test.jsonl:3 " in fault


def test_read_rows_ends_where_a_row_is_gone_or_one_is_too_many(files):
    rows, fault = files(encode([ROWS[0], ROWS[2], ROWS[3]]))
    assert (rows, "test.jsonl:2 is not about problem 2, 'p1'" in fault) == (ROWS[:1], True)
    whole = [make_row(i) for i in range(COUNT)]
    rows, fault = files(encode([*whole, whole[-1]]))
    assert (rows, "is one more than there are problems" in fault) == (whole, True)


@pytest.mark.parametrize("settings", [None, b"", b"[]", b"\xff", b'{"settings": {}', {"settings": {}}, {}])
def test_read_rows_keeps_none_whose_settings_are_not_known(files, settings):
    rows, fault = files(encode(ROWS), settings)
    assert rows == []
    assert "test.jsonl are not known" in fault
