"""Problems by name: where each name is read from, with which fields, and the errors for unknown names."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from nft_jax.data.benchmarks import SOURCES, read
from nft_jax.data.fields import Fields
from nft_jax.data.files import Problem
from nft_jax.data.prompts import TEMPLATES

# The published number of problems of each source; see the test on real files.
SIZES = {
    **{"math_train": 7498, "gsm8k_train": 7473, "aime24": 30, "aime25": 30, "amc23": 40, "math500": 500},
    **{"olympiadbench": 675, "minerva_math": 272, "gsm8k_test": 1319, "dapo_math_17k": 17255},
}


def write(path: Path, *rows: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(text: str, **more) -> dict:
    return {"problem": text, "answer": "1"} | more


def texts(problems: list[Problem]) -> list[str]:
    return [problem.problem for problem in problems]


class Hub:
    """Replaces the package `datasets`: rows by (dataset, subset, split); records its calls in `asked`."""

    def __init__(self, rows: dict):
        self.rows, self.asked = rows, []

    def get_dataset_config_names(self, dataset):
        return [name for place, name, _ in self.rows if place == dataset]

    def load_dataset(self, dataset, subset=None, *, split=None):
        self.asked.append((dataset, subset, split))
        splits = {s: rows for (d, n, s), rows in self.rows.items() if (d, n) == (dataset, subset)}
        if not splits:
            raise ConnectionError(f"no {dataset}")
        return splits if split is None else splits[split]


@pytest.fixture
def hub(monkeypatch):
    def give(rows):
        found = Hub(rows)
        monkeypatch.setitem(sys.modules, "datasets", found)
        return found

    return give


@pytest.fixture
def no_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)


# Files.


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_read_finds_a_file_of_the_root(tmp_path, kind):
    write(tmp_path / f"math500.{kind}", row("p", question="q"))
    write(tmp_path / f"other.{kind}", row("p", question="q"))
    for name in ("math500", "other"):
        assert texts(read(name, root=str(tmp_path))) == ["p"]
    # The fields of the config apply to files that are not in `SOURCES`.
    asked = {"root": str(tmp_path), "fields": Fields("question")}
    assert (texts(read("math500", **asked)), texts(read("other", **asked))) == (["p"], ["q"])
    assert texts(read(str(tmp_path / f"math500.{kind}"), fields=Fields("question", "answer"))) == ["q"]


def test_read_prefers_an_existing_path(tmp_path, monkeypatch):
    root = tmp_path / "root"
    write(root / "math500.jsonl", row("of the root"))
    monkeypatch.chdir(tmp_path)
    assert texts(read("math500", root=str(root))) == ["of the root"]
    write(tmp_path / "math500", row("here"))
    assert texts(read("math500", root=str(root))) == ["here"]
    write(tmp_path / "owner" / "name" / "train.jsonl", row("in a folder"))
    assert texts(read("owner/name")) == texts(read("owner/name:train")) == ["in a folder"]


def test_read_of_a_folder_by_split_in_order(tmp_path):
    for shard in (1, 0):
        rows = [row(f"{shard}.{i}") for i in range(2)]
        write(tmp_path / "sharded" / "data" / f"train-0000{shard}-of-00002.parquet", *rows)
    assert texts(read(str(tmp_path / "sharded"))) == ["0.0", "0.1", "1.0", "1.1"]
    write(tmp_path / "sharded" / "data" / "test-00000-of-00001.parquet", row("test"))
    write(tmp_path / "sharded" / "README.md", {})
    assert texts(read(f"{tmp_path}/sharded:test")) == ["test"]
    assert texts(read(f"{tmp_path}/sharded:train")) == ["0.0", "0.1", "1.0", "1.1"]
    for i in (1, 0):
        write(tmp_path / "numbered" / "train" / f"000{i}.parquet", row(str(i)))
    write(tmp_path / "numbered" / "test.jsonl", row("test"))
    assert texts(read(f"{tmp_path}/numbered:train")) == ["0", "1"]
    assert texts(read(f"{tmp_path}/numbered:test")) == ["test"]


def test_read_refuses_an_ambiguous_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder without any .jsonl, .json, .parquet, .csv, .tsv file"):
        read(str(tmp_path))
    for subset in ("main", "socratic"):
        write(tmp_path / subset / "train.parquet", row(subset))
    with pytest.raises(
        ValueError, match=r"split 'train' in several folders; use one of .*/main:train, .*/socratic:train$"
    ):
        read(str(tmp_path))
    write(tmp_path / "main" / "test.parquet", row("test"))
    with pytest.raises(ValueError, match=r"has several splits; use one of (.*)/main:test, \1/main:train$"):
        read(str(tmp_path / "main"))
    with pytest.raises(ValueError, match="has no split 'validation'; use one of .*:test, .*:train"):
        read(f"{tmp_path}/main:validation")


def test_read_of_real_files_by_name(data_folder):
    root = str(data_folder / "problems")
    assert {name: len(read(name, root=root)) for name in SOURCES} == SIZES
    assert len(read("svamp", root=root)) == 1000


# The hub.


def test_sources_are_all_tested():
    assert set(SIZES) == set(SOURCES)


def wrapped(text: str) -> list[dict]:
    return [{"role": "user", "content": TEMPLATES["dapo"].replace("{problem}", text)}]


# A row of each dataset, and the problem that it becomes.
MATH = {"problem": "p", "solution": "s", "answer": "a"}
GSM8K = {"question": "p", "answer": "1+1=<<1+1=2>>2\n#### 2"}
PUBLISHED = {
    "dapo_math_17k": (
        ("BytedTsinghua-SIA/DAPO-Math-17k", None, "train"),
        {"prompt": wrapped("p"), "reward_model": {"ground_truth": "a", "style": "rule"}, "extra_info": {"index": "x"}},
        ("p", "a", ""),
    ),
    "math_train": (
        ("DigitalLearningGmbH/MATH-lighteval", None, "train"),
        {"problem": "p", "solution": "so $\\boxed{\\frac{1}{2}}$", "level": "Level 1"},
        ("p", "\\frac{1}{2}", "so $\\boxed{\\frac{1}{2}}$"),
    ),
    "gsm8k_train": (("openai/gsm8k", "main", "train"), GSM8K, ("p", "2", "1+1=<<1+1=2>>2")),
    "gsm8k_test": (("openai/gsm8k", "main", "test"), GSM8K, ("p", "2", "1+1=<<1+1=2>>2")),
    "aime24": (("HuggingFaceH4/aime_2024", None, "train"), MATH | {"id": 60}, ("p", "a", "s")),
    "aime25": (("math-ai/aime25", None, "test"), {"problem": "p", "answer": "70", "id": "0"}, ("p", "70", "")),
    "amc23": (("math-ai/amc23", None, "test"), {"id": 0, "question": "p", "answer": 27.0}, ("p", "27", "")),
    "math500": (("HuggingFaceH4/MATH-500", None, "test"), MATH, ("p", "a", "s")),
    "olympiadbench": (
        ("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train"),
        {"question": "p", "final_answer": ["a"], "solution": ["s", "t"]},
        ("p", "a", "s"),
    ),
    "minerva_math": (("math-ai/minervamath", None, "test"), {"question": "p", "answer": "a"}, ("p", "a", "")),
}


@pytest.mark.parametrize("name", SOURCES)
def test_read_of_a_source_uses_its_fields(hub, name):
    place, record, found = PUBLISHED[name]
    asked = hub({place: [record]})
    (problem,) = read(name, fields=Fields("other", "other", "other"))
    assert problem[:3] == found
    assert problem.id == str(record.get("id", f"{name}:1"))
    assert asked.asked == [place]


def test_read_leaves_out_repeated_rows_and_counts_them(hub):
    place, record, _ = PUBLISHED["dapo_math_17k"]
    other = record | {"reward_model": {"ground_truth": "b"}}
    bare = record | {"prompt": [{"role": "user", "content": "bare"}]}
    hub({place: [record, other, bare] * 3})
    found = read("dapo_math_17k")
    assert [problem[:2] for problem in found] == [("p", "a"), ("p", "b"), ("bare", "a")]
    assert [problem.id for problem in found] == [f"dapo_math_17k:{i}" for i in (1, 2, 3)]
    assert found.left_out == {"repeats another row": 6}
    assert len(read("dapo_math_17k", once=False)) == 9


def test_read_leaves_out_rows_without_a_boxed_answer(hub):
    place, record, _ = PUBLISHED["math_train"]
    solutions = ["\\boxed{}", "no box", "\\boxed{1} or \\boxed{2}", "\\boxed{1"]
    hub({place: [record | {"solution": text} for text in solutions]})
    assert [(problem.answer, problem.id) for problem in read("math_train")] == [("2", "math_train:3")]
    assert read("math_train").left_out == {"no answer": 3}


def test_read_of_any_hub_dataset_uses_the_given_fields(hub):
    rows = {
        ("own-er/na.me", None, "train"): [{"q": "1"}, {"q": "2"}],
        ("own-er/na.me", "sub_set", "test"): [{"q": "3"}],
    }
    asked = hub({place: [each | {"answer": "a"} for each in part] for place, part in rows.items()})
    assert texts(read("own-er/na.me:train", fields=Fields("q", "answer"))) == ["1", "2"]
    assert texts(read("own-er/na.me", fields=Fields("q", "answer"))) == ["1", "2"]
    assert [problem.id for problem in read("own-er/na.me/sub_set:test", fields=Fields("q", "answer"))] == [
        "own-er/na.me/sub_set:test:1"
    ]
    assert asked.asked == [
        ("own-er/na.me", None, "train"),
        ("own-er/na.me", None, None),
        ("own-er/na.me", "sub_set", "test"),
    ]
    with pytest.raises(
        ValueError,
        match="own-er/na.me: row 1: its fields are 'q', 'answer', and this is no layout .*config.data.train_fields=",
    ):
        read("own-er/na.me")


def test_read_needs_a_split_if_there_are_several(hub):
    hub({("o/n", None, split): [row("p")] for split in ("train", "test")})
    with pytest.raises(ValueError, match="o/n has several splits; use one of o/n:train, o/n:test"):
        read("o/n")


def test_read_names_a_dataset_that_cannot_be_loaded(hub):
    hub({})
    with pytest.raises(
        ValueError, match="aime24: HuggingFaceH4/aime_2024 can't be loaded from the .* hub: no HuggingFaceH4"
    ):
        read("aime24")


@pytest.mark.parametrize(
    ("name", "dataset", "folder"),
    [
        ("gsm8k_train", "openai/gsm8k", "gsm8k/main:train"),
        ("aime25", "math-ai/aime25", "aime25:test"),
        ("owner/name:train", "owner/name", "name:train"),
        ("files/nowhere", "files/nowhere", "nowhere"),
    ],
)
def test_read_without_the_datasets_package_names_remedies_that_work(
    no_datasets, name, dataset, folder, tmp_path, monkeypatch
):
    words = (
        f"{name}: no such file or folder. .*pip install datasets; .*hf download {dataset} --repo-type=dataset "
        f"--local-dir={Path(dataset).name}\\) and name a folder of it in place of {name}: {folder}$"
    )
    with pytest.raises(ValueError, match=words):
        read(name)
    # As the hub lays the files out.
    monkeypatch.chdir(tmp_path)
    place, _, split = folder.partition(":")
    write(tmp_path / place / f"{split or 'train'}-00000-of-00001.parquet", row("downloaded"))
    assert texts(read(folder)) == ["downloaded"]


def test_read_with_a_root_never_asks_the_hub_for_a_known_name(hub, tmp_path):
    asked = hub({PUBLISHED["aime24"][0]: [PUBLISHED["aime24"][1]]})
    write(tmp_path / "math500.jsonl", row("p"))
    words = (
        f"config.data.folder={tmp_path} has no file aime24.jsonl, .parquet, …; its files are: math500.jsonl; without"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(words)):
        read("aime24", root=str(tmp_path))
    assert asked.asked == []


# Unknown names.


@pytest.mark.parametrize(
    ("name", "near"),
    [("gsm8k-tset", "gsm8k_test"), ("MATH-500", "math500"), ("aime2024", "aime24"), ("minerva", "minerva_math")],
)
def test_read_of_an_unknown_name_suggests_the_nearest(name, near):
    with pytest.raises(ValueError) as caught:
        read(name)
    assert f"{name!r} is neither an existing file or folder nor a known set of problems; use one of" in str(
        caught.value
    )
    assert str(caught.value).endswith(f"; did you mean {near!r}?")
    assert all(known in str(caught.value) for known in (*SOURCES, "OWNER/NAME:SPLIT"))


def test_read_of_a_name_that_resembles_nothing(tmp_path):
    for name in ("zzzz", "/nowhere", "./nowhere", "a/b/c/d"):
        with pytest.raises(ValueError, match="nor a known set of problems; use one of"):
            read(name)
    for name in ("nowhere.jsonl", "a/nowhere.parquet", str(tmp_path / "math500.jsonl")):
        with pytest.raises(
            FileNotFoundError, match=f"{re.escape(name)} does not exist; give a JSONL, JSON, CSV or Parquet file"
        ):
            read(name, root=str(tmp_path))


def test_benchmarks_imports_neither_datasets_nor_pyarrow_nor_jax():
    code = "import sys, nft_jax.data.benchmarks; assert not {'datasets', 'pyarrow', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_read_of_a_dataset_with_subsets_lists_names_that_work(hub):
    hub({("openai/gsm8k", subset, "train"): [GSM8K] for subset in ("main", "socratic")})
    words = "openai/gsm8k:train has several subsets; use one of (openai/gsm8k/main:train), openai/gsm8k/socratic:train$"
    with pytest.raises(ValueError, match=words) as caught:
        read("openai/gsm8k:train")
    name = re.search(words, str(caught.value))[1]
    assert texts(read(name)) == ["p"]
