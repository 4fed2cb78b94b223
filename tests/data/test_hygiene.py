"""Hygiene of training problems: what is left out and why, what the report shows, and real problems."""

import json
import os
import random
import subprocess
import sys
import time

import pytest

from helpers.hygiene_twin import find_removals
from nft_jax.data import hygiene
from nft_jax.data.benchmarks import read
from nft_jax.data.files import Problem
from nft_jax.data.hygiene import Removal, clean

LONG = "A shop sells 12 apples, 7 pears and 30 plums each day. How many pieces of fruit does it sell in 5 days?"


def problems(*texts: str, answer: str = "1", name: str = "p") -> list[Problem]:
    return [Problem(text, answer, id=f"{name}{i}") for i, text in enumerate(texts)]


def removed(given: list[Problem], **evaluations: list[Problem]) -> list[tuple]:
    cleaned = clean(given, evaluations)
    left_out = {removal.id for removal in cleaned.removals}
    assert cleaned.problems == [problem for problem in given if problem.id not in left_out]
    assert cleaned.given == len(given)
    return [tuple(removal) for removal in cleaned.removals]


def test_clean_finds_overlaps_that_are_the_same_inside_or_near():
    given = [
        Problem(LONG.upper(), "2", id="same"),
        Problem(f"Solve this. {LONG} Give the answer plus 1.", "3", id="inside"),
        Problem(LONG.replace("A shop sells", "One shop sells"), "4", id="near"),
        Problem(LONG.replace("7", "8"), "5", id="other numbers"),
        Problem(LONG.replace("A shop sells", "Every day of the year they sell"), "6", id="other words"),
    ]
    assert removed(given, test=[Problem(LONG, "1", id="t")]) == [
        ("same", "overlap", "test", "t", "same"),
        ("inside", "overlap", "test", "t", "inside"),
        ("near", "overlap", "test", "t", "near"),
    ]


def test_clean_reports_the_closest_overlap_with_each_set():
    near = LONG.replace("A shop", "One shop")
    evaluations = {
        "b": problems(near, LONG, name="b"),
        "a": problems(LONG, LONG, name="a"),
        "c": problems("x", name="c"),
    }
    assert removed(problems(f"{LONG}."), **evaluations) == [
        ("p0", "overlap", "b", "b1", "same"),
        ("p0", "overlap", "a", "a0", "same"),
    ]


def test_clean_finds_long_texts_inside_others_but_not_inside_numbers():
    enough = "x" * (hygiene.SHORTEST_INSIDE - 1) + "1"
    for around in ("{}", "!{}", "{}!", "!" * 40 + "{}" + "!" * 40):
        for shift in range(40):
            given = problems("!" * shift + around.format(enough))
            assert len(removed(given, test=problems(enough))) == 1
    assert removed(problems(f"!{enough}!"), test=problems(enough[1:])) == []
    for text, part in ((f"{enough}2", enough), (f"{enough} 2", enough), (f"2{enough[::-1]}", enough[::-1])):
        alone = part not in text or text[text.index(part) + len(part) :].startswith(" ")
        assert len(removed(problems(f"{text}!"), test=problems(part))) == alone


def test_clean_leaves_out_contradictions_and_later_duplicates():
    given = [
        Problem("What is $1+1$?", "2", id="a"),
        Problem("What is 2+2?", "4", id="b"),
        Problem("what is 1 + 1", "3", id="c"),
        Problem("What is $2 + 2$", "4.0", id="d"),
        Problem("What is  1+1 ?", "2", id="e"),
        Problem("What is 3+3?", "6", id="f"),
    ]
    assert removed(given) == [
        ("a", "contradiction", "train", "c", "same"),
        ("c", "contradiction", "train", "a", "same"),
        ("e", "contradiction", "train", "c", "same"),
        ("d", "duplicate", "train", "b", "same"),
    ]


def test_clean_near_duplicates_need_the_same_answer_and_numbers():
    texts = [LONG.replace("A shop", f"{which} shop") for which in ("A", "One", "The", "My")]
    given = [
        Problem(text, answer, id=text[:3]) for text, answer in zip(texts, ("245", "246", "246.0", "245"), strict=True)
    ]
    given.append(Problem(texts[0].replace("30", "31"), "245", id="other numbers"))
    assert removed(given) == [
        ("The", "near duplicate", "train", "One", "near"),
        ("My ", "near duplicate", "train", "A s", "near"),
    ]


def test_clean_keeps_a_long_text_with_one_other_number():
    words = " ".join(f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(100))
    given = problems(f"{words} 7 {words}", f"{words} 8 {words}", f"{words} x7 {words}")
    assert [removal[::3] for removal in removed(given)] == [("p2", "p0")]
    assert removed(given[:1], test=given[1:2]) == []


def test_clean_near_duplicates_match_a_kept_problem():
    """In a chain where each problem is near the next one only, every other problem is kept."""
    words = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(80)]
    chain = [" ".join(["changed"] * i + words[i:]) for i in (0, 3, 6, 9)]
    assert [removal[0] for removal in removed(problems(*chain))] == ["p1", "p3"]


