"""The data of a run: problems by name, hygiene, long prompts, and reference answers that its grader cannot read."""

import json
import random

import pytest

from helpers.experiments import settings, small
from helpers.problem_files import write_problems, write_split_files
from nft_jax.config import default, load
from nft_jax.data.arithmetic import SPLITS, all_problems, split
from nft_jax.data.dataset import (
    cut_validation,
    end_with_answer,
    load_dataset,
    name_set,
    read_problems,
    read_splits,
    unreadable_answers,
)
from nft_jax.data.files import Problem, ProblemSet
from nft_jax.data.generated import GENERATED
from nft_jax.data.prompts import PromptTable
from nft_jax.data.sentencepiece_training import train_sentencepiece
from nft_jax.verify.grade import grade


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NFT_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def files(tmp_path):
    return write_split_files(tmp_path)


def dataset(files, folder, **changes):
    return load_dataset(small(**files_of(files) | changes), folder)


def files_of(files) -> dict[str, str]:
    return {name: value for name, value in files.items() if name != "data__other"}


def test_load_dataset_cleans_training_problems_only(files, tmp_path):
    found = dataset(files, tmp_path)
    assert {name: table.prompts for name, table in found.tables.items()} == {
        "train": ["1+1=", "5+5="],
        "validation": ["2 + 2=", "2+2="],
        "test": ["3+3="],
    }
    more = files["data__exclude"].split(",")[0].strip()
    overlaps = {f"overlap with {files['data__validation']}": 1, f"overlap with {files['data__test']}": 1}
    assert found.hygiene.counts == {"duplicate": 1} | overlaps | {f"overlap with {more}": 1}
    assert "6 training problems: 2 kept, 4 left out" in found.hygiene.table()


def test_load_dataset_without_hygiene(files, tmp_path):
    found = dataset(files, tmp_path, data__hygiene=False, data__exclude="")
    assert (found.hygiene, len(found.tables["train"].prompts)) == (None, 6)


def test_load_dataset_does_not_clean_generated_or_given_problems(files, tmp_path):
    generated = load_dataset(small(data__max_prompt_tokens=64), tmp_path)
    assert generated.hygiene is None
    assert generated.tables["train"].problems == split(all_problems(small().data.arithmetic_max_operand))["train"]
    config = small(**{name: value for name, value in files.items() if name != "data__other"})
    given = load_dataset(config, tmp_path, read_splits(config, ("train",)))
    assert (given.hygiene, len(given.tables["train"].prompts)) == (None, 6)


def test_load_dataset_refuses_a_run_without_problems(files, tmp_path):
    words = r"train.jsonl: no problem is left\n6 training problems: 0 kept, 6 left out\n(.*\n)+give other problems, or "
    with pytest.raises(ValueError, match=words):
        dataset(files, tmp_path, data__exclude=files["data__train"])


def test_load_dataset_names_a_missing_exclude_set(files, tmp_path):
    with pytest.raises(ValueError, match="'math50' is neither an existing file.*did you mean 'math500'"):
        dataset(files, tmp_path, data__exclude="math50")


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [({}, "a file by config.data.train"), ({"data__train": "x", "data__hygiene": False}, "config.data.hygiene=true")],
)
def test_load_refuses_an_exclude_without_effect(changes, remedy):
    with pytest.raises(ValueError, match=f"config.data.exclude='aime24': hygiene alone leaves .* give {remedy}, or"):
        load(settings(data__exclude="aime24", **changes))


def table(answers):
    problems = [Problem("?", answer, id=f"mine.jsonl:{line}") for line, answer in enumerate(answers, start=1)]
    return PromptTable(None, None, answers, [], problems, 0)


def test_unreadable_answers_names_the_first_of_each_table():
    tables = {"train": table(["5", r"\frac{1}{2}", r"\zzz{", "(1, 2)", *[r"1/0"] * 4]), "test": table(["7"])}
    (line,) = unreadable_answers("math", tables)
    assert line.startswith("problems  train: of 8 reference answers 5 can't be read by the grader 'math'")
    assert r"(mine.jsonl:3, '\\zzz{': " in line
    assert "mine.jsonl:6" in line
    assert "mine.jsonl:7" not in line
    assert line.endswith("; …)")
    assert unreadable_answers("boxed_exact", tables) == []


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_load_dataset_refuses_long_prompts_and_names_the_file(tmp_path, split):
    tokenizer = train_sentencepiece(["12345+=sp"], tmp_path / "t.model", symbols=())
    paths = {name: tmp_path / f"{name}.jsonl" for name in ("train", "validation", "test")}
    for name, path in paths.items():
        text = "1+1=" if name != split else "1+1+1+1+1="
        path.write_text(f'{{"problem": "{text}", "answer": "2", "id": "p"}}\n{{"problem": "1=", "answer": "1"}}')
    config = default()
    config.data.update({name: str(path) for name, path in paths.items()})
    config.data.update(tokenizer=str(tokenizer), max_prompt_tokens=8, hygiene=False)
    tables = load_dataset(load(config), tmp_path).tables
    assert {name: table.dropped for name, table in tables.items()} == dict.fromkeys(paths, 0) | {split: 1}
    config.data.long_prompts = "refuse"
    with pytest.raises(ValueError, match=f"{split}.jsonl: 1 of 2 prompts .* the first 'p' with 10, the longest 10"):
        load_dataset(load(config), tmp_path)


