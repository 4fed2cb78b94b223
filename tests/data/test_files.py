"""Reading problem files: what is read, and errors that name file, line and remedy."""

import decimal
import json
import os
import re
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

from nft_jax.data.fields import Fields
from nft_jax.data.files import Problem, load_problems

# A row in the format of verl's datasets, such as DAPO-Math-17k.
VERL = {
    "data_source": "math_dapo",
    "prompt": [{"content": "Be brief.", "role": "system"}, {"content": "1+1?", "role": "user"}],
    "reward_model": {"ground_truth": "2", "style": "rule"},
    "extra_info": {"index": 7, "levels": [0.5, 1.5]},
}
VERL_FIELDS = Fields("prompt.1.content", "reward_model.ground_truth")
VERL_NAMES = (
    "'data_source', 'prompt.0.content', 'prompt.0.role', 'reward_model.ground_truth', 'reward_model.style', "
    "'extra_info.index', 'extra_info.levels.0'"
)


def write(path, *lines):
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def test_load_problems_fields_numbers_and_defaults(tmp_path):
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


def test_load_problems_with_other_field_names(tmp_path):
    path = write(tmp_path / "q.jsonl", '{"question": "1+1?", "gold": "2", "work": "1 and 1"}')
    loaded = load_problems(path, Fields("question", "gold", "work"))
    assert loaded == [Problem("1+1?", "2", "1 and 1", id="q.jsonl:1")]


GOOD = '{"problem": "p", "answer": "a"}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"question": "p", "answer": "a"}',
            "no field 'problem'; its fields are 'question', 'answer': set config.data.train_fields to",
        ),
        (
            '{"problem": "p", "gold": "a"}',
            "no field 'answer'; its fields are 'problem', 'gold': set config.data.train_fields to",
        ),
        (json.dumps(VERL), f"no field 'problem'; its fields are {VERL_NAMES}: set"),
        ("{}", "its fields are none"),
        ('{"problem": "", "answer": "a"}', "field 'problem' is empty"),
        (
            '{"problem": "p", "answer": ["a"]}',
            "field 'answer' is ['a'], neither text nor a number; it has the fields 'answer.0'",
        ),
        ('{"problem": "p", "answer": []}', "field 'answer' is [], neither text nor a number"),
        ('{"problem": "p", "answer": true}', "field 'answer' is True, neither text nor a number"),
        ('{"problem": "p", "answer": NaN}', "field 'answer' is nan, neither text nor a number"),
        ('{"problem": "\\ud835", "answer": "a"}', "field 'problem' holds half of a surrogate pair"),
        ('{"problem": "p", ', "not JSON (Expecting property name"),
        ("problem,answer", "not JSON (Expecting value at column 1): 'problem,answer'"),
        ('{"problem": "p", "answer": "1", "answer": "2"}', "it gives 'answer' twice in one object"),
        ('["p", "a"]', "a JSON list, not an object"),
        ('[{"problem": "p", "answer": "a"}]', "a JSON list, not an object"),
        ("[", "a JSONL file has one whole object on each line"),
        (b'{"problem": "caf\xe9", "answer": "a"}', "not UTF-8 (byte 0xe9 at column 17)"),
    ],
)
def test_load_problems_names_a_bad_line(tmp_path, line, message):
    path = write(tmp_path / "bad.jsonl", GOOD, "", line, GOOD)
    with pytest.raises(ValueError, match=re.escape(f"{path}:3: ") + ".*" + re.escape(message)):
        load_problems(path)


