"""Generated word problems: answers that follow from the texts, held-out templates, disjoint splits, seeds."""

import random
import re
from collections import Counter

import pytest

from nft_jax.config import DataConfig
from nft_jax.data.generated import generate as generate_set
from nft_jax.data.word_problems import HELD_OUT_KINDS, KINDS, SIZES, generate, split_of
from nft_jax.data.word_templates import HELD_OUT_TEMPLATES, TEMPLATES
from nft_jax.verify.gsm8k import gsm8k


def add(x, y):
    return x + y


def compare(x, y):
    return abs(x - y)


def multiply(x, y):
    return x * y


def divide(x, y):
    assert x % y == 0
    return x // y


# What a reader computes from the numbers in the order of the text.
RULES = {
    **dict.fromkeys(("gain", "together", "more_than", "age"), add),
    **dict.fromkeys(("loss", "difference", "fewer_than", "start", "change", "pages"), compare),
    **dict.fromkeys(("packs", "times", "price", "rows"), multiply),
    **dict.fromkeys(("sharing", "filling", "teams"), divide),
    "gain_and_loss": lambda x, y, z: x + y - z,
    "two_losses": lambda x, y, z: x - y - z,
    "packs_and_more": lambda x, y, z: x * y + z,
    "bus": lambda x, y, z: x - y + z,
    "money_left": lambda x, y, z: x - y * z,
}


def numbers_of(text):
    return [int(number) for number in re.findall(r"\d+", text)]


@pytest.fixture(scope="module")
def splits():
    return {split: generate(split, size) for split, size in SIZES.items()}


@pytest.mark.parametrize("seed", [0, random.randrange(2**32)], ids=["0", "drawn"])
def test_generate_gives_the_answer_that_the_text_implies(seed):
    print("seed", seed)
    seen = Counter()
    for problem in generate("test", 700, seed) + generate("train", 700, seed):
        seen[problem.kind] += 1
        assert problem.answer == str(RULES[problem.kind](*numbers_of(problem.problem))), problem
        assert int(problem.answer) > 0
    assert set(seen) == set(RULES) == {*KINDS, *HELD_OUT_KINDS} and min(seen.values()) >= 20


def test_generate_writes_solutions_that_end_in_the_answer(splits):
    for problem in splits["train"] + splits["test"]:
        given, lines = numbers_of(problem.problem), problem.solution.split("\n")
        for line in lines:
            left, operator, right, equals, result = line.split()
            assert operator in "+-*/" and equals == "=" and eval(left + operator + right) == int(result), problem
            used = [n for n in (int(left), int(right)) if n in given]
            assert len(used) == 2 or line != lines[0], problem
            given.append(int(result))
        assert gsm8k(problem.solution, problem.answer) == ("correct", problem.answer)
        assert len(lines) == len(numbers_of(problem.problem)) - 1


def test_generate_writes_plain_english(splits):
    for problem in splits["train"] + splits["test"]:
        text = problem.problem
        assert re.fullmatch(r"[A-Z\d][\w ,.]*\?", text), text
        assert not re.search(r"[{}]|\s\s|\b[01] |\.[A-Z]", text), text
        assert all(sentence[:1].isupper() or sentence[0].isdigit() for sentence in text.split(". ")), text
        assert re.search(r"How (many|old) ", text)


def test_generate_keeps_splits_apart(splits):
    numbers = {
        split: {(p.kind, tuple(sorted(numbers_of(p.problem)))) for p in problems} for split, problems in splits.items()
    }
    texts = [p.problem for problems in splits.values() for p in problems]
    ids = [p.id for problems in splits.values() for p in problems]
    assert len(set(texts)) == len(set(ids)) == len(texts) == sum(SIZES.values())
    for kind in KINDS:
        parts = Counter(split_of(kind, numbers) for numbers in TEMPLATES[kind].numbers)
        assert all(parts[split] >= 4 for split in SIZES) and parts["train"] > parts["test"] + parts["validation"]
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert numbers[one].isdisjoint(numbers[other])


def test_generate_holds_templates_out(splits):
    assert len(KINDS) >= 10 and not set(TEMPLATES) & set(HELD_OUT_TEMPLATES)
    assert {p.kind for p in splits["train"]} == {p.kind for p in splits["validation"]} == set(KINDS)
    for n in (2, 24, 96, len(splits["test"])):
        held_out = [p for p in splits["test"][:n] if p.kind in HELD_OUT_KINDS]
        assert len(held_out) == n // 2
    steps = {template.equations for template in TEMPLATES.values()}
    assert [kind for kind, template in HELD_OUT_TEMPLATES.items() if template.equations not in steps] == [
        "bus",
        "money_left",
    ]


def test_generate_has_all_kinds_equally_often(splits):
    for split, problems in splits.items():
        for kinds in (KINDS, HELD_OUT_KINDS if split == "test" else KINDS):
            counts = Counter(p.kind for p in problems if p.kind in kinds)
            assert max(counts.values()) - min(counts.values()) <= 1, (split, counts)


def test_generate_is_a_function_of_its_seed():
    assert generate("train", 50) == generate("train", 50) == generate("train", 80)[:50]
    assert {p.problem for p in generate("train", 50)}.isdisjoint(p.problem for p in generate("train", 50, seed=1))
    with pytest.raises(ValueError, match="unknown split 'tset'.*did you mean 'test'"):
        generate("tset", 1)


def test_generated_set_word_problems():
    assert generate_set("word_problems:validation", DataConfig(), "train") == generate(
        "validation", SIZES["validation"]
    )
    assert generate_set("word_problems", DataConfig(), "test") == generate("test", SIZES["test"])