def test_clean_ignores_problems_that_an_earlier_rule_left_out():
    same = [Problem(LONG, "1", id="a"), Problem(LONG, "2", id="b"), Problem(LONG, "2", id="c")]
    assert {reason for _, reason, *_ in removed(same, test=problems(LONG))} == {"overlap"}
    assert {reason for _, reason, *_ in removed(same)} == {"contradiction"}


def test_clean_keeps_everything_without_a_reason():
    assert removed(problems("1+1=", "1-1=", "1+1+1=", "")) == []
    assert removed(problems("1+1="), test=[]) == removed([], test=problems("1+1=")) == []


def alike(one: list[str], other: list[str]) -> bool:
    """Returns whether two token lists are nearly the same, by the definition."""
    sets = [{tuple(part[i : i + 3]) for i in range(len(part) - 2)} or {tuple(part)} for part in (one, other)]
    numbers = [sorted(token for token in part if token.isdigit()) for part in (one, other)]
    return numbers[0] == numbers[1] and len(sets[0] & sets[1]) / len(sets[0] | sets[1]) >= 0.9


def test_near_pairs_are_those_of_the_definition():
    draw = random.Random(0)
    words = ["a", "b", "c", "1", "2"]
    texts = [[draw.choice(words) for _ in range(draw.choice((1, 2, 5, 40)))] for _ in range(60)]
    for text in texts[:40]:
        changed = list(text)
        for _ in range(draw.randrange(3)):
            changed[draw.randrange(len(text))] = draw.choice(words)
        texts.append(changed)
    expected = {(i, j) for j, other in enumerate(texts) for i in range(j) if alike(texts[i], other)}
    found = list(hygiene._near_pairs([hygiene._ProblemText(" ".join(text)) for text in texts]))
    assert set(found) == expected
    assert len(found) == len(expected) > 20
    assert any(texts[i] != texts[j] for i, j in expected)


def test_clean_finds_all_texts_inside_others():
    draw = random.Random(0)
    whole = ["".join(draw.choice("ab") for _ in range(draw.randrange(30, 120))) for _ in range(40)]
    parts = [text[draw.randrange(8) : len(text) - draw.randrange(8)] for text in whole]
    found = {(r.id, r.source) for r in clean(problems(*whole), {part: problems(part) for part in parts}).removals}
    expected = {(f"p{i}", part) for i, text in enumerate(whole) for part in parts if part in text and len(part) >= 32}
    assert {each for each in found if each in expected} == expected
    assert len(expected) > 20


def test_clean_does_not_depend_on_the_hash_seed():
    code = (
        "import random, json; from nft_jax.data.hygiene import clean; from nft_jax.data.files import Problem;"
        "draw = random.Random(0); words = ['w' + c for c in 'abcdefgh'];"
        "base = [' '.join(draw.choice(words) for _ in range(60)) for _ in range(30)];"
        "texts = [t.replace('wa wb', 'wb', draw.randrange(2)) for t in base * 4];"
        "given = [Problem(t, '1', id=str(i)) for i, t in enumerate(texts)];"
        "print(json.dumps(clean(given[20:], {'a': given[:10], 'b': given[5:15]}).to_json()))"
    )
    results = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (0, 1, 2)
    }
    assert len(results) == 1
    assert {"duplicate", "near duplicate", "overlap with a", "overlap with b"} <= set(json.loads(*results)["left_out"])


@pytest.fixture
def cleaned():
    given = [
        *problems("x", "x.", "y"),
        *(Problem("z", answer, id=answer) for answer in ("1", "2")),
        *problems(f"{LONG} Hurry!", LONG, name="l"),
    ]
    return clean(given, {"aime24": problems(LONG, name="t"), "amc23": problems(LONG, name="s"), "none": []})


def test_hygiene_report_table_has_every_reason_and_set(cleaned):
    assert cleaned.table().splitlines() == [
        "7 training problems: 2 kept, 5 left out",
        "       2  contradiction",
        "       1  duplicate",
        "       2  overlap with aime24 (1 the same, 1 with more text around)",
        "       2  overlap with amc23 (1 the same, 1 with more text around)",
    ]
    assert clean(problems("x"), {}).table() == "1 training problems: 1 kept, 0 left out"


def test_hygiene_report_to_json_is_complete(cleaned):
    found = json.loads(json.dumps(cleaned.to_json()))
    assert (found["given"], found["kept"]) == (7, 2)
    assert found["left_out"] == {"contradiction": 2, "duplicate": 1, "overlap with aime24": 2, "overlap with amc23": 2}
    assert [Removal(**removal) for removal in found["removals"]] == cleaned.removals
    assert found["removals"][2] == {
        "id": "p1",
        "reason": "duplicate",
        "source": "train",
        "match_id": "p0",
        "match": "same",
    }


