"""Layouts of public problem files are recognized by the fields of a record, and other files name theirs."""

import json
import random

import pytest

from nft_jax.data.fields import Fields, parse_fields
from nft_jax.data.files import load_problems
from nft_jax.data.schemas import NAMES, SCHEMAS, find_schema

PLAIN = {"problem": "p", "answer": "7", "solution": "s"}
USER = {"role": "user", "content": "p"}
# A record of each layout, and its problem, answer and solution.
RECORDS = {
    "OpenR1": (PLAIN | {"generations": ["g"], "problem_type": "Algebra", "uuid": "u", "source": "x"}, "p7s"),
    "NuminaMath 1.5": (PLAIN | {"problem_is_valid": "Yes", "question_type": "MCQ", "problem_type": "x"}, "p7s"),
    "NuminaMath": ({"problem": "p", "solution": "\\boxed{7}", "messages": [USER], "source": "x"}, "p7\\boxed{7}"),
    "Big-Math": ({"problem": "p", "answer": "7", "domain": ["x"], "llama8b_solve_rate": 0.5}, "p7"),
    "MATH-500": (PLAIN | {"unique_id": "u", "subject": "x", "level": 1}, "p7s"),
    "AIME": (PLAIN | {"year": "2024", "url": "u", "id": 3}, "p7s"),
    "verl": ({"prompt": [USER], "reward_model": {"ground_truth": "7"}, "data_source": "x"}, "p7"),
    "GSM8K": ({"question": "p", "answer": "s\n#### 7"}, "p7s"),
    "OlympiadBench": ({"question": "p", "final_answer": ["7"], "solution": ["s"]}, "p7s"),
    "SVAMP": ({"question_concat": "p", "Answer": "7", "Body": "x", "Question": "y"}, "p7"),
    "problem/answer": (PLAIN, "p7s"),
    "question/answer": ({"question": "p", "answer": "7"}, "p7"),
    "prompt/answer": ({"prompt": [USER], "answer": "7"}, "p7"),
    "prompt/ground_truth": ({"prompt": "p", "ground_truth": "7"}, "p7"),
    "MATH": ({"problem": "p", "solution": "\\boxed{7}", "level": "5", "type": "x"}, "p7\\boxed{7}"),
}
OTHERS = [
    ("AIME", {"ID": "2024-I-1", "Problem": "p", "Answer": 7, "Solution": "s"}),
    ("AIME", {"ID": "1", "Year": 1983, "Problem Number": 1, "Question": "p", "Answer": "7"}),
]


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_schemas_are_all_tested():
    assert set(NAMES) == set(RECORDS)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", NAMES)
def test_find_schema_of_each_layout_in_any_order_of_fields(tmp_path, name, seed):
    record, found = RECORDS[name]
    fields = list(record.items())
    random.Random(seed).shuffle(fields)
    problems = load_problems(write(tmp_path / "f.jsonl", dict(fields)))
    assert problems.layout.startswith(f"{name}: problem "), f"seed {seed}"
    assert "".join(problems[0][:3]) == found


@pytest.mark.parametrize(("name", "record"), OTHERS)
def test_find_schema_of_other_files_of_a_layout(tmp_path, name, record):
    (problem,) = found = load_problems(write(tmp_path / "f.jsonl", record))
    assert (found.layout.partition(":")[0], problem.problem, problem.answer) == (name, "p", "7")


def test_find_schema_of_an_unknown_layout_says_what_to_type(tmp_path):
    path = write(tmp_path / "f.jsonl", {"task": {"text": "p"}, "gold": 7})
    with pytest.raises(ValueError) as caught:
        load_problems(path, setting="config.data.test_fields")
    message = str(caught.value)
    assert "its fields are 'task.text', 'gold', and this is no layout that is known (OpenR1, " in message
    assert "--config.data.test_fields=PROBLEM,ANSWER, or PROBLEM,ANSWER,SOLUTION" in message
    fields = parse_fields("task.text, gold", "config.data.test_fields")
    assert [(each.problem, each.answer) for each in load_problems(path, fields)] == [("p", "7")]
    assert find_schema({"a": 1, "b": 2}, Fields("a", "b", ""), "", "").name == "chosen fields"
    assert all(len(schema.fields) == 3 for schema in SCHEMAS)


@pytest.mark.parametrize("text", ["a", "a,b,c,d", "a,,c", ",b"])
def test_parse_fields_refuses_other_numbers_of_names(text):
    with pytest.raises(ValueError, match="config.data.train_fields=.*comma between them"):
        parse_fields(text, "config.data.train_fields")
    assert parse_fields(" ", "x") is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("none", ["proof", "notfound", "", None])
def test_load_problems_counts_rows_without_an_answer_and_repeats(tmp_path, name, none):
    record, _ = RECORDS[name]
    text = json.dumps(record)
    mark = '"\\\\boxed{7}"' if "boxed" in text else '"s\\n#### 7"' if "####" in text else '"7"'
    assert mark in text
    boxed = {"proof": '"\\\\boxed{proof}"', "notfound": '"\\\\boxed{notfound}"', "": '"no box"', None: '"\\\\boxed{"'}
    without = json.loads(text.replace(mark, boxed[none] if "boxed" in mark else json.dumps(none)))
    found = load_problems(write(tmp_path / "f.jsonl", record, without, record, record, without))
    assert (len(found), found.left_out, found.given) == (1, {"no answer": 2, "repeats another row": 2}, 5)
    assert "of 5 left out: 2 no answer, 2 repeats another row" in found.describe()
    assert len(load_problems(tmp_path / "f.jsonl", once=False)) == 3


def test_load_problems_refuses_a_file_without_any_answer(tmp_path):
    path = write(tmp_path / "f.jsonl", PLAIN | {"answer": "proof"}, PLAIN | {"answer": "NotFound"})
    with pytest.raises(ValueError, match="none of 2 records has an answer .problem.answer: .*train_fields=PROBLEM"):
        load_problems(path)


def test_load_problems_keeps_the_messages_before_a_problem(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    shot = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]
    chat = {"prompt": [system, *shot, USER], "answer": "7"}
    (problem,) = load_problems(write(tmp_path / "f.jsonl", chat))
    assert problem.problem == "p"
    assert problem.messages == (("system", "Be brief."), ("user", "1+1"), ("assistant", "2"))
    with pytest.raises(ValueError, match="the last message of 'prompt' is by 'assistant'; it must be the user's"):
        load_problems(write(tmp_path / "f.jsonl", {"prompt": [USER, shot[1]], "answer": "7"}))
    parts = [{"role": "user", "content": [{"type": "image"}]}]
    with pytest.raises(ValueError, match="'prompt.0.content' is .*neither text nor a number"):
        load_problems(write(tmp_path / "f.jsonl", {"prompt": parts, "answer": "7"}))
