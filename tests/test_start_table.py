"""The table that a run prints before it compiles: what it shows, and that it stays short."""

import numpy as np
import pytest

from helpers.experiments import grader, small, write_graders
from helpers.problem_files import write_split_files
from nft_jax.data.random_prompts import NumberTokenizer
from nft_jax.experiment import open_experiment
from nft_jax.start_table import describe, mark_tokens


@pytest.fixture
def table(tmp_path):
    """`(**changes) -> (lines by their first word, text)` of a small run."""

    def get(**changes):
        with open_experiment(small(**changes), tmp_path / "run") as experiment:
            text = describe(experiment)
        return {line.split()[0]: line for line in text.splitlines() if line[0] != " "}, text

    return get


def test_describe_shows_what_decides_a_run(table):
    assert "after a warm start of 5 updates" in table(warm_start__steps=5)[0]["model"]
    lines, text = table(evaluation__max_problems=9, evaluation__every_steps=3, optimizer__warmup_updates=2)
    assert len(text.splitlines()) <= 20
    assert max(map(len, text.splitlines())) < 250
    assert "from random weights of seed 0" in lines["model"]
    assert "train: 723 from arithmetic" in lines["problems"]
    assert "9 validation and 9 test problems before and after the run, validation also every 3 steps; 1 greedy" in text
    assert "template 'plain'" in lines["prompt"]
    assert lines["ends"].startswith("ends      an answer ends with </s> (1); after 16 tokens it is cut")
    assert lines["grader"].startswith("grader    boxed_exact; 2 processes")
    assert "8 prompts × 4 answers = 32 answers, from at most 4 rounds of 8 prompts; 32 at a time" in lines["a"]
    assert "1 updates of 8 prompts = 32 answers each, in micro-batches of 8 rows of 16 tokens" in text
    assert "reached after 2 of 4 updates in 4 steps" in lines["optimizer"]
    late = table(optimizer__warmup_updates=9)[0]["optimizer"]
    assert "never reached: config.optimizer.warmup_updates=9 of 4 updates in 4 steps" in late


def test_describe_shows_the_first_prompt_with_its_tokens(table, tmp_path):
    files = write_split_files(tmp_path)
    data = {name: files[name] for name in ("data__train", "data__tokenizer")}
    changes = {"data__hygiene": False, "data__max_prompt_tokens": 5, "warm_start__steps": 3, "base": "runs/base"}
    lines, text = table(**data, **changes, rollout__stop="=\\n")
    assert "</s> (1), the text '=\\n'; after" in lines["ends"]
    assert "\n          │1│+│1│=│\n" in text
    assert "the first one has 4 tokens (between │), the longest 4 of 5" in lines["prompt"]
    too_long = "1 more are too long (config.data.max_prompt_tokens=7 keeps all)"
    assert lines["problems"] == f"problems  train: 5 from {files['data__train']}, {too_long}"
    assert "evaluates nothing: neither config.data.validation nor config.data.test names problems" in text
    assert lines["model"].endswith("from runs/base")


def test_describe_names_own_code_and_whether_it_may_change(table, tmp_path):
    write_graders(tmp_path)
    code = {"verify__grader": grader("coin")}
    assert "own code" not in table()[1]
    line = table(**code)[0]["own"]
    assert line.startswith("own code  config.verify.grader (")
    assert line.endswith("when the run resumes, it must not change")
    allowed = table(**code, record__allow_other_code=True)[0]["own"]
    assert allowed.endswith("when the run resumes, it may change (config.record.allow_other_code)")


def test_describe_says_that_cpus_emulate_16_bits(table):
    assert "CPUs emulate bfloat16: config.model.dtype=auto takes float32" in table(model__dtype="bfloat16")[1]
    assert "emulate" not in table(model__dtype="auto")[1]


def test_describe_says_by_which_blocks_sampler_and_trainer_agree(table):
    said = table(model__bitwise=True)[0]["bitwise"]
    assert "32 rows at a time and read keys by 64; a rehearsal compares their log-probs" in said


def test_mark_tokens_keeps_every_token_of_a_short_prompt_and_both_ends_of_a_long_one():
    tokenizer, random = NumberTokenizer(10**5, (1,)), np.random.default_rng(0)
    for length in (0, 1, 71, 72, 73, 500):
        ids = random.integers(0, 10**5, length).tolist()
        lines = mark_tokens(tokenizer, ids)
        assert all(line[0] == line[-1] == "│" and len(line) <= 112 for line in lines)
        shown = [text for line in lines for text in line.strip("│").split("│") if text]
        if length <= 72:
            assert shown == [str(i) for i in ids]
        else:
            assert shown == [*map(str, ids[:36]), f" … {length - 72} tokens … ", *map(str, ids[-36:])]