def test_read_splits_and_read_problems_by_name(tmp_path):
    for name, problem in (("gsm8k_train", "train"), ("aime24", "test")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"problem": problem, "answer": "1", "question": "x"}))
    config = small(
        data__train="gsm8k_train", data__test="aime24", data__folder=str(tmp_path), data__test_fields="question,answer"
    )
    splits = read_splits(config)
    assert {name: [each.problem for each in part] for name, part in splits.items()} == {
        "train": ["train"],
        "test": ["test"],
    }
    assert [each.problem for each in read_problems(config, str(tmp_path / "aime24.jsonl"))] == ["x"]


def test_load_dataset_ends_answers_with_the_given_ids_alone(files, tmp_path):
    declared = dataset(files, tmp_path).tokenizer.eos_ids
    found = dataset(files, tmp_path, rollout__end_ids=" 3, 2,3")
    assert declared == (1,) and found.tokenizer.eos_ids == (3, 2)
    assert found.tokenizer.decode([5, 1, 6, 3, 7]) == found.tokenizer.decode([5, 1, 6])
    with pytest.raises(ValueError, match="has ids from 0 to [0-9]+, not 151643; by default 1 end an answer"):
        dataset(files, tmp_path, rollout__end_ids="151643")


# Generated sets.


def test_name_set_of_a_generated_set_covers_every_empty_split(tmp_path):
    largest = {"data__arithmetic_max_operand": 3}
    for train in ("", "arithmetic"):
        config = small(data__train=train, **largest)
        assert {split: name_set(config, split) for split in SPLITS} == dict.fromkeys(SPLITS, "arithmetic")
        assert read_splits(config) == split(all_problems(3))
    config = small(data__train="arithmetic", data__test="arithmetic:validation", **largest)
    assert read_splits(config)["test"] == split(all_problems(3))["validation"]
    assert read_problems(config, "arithmetic", "train") == split(all_problems(3))["train"]
    with pytest.raises(ValueError, match="unknown split 'tset' of arithmetic: known are .*did you mean 'test'"):
        read_problems(config, "arithmetic:tset")
    # A set of files lends no other split, and its split may be generated.
    config = small(data__train="mine.jsonl", data__test="arithmetic", **largest)
    assert [name_set(config, each) for each in SPLITS] == ["mine.jsonl", "", "arithmetic"]


@pytest.mark.parametrize("asked", SPLITS)
def test_name_set_refuses_arithmetic_that_nobody_named_for_a_pretrained_model(asked):
    words = f"config.data.{asked} is empty, and the model of config.model.path=FOLDER is pretrained: name its problems"
    with pytest.raises(
        ValueError, match=f"{words}, e.g. --config.data.{asked}=FILE.jsonl, .*gsm8k_train.*arithmetic, word_problems$"
    ):
        read_splits(small(model__path="FOLDER"), (asked,))
    named = small(model__path="FOLDER", data__train="arithmetic", data__arithmetic_max_operand=3)
    assert read_splits(named, (asked,)) == {asked: split(all_problems(3))[asked]}
    assert name_set(small(model__path="FOLDER", data__train="mine.jsonl"), asked) == {"train": "mine.jsonl"}.get(
        asked, ""
    )


@pytest.mark.parametrize("train", ["", "train.jsonl"])
def test_load_dataset_without_a_tokenizer_names_the_setting_that_gives_one(train, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"problem": "1+1=", "answer": "2"}\n')
    config = small(data__train=train and str(tmp_path / train), data__template="chat", data__tokenizer="")
    with pytest.raises(ValueError, match="config.model.path=FOLDER"):
        load_dataset(config, tmp_path)


def test_load_dataset_of_a_generated_set_trains_its_tokenizer_and_refuses_exclude(tmp_path, monkeypatch):
    def count(data):
        return {each: [Problem(f"1+{n}=", str(n + 1), f"\\boxed{{{n + 1}}}") for n in range(9)] for each in SPLITS}

    monkeypatch.setitem(GENERATED, "counting", count)
    named = {"data__train": "counting", "warm_start__steps": 1}
    found = load_dataset(small(**named), tmp_path)
    assert (tmp_path / "tokenizer" / "counting.model").is_file()
    assert {name: table.problems for name, table in found.tables.items()} == count(None)
    # Only the arithmetic has a misconception; other sets warm up on their solutions.
    assert found.tokenizer.decode(found.examples.response_QT[0].tolist()) == "\\boxed{1}"
    with pytest.raises(ValueError, match="config.data.exclude='aime24': generated problems are not cleaned"):
        load_dataset(small(data__exclude="aime24", **named), tmp_path)