BENCHMARKS = ("aime24", "aime25", "amc23", "math500", "olympiadbench", "minerva_math", "gsm8k_test")
# Found by comparing texts without dots and commands: "tan 225" is neither "tan 22.5" nor "cos 225".
NO_OVERLAPS = {"math-train-2865"}


@pytest.mark.parametrize(
    ("name", "left_out"), [("dapo_math_17k", (2400, 2800)), ("math_train", (20, 40)), ("gsm8k_train", (0, 5))]
)
def test_clean_finds_every_known_overlap_of_real_problems(data_folder, name, left_out):
    root = str(data_folder / "problems")
    evaluations = {each: read(each, root=root) for each in (*BENCHMARKS, "math_test")}
    known = json.loads((data_folder / "problems" / "overlaps.json").read_text())
    given = read(name, root=root)
    began = time.process_time()
    found = clean(given, evaluations)
    assert time.process_time() - began < 30
    for each in evaluations:
        listed = set(known.get(f"{name} in {each}", ())) - NO_OVERLAPS
        assert listed <= {removal.id for removal in found.removals if removal.source == each}
    assert left_out[0] <= len(given) - len(found.problems) <= left_out[1]


def test_clean_finds_overlaps_like_the_known_ones():
    """Like the test on real problems, with texts that differ in the same ways."""
    pairs = [
        ("Find $\\dfrac{a}{b}$ if $x_{1}=1{,}000$.", "Find\n\\[\\frac{a}{b}\\]if $x_1 = 1,000.$"),
        ("How many integers satisfy \\(120 - \\sqrt{x} \\leq 4\\)?", "How many integers satisfy $120-\\sqrt{x}\\le4$?"),
        ("Positive integers $x, y$ satisfy $xy=16$.", "Positive integers $x,y$ satisfy $x y=16$."),
        ("The area of $\\triangle ACE$ is $70\\%$ of it.", "The area of triangle ACE is 70% of it."),
        (f"{LONG} The answer is in the form $\\frac{{m}}{{n}}$. Please give $m+n$.", LONG),
    ]
    given, asked = (problems(*texts, name=name) for texts, name in zip(zip(*pairs, strict=True), "pt", strict=True))
    others = problems("Find $\\dfrac{a}{c}$.", "Compute $\\tan 225^\\circ$.", name="o")
    asked += problems("Compute $\\tan 22.5^\\circ$.", "Compute $\\cos 225^\\circ$.", name="n")
    found = clean([*others, *given], {"test": asked})
    assert found.problems == others
    assert [(removal.id, removal.match_id) for removal in found.removals] == [(f"p{i}", f"t{i}") for i in range(5)]


def draw_repeated(seed: int, count: int, copies: int) -> list[Problem]:
    """Draws problems that are repeated, written otherwise, varied by a word, contained in others and contradictory."""
    draw = random.Random(seed)
    words = [f"w{chr(97 + i)}" for i in range(8)] + ["1", "2", "x+y"]
    base = [" ".join(draw.choice(words) for _ in range(draw.choice((3, 12, 40)))) for _ in range(count)]
    ways = (str, str.upper, lambda t: f"{t}.", lambda t: f"Now {t} 5", lambda t: t.replace("wa", "wb", 1), lambda t: t)
    texts = [draw.choice(ways)(text) for text in base for _ in range(copies)]
    draw.shuffle(texts)
    return [Problem(text, draw.choice(("1", "1", "1.0", "2")), id=f"p{i}") for i, text in enumerate(texts)]


@pytest.mark.parametrize("seed", range(12))
def test_clean_of_repeated_problems_is_that_of_the_definition(seed):
    given, asked = draw_repeated(seed, 6, 5), draw_repeated(seed, 9, 2)  # the first texts are the same
    evaluations = {"a": asked[: seed % 3 * 6], "b": asked[6:9]}
    found = clean(given, evaluations)
    assert set(found.removals) == find_removals(given, evaluations), f"seed {seed}"
    assert len(found.removals) == len(set(found.removals))
    left_out = {removal.id for removal in found.removals}
    assert found.problems == [problem for problem in given if problem.id not in left_out]


def test_clean_compares_each_distinct_text_once(monkeypatch):
    """What a file of every problem a hundred times costs follows from its distinct problems."""
    given, asked = draw_repeated(0, 9, 1), draw_repeated(1, 3, 1)
    work = {}
    for copies in (1, 100):
        calls = {"normalize": [], "answer_key": [], "_similar_pairs": []}
        with monkeypatch.context() as patch:
            for name, seen in calls.items():
                own = getattr(hygiene, name)
                patch.setattr(hygiene, name, lambda given, own=own, seen=seen: (seen.append(given), own(given))[1])
            clean(given * copies, {"a": asked * copies})
        work[copies] = {name: [len(each) for each in seen] for name, seen in calls.items()}
    assert work[1] == work[100]
    assert len(work[1]["normalize"]) == len({problem.problem for problem in given + asked})
