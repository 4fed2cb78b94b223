"""Whole runs: warm start, steps, evaluation and files, interrupted and resumed."""

import contextlib
import io
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from helpers.experiments import (
    OPTIMIZER_METRICS,
    STEP_METRICS,
    assert_same,
    compilations,
    grader,
    settings,
    small,
    write_graders,
)
from helpers.runs import MEASURED, Around, Ran, run, untimed
from nft_jax import sft, train
from nft_jax.config import load, to_dict

RUN = {
    "warm_start__steps": 3,
    "warm_start__examples_per_update": 8,
    "warm_start__arithmetic_examples": 64,
    "evaluation__max_problems": 6,
    "evaluation__problems_per_batch": 4,
    "evaluation__answers_per_problem": 2,
    "record__rollouts_every_steps": 2,
    "selection__carry": True,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_graders(tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def first(folder):
    """Two steps from a warm start."""
    return run(small(steps=2, verify__grader=grader("coin"), **RUN), folder / "run", folder / "first")


@pytest.fixture(scope="module")
def late(folder, first):
    """The same folder, resumed to four steps, the last of which compiles something; and the output on stderr."""

    def compile_late(number, state):
        if number == 2:
            jax.jit(lambda x: x + 1)(np.ones(7, np.float32))
        return state

    def compile_step(*arguments):
        return Around(train_compile_step(*arguments), compile_late)

    printed, train_compile_step = io.StringIO(), train.compile_step
    with contextlib.redirect_stderr(printed):
        config = small(steps=4, verify__grader=grader("coin"), **RUN)
        return run(config, folder / "run", folder / "resumed", compile_step=compile_step), printed.getvalue()


@pytest.fixture(scope="module")
def resumed(late):
    """The same folder, resumed to four steps."""
    return late[0]


@pytest.fixture(scope="module")
def straight_config(folder):
    base = {
        "base": str(folder / "run" / "warm_start"),
        "record__checkpoint_every_steps": 2,
        "evaluation__every_steps": 2,
    }
    return small(steps=4, verify__grader=grader("coin"), **RUN | base)


@pytest.fixture(scope="module")
def straight(folder, first, straight_config):
    """Four steps at once, from the first run's warm start."""
    return run(straight_config, folder / "straight", folder / "straight once")


@pytest.fixture(scope="module")
def again(folder, straight, straight_config):
    """The finished run, started again."""
    refuse = {name: lambda *_: pytest.fail("nothing is compiled") for name in ("compile_step", "make_evaluator")}
    return run(straight_config, folder / "straight", folder / "straight again", **refuse)


# The files of a run.


def test_main_leaves_the_documented_files(first):
    assert {path.name for path in first.path.iterdir()} == {
        *("config.json", "run.json", "metrics.jsonl", "evaluation.jsonl", "result.json", "curves.png"),
        *(
            "report.html",
            "held_out",
            "rollouts",
            "checkpoints",
            "warm_start",
            "tokenizer",
            "model",
            "tensorboard",
            "base_answers.npz",
            "best.json",
            "fingerprint.json",
        ),
    }
    config = first.json("config.json")
    assert config == json.loads(json.dumps(to_dict(small(steps=2, verify__grader=grader("coin"), **RUN))))
    assert first.json("run.json")["seed"] == 0
    assert (first.path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (first.path / "warm_start").iterdir()} == {
        *("weights", "metrics.jsonl", "config.json", "run.json", "fingerprint.json", "tensorboard", "curves.png"),
    }
    warm = Ran(first.path / "warm_start").rows("metrics.jsonl")
    assert [row["step"] for row in warm] == [1, 2, 3]


def test_main_writes_all_step_metrics(first):
    rows = first.rows("metrics.jsonl")  # refuses NaN
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        assert row.keys() == STEP_METRICS | OPTIMIZER_METRICS | MEASURED | {"step", "sampler_drift_mean"}
        # There is one grader; the first step trains on no answers of an older one.
        unknown = {"verifier_disagreement"} | ({"sampler_drift_mean"} if row["step"] == 1 else set())
        assert {name for name, value in row.items() if value is None} == unknown
        assert row["seconds"] > 0
        assert row["tokens_per_second"] == pytest.approx(row["tokens"] / row["seconds"])
        assert 100 < row["host_rss_mib"] <= row["host_rss_peak_mib"] + 1
        assert sum(row["verdicts"].values()) == row["answers"] == sum(row["rate_histogram"]) * 4
        assert row["verdicts"]["correct"] == pytest.approx(row["reward"] * row["answers"])
        assert row["updates_taken"] == 1
        assert row["updates_clipped"] == (row["gradient_norm"] > 1)
        assert row["gradient_over_epsilon"] > 100


def test_main_logs_rollouts_every_n_steps(first, resumed):
    names = [path.name for path in sorted((resumed.path / "rollouts").glob("step_*"))]
    assert names == ["step_000001.jsonl", "step_000002.jsonl", "step_000004.jsonl"]
    (row, *_) = rows = first.rows("rollouts/step_000001.jsonl")
    assert len(rows) == 8
    each = {"answers", "verdicts", "truncated", "lengths", "extracted", "reasons"}
    assert row.keys() - {"tokens", "update"} == {"prompt", "reference", "rate"} | each
    scored = [row for row in rows if "tokens" in row]
    assert len(scored) == 4
    for row in scored:
        assert [len(answer["after"]) for answer in row["tokens"]] == row["lengths"]
        assert all(("new" in answer) == (row["update"] is not None) for answer in row["tokens"])
    assert any(row["update"] is not None for row in scored)
    assert all(len(row[name]) == 4 for name in each)
    assert row["prompt"].endswith("=")
    # Every answer of a saved step has a reason, also after steps that are not saved; that of a correct one is empty.
    for name in names:
        saved = resumed.rows(f"rollouts/{name}")
        assert all(reason is not None for row in saved for reason in row["reasons"])


def test_main_evaluates_both_splits_at_the_ends(first, straight):
    assert [row["step"] for row in first.rows("evaluation.jsonl")] == [0, 2]
    assert [row["step"] for row in straight.rows("evaluation.jsonl")] == [0, 2, 4]
    result = straight.json("result.json")
    assert result.keys() == {"validation", "test"}
    validation = straight.rows("evaluation.jsonl")
    for end, row in (("base", validation[0]), ("final", validation[-1])):
        score = {name: value for name, value in result["validation"][end].items() if name != "gain"}
        assert {"step": row["step"]} | score == row
        assert result["test"][end]["problems"] == 6
    # Both runs started from the same base.
    assert first.json("result.json")["test"]["base"] == result["test"]["base"]


def test_main_prints_description_steps_and_scores(first):
    lines = first.printed.splitlines()
    assert sum(line.startswith("1/2 ") or line.startswith("2/2 ") for line in lines) == 2
    for words in (
        "8 prompts × 4 answers = 32 answers",
        "loss      nft",
        "on cpu",
        "warm start: 3 updates",
        "\nbase: 12 held-out problems × 3 answers = 36 answers\n",
    ):
        assert words in first.printed, words
    for words in ("validation: greedy", "2 steps, ", "  measure ", " pass@", "problem ", "picture: ", "page: "):
        assert words in first.printed, words


def test_trainer_run_compiles_nothing(first, straight):
    # Steps, evaluations and checkpoints use programs that were compiled before the first step.
    assert (first.compiled, straight.compiled) == ([], [])


def test_trainer_run_reports_a_late_compilation(late):
    resumed, printed = late
    assert len(resumed.compiled) == 1
    assert printed.startswith("step 4: jit(<lambda>) was compiled again")
    assert printed.count("compiled") == 1


def test_main_names_the_best_step_with_its_score(straight):
    scores = {row["step"]: (row["greedy"], row["greedy_error"]) for row in straight.rows("evaluation.jsonl")}
    del scores[0]
    step = max(scores, key=lambda step: scores[step][0])
    best = straight.json("best.json")
    assert best == {"step": step, "score": "greedy", "value": scores[step][0], "error": scores[step][1]}
    assert f"the best so far: step {step}, greedy {scores[step][0]:.3f}" in straight.printed
    assert straight.checkpoint(step)


# Resuming.


def test_main_resumed_equals_one_run(first, resumed, straight):
    assert "resumed from step 2" in resumed.printed
    assert "warm start:" not in resumed.printed and "held-out problems ×" not in resumed.printed
    assert_same(resumed.checkpoint(4), straight.checkpoint(4))
    rows = untimed(resumed.rows("metrics.jsonl"))
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows == untimed(straight.rows("metrics.jsonl"))
    assert resumed.rows("metrics.jsonl")[:2] == first.rows("metrics.jsonl")
    assert resumed.rows("rollouts/step_000004.jsonl") == straight.rows("rollouts/step_000004.jsonl")
    assert resumed.json("result.json") == straight.json("result.json")
    assert [row["step"] for row in resumed.rows("evaluation.jsonl")] == [0, 2, 4]
    assert resumed.rows("evaluation.jsonl") == straight.rows("evaluation.jsonl")
    # The steps differ, so that the state matters.
    assert len({row["rounds"] for row in rows}) > 1
    assert any(row["groups_carried_in"] for row in rows)


def test_main_checkpoint_is_of_its_step(first, straight):
    assert_same(first.checkpoint(2), straight.checkpoint(2))
    weights = [run.checkpoint(step)["weights"]["embedding"] for run, step in ((first, 2), (straight, 4))]
    assert (weights[0] != weights[1]).any()


def test_main_with_a_base_has_no_warm_start(straight):
    assert "warm start:" not in straight.printed
    assert not (straight.path / "warm_start").exists()


def test_main_of_a_finished_run_only_says_so(straight, again):
    assert "finished: step 4 of 4 is saved" in again.printed
    for file in straight.path.rglob("*"):
        # The tokenizer is trained again, with the same result.
        if file.is_file() and "tokenizer" not in file.parts:
            assert (again.path / file.relative_to(straight.path)).read_bytes() == file.read_bytes(), file
    assert again.compiled == []


# A problem file and a custom tokenizer.


def write_tokenizer(folder: Path, *, end: str | None = "</s>") -> Path:
    """A Hugging Face folder whose tokens are characters."""
    characters = sorted(set("0123456789+-*=? \n\\{},.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    vocabulary = {token: i for i, token in enumerate(["<unk>", "</s>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | ({"eos_token": end} if end else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_problems(path: Path, count: int, long: int = 0, solutions: bool = True, first: int = 0) -> Path:
    with open(path, "w") as out:
        for i in range(first, first + count):
            text = f"{i}+{i}=" + ("0" * 40 if i < first + long else "")
            row = {"problem": text, "answer": 2 * i} | ({"solution": f"{i}+{i}"} if solutions else {})
            out.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="module")
def files(folder):
    """The config values of a problem file with 12 problems that fit and 2 that don't, and of its tokenizer."""
    here = folder / "files"
    here.mkdir()
    return {
        "data__train": str(write_problems(here / "train.jsonl", 14, long=2)),
        "data__test": str(write_problems(here / "test.jsonl", 5, long=1, first=14)),
        "data__tokenizer": str(write_tokenizer(here / "tokenizer")),
        "rollout__max_answer_tokens": 24,
        "evaluation__problems_per_batch": 4,
        "evaluation__answers_per_problem": 1,
    }


def test_sft_main_and_train_main_on_a_problem_file(files, folder, capsys):
    warm = {"warm_start__steps": 2, "warm_start__examples_per_update": 4}
    sft.main(small(**files | warm), folder / "base")
    printed = capsys.readouterr().out
    assert "warm start: 2 updates of 4 examples" in printed
    assert f"--config.base={folder / 'base'}" in printed
    # The settings are those of `sft`; the base replaces the warm start.
    config = small(steps=1, base=str(folder / "base"), verify__grader=grader("coin"), **files | warm)
    ran = run(config, folder / "files run", folder / "files once")
    assert re.search(
        r"train: 12 from \S+train.jsonl, 2 more are too long .*\n.*\n +test: 4 from \S+, 1 more", ran.printed
    )
    assert "vocabulary 76 of 80 rows" in ran.printed
    (row,) = ran.rows("metrics.jsonl")
    assert row["updates_taken"] == 1
    assert ran.json("result.json").keys() == {"test"}
    assert not (ran.path / "evaluation.jsonl").exists()
    assert "1/1 " in ran.printed
    rows = ran.rows("rollouts/step_000001.jsonl")
    assert {row["prompt"] for row in rows} <= {f"{i}+{i}=" for i in range(2, 14)}
    assert all(row["reference"] == str(2 * int(row["prompt"].split("+")[0])) for row in rows)
    assert (ran.path / "curves.png").exists()


# Bad data is refused before anything is compiled.


def broken(folder: Path, files: dict) -> dict[str, dict]:
    """Config changes, by the fault in them."""
    bad = folder / "bad.jsonl"
    bad.write_text('{"problem": "1+1=", "answer": 2}\n{"problem": "2+2="\n')
    return {
        "no tokenizer": {"data__train": files["data__train"]},
        "no file": {"data__train": str(folder / "nowhere.jsonl"), "data__tokenizer": files["data__tokenizer"]},
        "no JSON": {"data__train": str(bad), "data__tokenizer": files["data__tokenizer"]},
        "no field": files | {"data__train_fields": "problem,gold"},
        "no solution": files
        | {
            "data__train": str(write_problems(folder / "plain.jsonl", 4, solutions=False)),
            "warm_start__steps": 1,
        },
        "no end": files | {"data__tokenizer": str(write_tokenizer(folder / "endless", end=None))},
        "no room for prompts": files | {"data__max_prompt_tokens": 3},
        "no room for solutions": files | {"rollout__max_answer_tokens": 3, "warm_start__steps": 1},
        "no such template": files | {"data__template": "plain_boxd"},
        "no chat template": files | {"data__template": "chat"},
        "no such grader": {"verify__grader": "boxed_exakt"},
        "no such module": {"verify__grader": "no_such_module:f"},
        "vocabulary too small": {"model__vocab": 8},
        "sizes that do not divide": {"mesh__data": 8, "prompts_per_step": 12},
        "more devices than there are": {"mesh__data": 1000, "prompts_per_step": 1000},
        "a width that does not divide": {"mesh__data": 4, "model__width": 30},
    }


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("no tokenizer", ValueError, "config.data.tokenizer must name a tokenizer"),
        ("no file", FileNotFoundError, "nowhere.jsonl does not exist"),
        ("no JSON", ValueError, "bad.jsonl:2: not JSON"),
        ("no field", ValueError, "train.jsonl:1: no field 'gold', which config.data.train_fields names; its fields"),
        (
            "no solution",
            ValueError,
            "no problem has a worked solution.*config.data.train_fields=PROBLEM,ANSWER,SOLUTION.*warm_start.steps=0",
        ),
        ("no end", ValueError, "endless has no end-of-sequence token"),
        ("no room for prompts", ValueError, "no prompt fits.*max_prompt_tokens=44 would keep 90 %"),
        ("no room for solutions", ValueError, "no worked solution fits.*config.rollout.max_answer_tokens"),
        ("no such template", ValueError, "'plain_boxd'.*did you mean 'plain_boxed'"),
        ("no chat template", ValueError, "no chat template"),
        ("no such grader", ValueError, "did you mean 'boxed_exact'"),
        ("no such module", ValueError, "no_such_module"),
        ("vocabulary too small", ValueError, "config.model.vocab=8 is smaller than the tokenizer's"),
        ("sizes that do not divide", ValueError, "12 candidate prompts a round are not divisible by 8 data shards"),
        ("more devices than there are", ValueError, "but 8 are present"),
        ("a width that does not divide", ValueError, "size 30 is split into 4 parts"),
    ],
)
def test_main_refuses_bad_data_before_compiling(files, tmp_path, what, kind, words):
    config = load(settings(**broken(tmp_path, files)[what]))
    with compilations() as seen, pytest.raises(kind, match=words):
        train.main(config, tmp_path / "run")
    assert seen == []


def test_main_refuses_a_base_that_does_not_fit_before_compiling(folder, first, tmp_path):
    nowhere = small(base=str(tmp_path))
    narrower = small(base=str(folder / "run" / "warm_start"), model__mlp_width=64)
    with compilations() as seen:
        with pytest.raises(FileNotFoundError, match="config.base=.*neither a folder 'weights' nor a checkpoint in it"):
            train.main(nowhere, tmp_path / "run")
        with pytest.raises(ValueError, match=r"config.base="):
            train.main(narrower, tmp_path / "run")
    assert seen == []