@pytest.mark.parametrize(
    ("grader", "solution", "response"),
    [
        ("gsm8k", "3 + 4 = 7", "3 + 4 = 7"),
        ("gsm8k", "7 is 3 + 4", "7 is 3 + 4\n\\boxed{7}"),
        ("gsm8k", "no number", "no number\n\\boxed{7}"),
        ("math", "3 + 4 = 7", "3 + 4 = 7\n\\boxed{7}"),
        ("boxed_exact", "\\boxed{7} it is", "\\boxed{7} it is"),
    ],
)
def test_end_with_answer_adds_a_box_where_the_grader_needs_one(grader, solution, response):
    problem = Problem("3+4=", "7", solution)
    assert end_with_answer(problem, grader) == response
    assert grade(response, problem.answer, grader=grader).status == "correct"


# A system message, and shots.


@pytest.fixture
def shown(files, tmp_path):
    """The settings of prompts that show a system message and the problem `9+9=` with its answer."""
    template = tmp_path / "own.jinja"
    template.write_text("{{ system }}{% for s in shots %}{{ s.problem }}{{ s.response }} {% endfor %}{{ problem }}")
    return {"data__template": str(template), "data__system": "=", "data__shots": files["data__other"]}


def test_load_dataset_shows_the_system_message_and_shots_in_every_prompt(files, shown, tmp_path):
    found = dataset(files, tmp_path, **shown, data__max_prompt_tokens=64)
    assert {name: table.prompts for name, table in found.tables.items()} == {
        "train": ["=9+9=\\boxed{1} 1+1=", "=9+9=\\boxed{1} 5+5="],
        "validation": ["=9+9=\\boxed{1} 2 + 2=", "=9+9=\\boxed{1} 2+2="],
        "test": ["=9+9=\\boxed{1} 3+3="],
    }
    config = small(**files_of(files), **shown, data__max_prompt_tokens=64)
    given = load_dataset(config, tmp_path, {"x": [Problem("7=", "7")]})
    assert given.tables["x"].prompts == ["=9+9=\\boxed{1} 7="]


def test_load_dataset_refuses_shots_that_are_problems_too(files, shown, tmp_path):
    words = "1 of its problems are test problems too \\(the first: 'test0'\\)"
    with pytest.raises(ValueError, match=words):
        dataset(files, tmp_path, **shown | {"data__shots": files["data__test"]}, data__max_prompt_tokens=64)


# A validation split cut from training.


@pytest.mark.parametrize("seed", range(4))
def test_cut_validation_moves_texts_by_seed_and_text_alone(seed):
    draw = random.Random(seed)
    given = [Problem(f"p{draw.randrange(60)}", "1", id=str(i)) for i in range(200)]
    train = ProblemSet(given, "f.jsonl", "GSM8K")
    texts = {each.problem for each in given}
    for size in (0, 1, 2, 99):
        found = cut_validation({"train": train, "test": ProblemSet()}, size, seed)
        count = min(size, len(texts) // 20)
        assert ("validation" in found) == (count > 0)
        if not count:
            continue
        cut = found["validation"]
        assert len(cut) == len({each.problem for each in cut}) == count, f"seed {seed}"
        assert {each.problem for each in cut} | {each.problem for each in found["train"]} == texts
        assert not {each.problem for each in cut} & {each.problem for each in found["train"]}
        assert found["train"].given == len(given) and [*found] == ["train", "validation", "test"]
        assert cut.source == f"f.jsonl, cut from training by seed {seed}"
        other_order = cut_validation({"train": ProblemSet(given[::-1])}, size, seed)["validation"]
        assert {each.problem for each in other_order} == {each.problem for each in cut}


def test_load_dataset_cuts_a_validation_split_and_counts_it(files, tmp_path):
    train = write_problems(tmp_path / "many.jsonl", *(f"{n}+{n}=" for n in range(100, 160)))
    named = {"data__validation": "", "data__exclude": "", "data__train": train}
    found = dataset(files, tmp_path, **named)
    assert {name: len(table.answers) for name, table in found.tables.items()} == {
        "train": 57,
        "validation": 3,
        "test": 1,
    }
    assert found.sets["train"].left_out == {"cut for validation": 3}
    assert found.notes == ()
    without = dataset(files, tmp_path, data__validation_size=0, **named)
    assert {name: len(table.answers) for name, table in without.tables.items()} == {"train": 60, "test": 1}
    other = dataset(files, tmp_path, seed=1, **named)
    assert other.tables["validation"].prompts != found.tables["validation"].prompts
