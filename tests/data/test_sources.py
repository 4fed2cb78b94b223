"""Reading problems: what is kept, and errors that name file, line and remedy."""

import json
import re

import pytest

from nft_jax.data.sources import Problem, load_problems


def write(path, *lines):
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def test_fields_numbers_and_defaults(tmp_path):
    path = write(
        tmp_path / "some.jsonl",
        '\ufeff{"problem": "1+1?", "answer": 2}',
        "",
        '{"problem": "half?", "answer": 1.50, "solution": "s", "kind": "k", "id": 7, "level": 3}',
        json.dumps({"problem": "a\u2028b {x}", "answer": "–"}, ensure_ascii=False),
        "  ",
    )
    assert load_problems(path) == [
        Problem("1+1?", "2", id="some.jsonl:1"),
        Problem("half?", "1.50", "s", "k", "7"),
        Problem("a\u2028b {x}", "–", id="some.jsonl:4"),
    ]
    assert load_problems(str(path))[0].answer == "2"


def test_field_names_are_free(tmp_path):
    path = write(tmp_path / "q.jsonl", '{"question": "1+1?", "gold": "2", "work": "1 and 1"}')
    loaded = load_problems(path, problem_field="question", answer_field="gold", solution_field="work")
    assert loaded == [Problem("1+1?", "2", "1 and 1", id="q.jsonl:1")]


GOOD = '{"problem": "p", "answer": "a"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"question": "p", "answer": "a"}',
            "no field 'problem'; its fields are 'question', 'answer': set problem_fie",
        ),
        ('{"problem": "p", "gold": "a"}', "no field 'answer'; its fields are 'problem', 'gold': set answer_field"),
        ("{}", "its fields are none"),
        ('{"problem": "p", "answer": " "}', "field 'answer' is empty"),
        ('{"problem": "", "answer": "a"}', "field 'problem' is empty"),
        ('{"problem": "p", "answer": ["a"]}', "field 'answer' is ['a'], neither text nor a number"),
        ('{"problem": "p", "answer": null}', "field 'answer' is None, neither text nor a number"),
        ('{"problem": "p", "answer": true}', "field 'answer' is True, neither text nor a number"),
        ('{"problem": "p", "answer": NaN}', "field 'answer' is nan, neither text nor a number"),
        ('{"problem": "\\ud835", "answer": "a"}', "field 'problem' holds half of a surrogate pair"),
        ('{"problem": "p", ', "not JSON (Expecting property name"),
        ("problem,answer", "not JSON (Expecting value at column 1): 'problem,answer'"),
        ('["p", "a"]', "a JSON list, not an object"),
        (b'{"problem": "caf\xe9", "answer": "a"}', "not UTF-8 (byte 0xe9 at column 17)"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = write(tmp_path / "bad.jsonl", GOOD, "", line, GOOD)
    with pytest.raises(ValueError, match=re.escape(f"{path}:3: ") + ".*" + re.escape(message)):
        load_problems(path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.jsonl does not exist; give a JSONL file"):
        load_problems(tmp_path / "none.jsonl")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_problems(tmp_path)
    with pytest.raises(ValueError, match="holds no problems"):
        load_problems(write(tmp_path / "empty.jsonl", "", " "))
    with pytest.raises(ValueError, match="is Parquet"):
        load_problems(write(tmp_path / "p.parquet", b"PAR1"))