def test_load_problems_of_files_without_problems(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.jsonl does not exist; give a JSONL, JSON, CSV or Parquet file"):
        load_problems(tmp_path / "none.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(FileNotFoundError, match="pipe.jsonl is no file on a disk; give a JSONL"):
        load_problems(tmp_path / "pipe.jsonl")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        load_problems(tmp_path)
    with pytest.raises(ValueError, match="holds no problems"):
        load_problems(write(tmp_path / "empty.jsonl", "", " "))
    with pytest.raises(ValueError, match="p.parquet is no readable Parquet file"):
        load_problems(write(tmp_path / "p.parquet", b"PAR1"))
    with pytest.raises(ValueError, match="holds no problems: it has no record"):
        load_problems(as_parquet(tmp_path, pyarrow.table({"problem": [], "answer": []})))


# Nested fields, in both formats.


def as_jsonl(folder, rows):
    return write(folder / "rows.jsonl", *map(json.dumps, rows))


def as_parquet(folder, rows, **options):
    table = rows if isinstance(rows, pyarrow.Table) else pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / "rows.parquet", **options)
    return folder / "rows.parquet"


FORMATS = pytest.mark.parametrize(("write_rows", "place"), [(as_jsonl, ":"), (as_parquet, ": row ")])


@FORMATS
def test_load_problems_dotted_name_reaches_into_objects_and_lists(tmp_path, write_rows, place):
    path = write_rows(
        tmp_path,
        [
            VERL,
            VERL
            | {
                "prompt": [*VERL["prompt"][:1], {"content": "2+2?", "role": "user"}],
                "extra_info": {"index": 8, "levels": []},
            },
        ],
    )
    loaded = load_problems(path, VERL_FIELDS._replace(solution="extra_info.levels.0"))
    assert [problem[:3] for problem in loaded] == [("1+1?", "2", "0.5"), ("2+2?", "2", "")]
    assert load_problems(path, VERL_FIELDS._replace(answer="extra_info.index"))[1].answer == "8"


@FORMATS
def test_load_problems_prefers_a_name_with_a_dot(tmp_path, write_rows, place):
    row = {"a": {"b": "deep", "c.d": "x"}, "a.b": "literal", "problem": "p"}
    path = write_rows(tmp_path, [row])
    assert load_problems(path, Fields(answer="a.b"))[0].answer == "literal"
    assert load_problems(path, Fields(answer="a.c.d"))[0].answer == "x"


@FORMATS
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (Fields(), f"1: no field 'problem', which config.data.train_fields names; its fields are {VERL_NAMES}"),
        (
            VERL_FIELDS._replace(problem="prompt.2.content"),
            "1: no field 'prompt.2.content', which config.data.train_fields names; its",
        ),
        (VERL_FIELDS._replace(problem="prompt.x"), "1: no field 'prompt.x'"),
        (VERL_FIELDS._replace(problem="data_source.0"), "1: no field 'data_source.0'"),
        (
            VERL_FIELDS._replace(answer="reward_model.gold"),
            f"1: no field 'reward_model.gold', which config.data.train_fields names; its fields are {VERL_NAMES}",
        ),
        (VERL_FIELDS._replace(problem="extra_info.levels"), "it has the fields 'extra_info.levels.0'"),
        (VERL_FIELDS, "3: no field 'reward_model.ground_truth'; its fields are"),
    ],
)
def test_load_problems_names_all_fields_if_a_nested_one_is_missing(tmp_path, write_rows, place, fields, message):
    path = write_rows(tmp_path, [VERL, VERL, VERL | {"reward_model": None}])
    with pytest.raises(ValueError, match=re.escape(f"{path}{place}") + ".*" + re.escape(message)):
        load_problems(path, fields)


# Parquet.


def test_load_problems_of_parquet_equals_jsonl(tmp_path):
    rows = [
        {"problem": f"p{i} \u2028 {{x}} 数学", "answer": i - 2, "id": i, "kind": None, "solution": "s" * (i % 3)}
        for i in range(300)
    ] + [{"problem": "only these", "answer": 10**15}]
    loaded = load_problems(as_parquet(tmp_path, rows, row_group_size=64))
    assert loaded[:300] == load_problems(as_jsonl(tmp_path, rows))[:300]
    assert loaded[300] == Problem("only these", str(10**15), id="rows.parquet:301")


def test_load_problems_of_real_problems_in_both_formats(tmp_path, data_folder):
    for name in ("math500", "dapo_math_17k"):
        path = data_folder / "problems" / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
        assert load_problems(as_parquet(tmp_path, rows)) == load_problems(path)


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pyarrow.array([5, -7], pyarrow.int8()), ["5", "-7"]),
        (pyarrow.array([0.5, 72.0, 1e-7, 1e22]), ["0.5", "72", "1e-07", "1e+22"]),
        (pyarrow.array([0.1, -3, 1e-7], pyarrow.float32()), ["0.1", "-3", "1e-07"]),
        (pyarrow.array([decimal.Decimal("1.50"), decimal.Decimal("-20.00")]), ["1.50", "-20.00"]),
        (pyarrow.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pyarrow.array(["a"], pyarrow.large_string()), ["a"]),
    ],
)
def test_load_problems_writes_numbers_as_a_person_would(tmp_path, column, texts):
    table = pyarrow.table({"problem": [f"p{i}" for i in range(len(texts))], "answer": column})
    assert [problem.answer for problem in load_problems(as_parquet(tmp_path, table))] == texts


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([True, False], "1: field 'answer' is True, neither text nor a number"),
        ([1.5, float("nan")], "2: field 'answer' is nan, neither text nor a number"),
        ([float("inf"), 1], "1: field 'answer' is inf, neither text nor a number"),
        ([b"a", b"b"], "1: field 'answer' is b'a', neither text nor a number"),
    ],
)
def test_load_problems_names_a_bad_row(tmp_path, column, message):
    path = as_parquet(tmp_path, pyarrow.table({"problem": ["p", "q"], "answer": column}))
    with pytest.raises(ValueError, match=re.escape(f"{path}: row {message}")):
        load_problems(path)


def test_load_problems_reads_only_the_needed_columns(tmp_path, monkeypatch):
    read = []

    class Watched(pyarrow.parquet.ParquetFile):
        def iter_batches(self, **options):
            for batch in super().iter_batches(**options):
                read.extend(batch.schema.names)
                yield batch

    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", Watched)
    load_problems(as_parquet(tmp_path, [VERL | {"id": "x", "big": "y" * 1000}]), VERL_FIELDS)
    # The first row is read whole, to know the layout.
    assert sorted(read) == sorted(["id", "prompt", "reward_model", *VERL, "id", "big"])


def test_load_problems_names_a_damaged_parquet_file(tmp_path):
    path = as_parquet(tmp_path, [{"problem": f"p{i}", "answer": "a"} for i in range(1000)], compression="zstd")
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="rows.parquet is no readable Parquet file"):
        load_problems(path)
    latin = pyarrow.array([b"caf\xe9"]).view(pyarrow.string())
    with pytest.raises(ValueError, match="rows.parquet is no readable Parquet file: .* can't decode byte 0xe9"):
        load_problems(as_parquet(tmp_path, pyarrow.table({"problem": latin, "answer": ["a"]})))


def test_files_imports_pyarrow_only_for_parquet():
    code = "import sys, nft_jax.data.files; assert 'pyarrow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("written", "answer", "solution"),
    [
        ("6 * 7 = <<6*7=42>>42\n#### 42", "42", "6 * 7 = <<6*7=42>>42"),
        ("a\nb\n#### 1,234,000 ", "1234000", "a\nb"),
        ("#### 5", "#### 5", ""),
        ("x\n####", "x\n####", ""),
        ("x\n#### a\nb", "x\n#### a\nb", ""),
        ("(1, 2)", "(1, 2)", ""),
    ],
)
def test_load_problems_takes_the_last_line_of_a_gsm8k_answer(tmp_path, written, answer, solution):
    path = tmp_path / "raw.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": written}) + "\n")
    (problem,) = load_problems(path, Fields("question"))
    assert (problem.answer, problem.solution) == (answer, solution)
