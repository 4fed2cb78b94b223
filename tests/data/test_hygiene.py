"""Clean training problems: what counts as the same, what is left out and why, and that it is told."""

import json
import os
import random
import re
import subprocess
import sys
import time

import pytest

from helpers.experiments import settings, small
from nft_jax.config import load
from nft_jax.data import hygiene
from nft_jax.data.__main__ import main
from nft_jax.data.arithmetic import all_problems, split
from nft_jax.data.benchmarks import read
from nft_jax.data.dataset import load_dataset, read_splits
from nft_jax.data.files import Problem
from nft_jax.data.hygiene import Removal, clean
from nft_jax.data.normal_form import answers_match, normal_form
from nft_jax.data.tokenizer import train_sentencepiece

LONG = "A shop sells 12 apples, 7 pears and 30 plums each day. How many pieces of fruit does it sell in 5 days?"


def problems(*texts: str, answer: str = "1", name: str = "p") -> list[Problem]:
    return [Problem(text, answer, id=f"{name}{i}") for i, text in enumerate(texts)]


def removed(given: list[Problem], **evaluations: list[Problem]) -> list[tuple]:
    cleaned = clean(given, evaluations)
    left_out = {removal.id for removal in cleaned.removals}
    assert cleaned.problems == [problem for problem in given if problem.id not in left_out]
    assert cleaned.given == len(given)
    return [tuple(removal) for removal in cleaned.removals]


# The normal form.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Find $x$.", "find  x"),
        ("What is $x + 1$?", "What is\n$$x+1?$$"),
        ("Compute \\(x\\)", "Compute $x$:"),
        ("\\[xy + z = 160.\\]", "$x y+z=160$"),
        ("$\\left( 1, 2 \\right)$", "$(1,2)$"),
        ("$\\bigl(x\\Bigr)$", "(x)"),
        ("$\\dfrac{1}{2} \\tfrac{x}{y}$", "$\\frac 12 \\frac{x} {y}$"),
        ("$x_{1} + x^{10}$", "$x_1+x^{10}$"),
        ("$1,000,000$ and $2{,}000$ and $3,\\!000$", "1000000 and 2000 and 3000"),
        ("\\{1,2,\\ldots,9\\}", "$\\{ 1, 2, \\dots, 9 \\}$"),
        ("$5 \\text{ if } x \\leq 3$", "$5 \\mathrm{if} x ≤ 3$"),
        ("$3 \\times 4 \\cdot 5$", "$3 × 4 * 5$"),
        ("$\\displaystyle\\sum\\limits_{i}$", "\\sum_i"),
        ("\\begin{align*}x&=1,\\\\y&=2\\end{align*}", "x = 1\ny = 2"),
        ("“the angle’s” 3−2", '"the angle\'s" 3-2'),
        ("\\triangle ABC at 70\\%", "triangle ABC at 70%"),
        ("ｘ＋１", "x+1"),
        ("设 $x$ ，则", "设 x，则"),
    ],
)
def test_layout_makes_no_difference(one, other):
    assert normal_form(one) == normal_form(other) != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1+1", "1-1"),
        ("1 2", "12"),
        ("1.5", "15"),
        ("1,5", "15"),
        ("3:4", "34"),
        ("5!", "5"),
        ("\\sin x", "\\cos x"),
        ("\\tan 22.5", "\\tan 225"),
        ("x^{a+b}", "x^{a}+b"),
        ("x_2", "x^2"),
        ("\\frac{12}{5}", "\\frac{1}{25}"),
        ("\\{x\\}", "{x}"),
        ("(a+b)c", "a+(bc)"),
        ("x < 1", "x \\le 1"),
        ("x > 1", "x < 1"),
        ("|x|", "x"),
        ("面积", "周长"),
    ],
)
def test_mathematics_makes_a_difference(one, other):
    assert normal_form(one) != normal_form(other)


def test_answers_are_the_same_as_numbers_and_as_text():
    for one, other in (("5", "5.0"), ("025", "25"), ("$1{,}000$", "1000"), ("1/2", "0.5"), ("7-2\\pi", "7 - 2 \\pi")):
        assert answers_match(one, other)
    for one, other in (("5", "-5"), ("5", "6"), ("1/0", "1"), ("(1,2)", "(2,1)"), ("", "0")):
        assert not answers_match(one, other)


# What is left out.


def test_an_overlap_is_the_same_or_inside_or_near():
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


def test_an_overlap_is_told_once_for_each_set_by_what_is_closest():
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


def test_a_text_is_inside_another_from_a_certain_length_on_and_not_in_a_number():
    enough = "x" * (hygiene.SHORTEST_INSIDE - 1) + "1"
    for around in ("{}", "!{}", "{}!", "!" * 40 + "{}" + "!" * 40):
        for shift in range(40):
            given = problems("!" * shift + around.format(enough))
            assert len(removed(given, test=problems(enough))) == 1
    assert removed(problems(f"!{enough}!"), test=problems(enough[1:])) == []
    for text, part in ((f"{enough}2", enough), (f"{enough} 2", enough), (f"2{enough[::-1]}", enough[::-1])):
        alone = part not in text or text[text.index(part) + len(part) :].startswith(" ")
        assert len(removed(problems(f"{text}!"), test=problems(part))) == alone


def test_contradictions_are_all_left_out_and_duplicates_but_the_first():
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


def test_near_duplicates_need_the_same_answer_and_numbers():
    texts = [LONG.replace("A shop", f"{which} shop") for which in ("A", "One", "The", "My")]
    given = [
        Problem(text, answer, id=text[:3]) for text, answer in zip(texts, ("245", "246", "246.0", "245"), strict=True)
    ]
    given.append(Problem(texts[0].replace("30", "31"), "245", id="other numbers"))
    assert removed(given) == [
        ("The", "near duplicate", "train", "One", "near"),
        ("My ", "near duplicate", "train", "A s", "near"),
    ]


def test_in_a_long_text_too_one_other_number_makes_another_problem():
    words = " ".join(f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(100))
    given = problems(f"{words} 7 {words}", f"{words} 8 {words}", f"{words} x7 {words}")
    assert [removal[::3] for removal in removed(given)] == [("p2", "p0")]
    assert removed(given[:1], test=given[1:2]) == []


def test_a_near_duplicate_is_one_of_a_problem_that_stays():
    """In a chain, where each is near to the next and no further, every other one stays."""
    words = [f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(80)]
    chain = [" ".join(["changed"] * i + words[i:]) for i in (0, 3, 6, 9)]
    assert [removal[0] for removal in removed(problems(*chain))] == ["p1", "p3"]


def test_what_is_left_out_first_is_no_reason_for_more():
    same = [Problem(LONG, "1", id="a"), Problem(LONG, "2", id="b"), Problem(LONG, "2", id="c")]
    assert {reason for _, reason, *_ in removed(same, test=problems(LONG))} == {"overlap"}
    assert {reason for _, reason, *_ in removed(same)} == {"contradiction"}


def test_without_anything_to_leave_out_all_stays():
    assert removed(problems("1+1=", "1-1=", "1+1+1=", "")) == []
    assert removed(problems("1+1="), test=[]) == removed([], test=problems("1+1=")) == []


def alike(one: list[str], other: list[str]) -> bool:
    """The definition, once more."""
    sets = [{tuple(part[i : i + 3]) for i in range(len(part) - 2)} or {tuple(part)} for part in (one, other)]
    numbers = [sorted(token for token in part if token.isdigit()) for part in (one, other)]
    return numbers[0] == numbers[1] and len(sets[0] & sets[1]) / len(sets[0] | sets[1]) >= 0.9


def test_near_texts_are_those_of_the_definition():
    draw = random.Random(0)
    words = ["a", "b", "c", "1", "2"]
    texts = [[draw.choice(words) for _ in range(draw.choice((1, 2, 5, 40)))] for _ in range(60)]
    for text in texts[:40]:
        changed = list(text)
        for _ in range(draw.randrange(3)):
            changed[draw.randrange(len(text))] = draw.choice(words)
        texts.append(changed)
    expected = {(i, j) for j, other in enumerate(texts) for i in range(j) if alike(texts[i], other)}
    found = list(hygiene._near_pairs([hygiene._ProblemText(Problem(" ".join(text), "")) for text in texts]))
    assert set(found) == expected
    assert len(found) == len(expected) > 20
    assert any(texts[i] != texts[j] for i, j in expected)


def test_texts_inside_others_are_those_of_the_definition():
    draw = random.Random(0)
    whole = ["".join(draw.choice("ab") for _ in range(draw.randrange(30, 120))) for _ in range(40)]
    parts = [text[draw.randrange(8) : len(text) - draw.randrange(8)] for text in whole]
    found = {(r.id, r.source) for r in clean(problems(*whole), {part: problems(part) for part in parts}).removals}
    expected = {(f"p{i}", part) for i, text in enumerate(whole) for part in parts if part in text and len(part) >= 32}
    assert {each for each in found if each in expected} == expected
    assert len(expected) > 20


def test_the_result_depends_on_no_hash_seed():
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


# How it is told.


@pytest.fixture
def cleaned():
    given = [
        *problems("x", "x.", "y"),
        *(Problem("z", answer, id=answer) for answer in ("1", "2")),
        *problems(f"{LONG} Hurry!", LONG, name="l"),
    ]
    return clean(given, {"aime24": problems(LONG, name="t"), "amc23": problems(LONG, name="s"), "none": []})


def test_the_table_has_every_reason_and_every_set(cleaned):
    assert cleaned.table().splitlines() == [
        "7 training problems: 2 kept, 5 left out",
        "       2  contradiction",
        "       1  duplicate",
        "       2  overlap with aime24 (1 the same, 1 with more text around)",
        "       2  overlap with amc23 (1 the same, 1 with more text around)",
    ]
    assert clean(problems("x"), {}).table() == "1 training problems: 1 kept, 0 left out"


def test_all_of_it_is_json(cleaned):
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


# In a run.


def write(path, *texts, answer="1"):
    path.write_text("".join(json.dumps(p._asdict()) + "\n" for p in problems(*texts, answer=answer, name=path.stem)))
    return str(path)


@pytest.fixture
def files(tmp_path):
    tokenizer = train_sentencepiece(["0123456789+-= "], tmp_path / "t.model", symbols=())
    return {
        "data__train": write(tmp_path / "train.jsonl", "1+1=", "1 + 1 =", "2+2=", "3+3=", "4+4=", "5+5="),
        "data__validation": write(tmp_path / "validation.jsonl", "2 + 2=", "2+2="),
        "data__test": write(tmp_path / "test.jsonl", "3+3="),
        "data__exclude": f" {write(tmp_path / 'more.jsonl', '4 +4=')}, other,",
        "data__folder": str(tmp_path),
        "data__tokenizer": str(tokenizer),
        "data__other": write(tmp_path / "other.jsonl", "9+9="),
    }


def dataset(files, folder, **changes):
    named = {name: value for name, value in files.items() if name != "data__other"} | changes
    return load_dataset(small(**named), folder)


def test_a_run_trains_on_clean_problems_and_evaluates_on_all(files, tmp_path):
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


def test_hygiene_can_be_had_without(files, tmp_path):
    found = dataset(files, tmp_path, data__hygiene=False, data__exclude="")
    assert (found.hygiene, len(found.tables["train"].prompts)) == (None, 6)


def test_generated_problems_and_given_ones_stay_as_they_are(files, tmp_path):
    generated = load_dataset(small(data__max_prompt_tokens=64), tmp_path)
    assert generated.hygiene is None
    assert generated.tables["train"].problems == split(all_problems(small().data.arithmetic_max_operand))["train"]
    config = small(**{name: value for name, value in files.items() if name != "data__other"})
    given = load_dataset(config, tmp_path, read_splits(config, ("train",)))
    assert (given.hygiene, len(given.tables["train"].prompts)) == (None, 6)


def test_where_nothing_is_left_it_is_said(files, tmp_path):
    words = r"train.jsonl: no problem is left\n6 training problems: 0 kept, 6 left out\n(.*\n)+give other problems, or "
    with pytest.raises(ValueError, match=words):
        dataset(files, tmp_path, data__exclude=files["data__train"])


def test_an_evaluation_set_that_is_not_there_is_said(files, tmp_path):
    with pytest.raises(ValueError, match="'math50' is neither an existing file.*did you mean 'math500'"):
        dataset(files, tmp_path, data__exclude="math50")


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [({}, "a file by config.data.train"), ({"data__train": "x", "data__hygiene": False}, "config.data.hygiene=true")],
)
def test_an_exclusion_that_would_do_nothing_is_refused(changes, remedy):
    with pytest.raises(ValueError, match=f"config.data.exclude='aime24': only hygiene leaves .* give {remedy}, or"):
        load(settings(data__exclude="aime24", **changes))


# By itself.


def test_a_command_line_cleans_a_file(files, tmp_path, capsys):
    output, report = tmp_path / "clean.jsonl", tmp_path / "report.json"
    main(
        [
            f"--problems={files['data__train']}",
            "--exclude=test, validation",
            f"--folder={tmp_path}",
            f"--output={output}",
        ]
    )
    assert [problem.problem for problem in read(str(output))] == ["1+1=", "4+4=", "5+5="]
    assert read(str(output)) == [problem for problem in read(files["data__train"]) if problem.problem[0] in "145"][
        :1
    ] + [problem for problem in read(files["data__train"]) if problem.problem[0] in "45"]
    assert capsys.readouterr().out.splitlines() == [
        "6 training problems: 3 kept, 3 left out",
        "       1  duplicate",
        "       1  overlap with test (1 the same)",
        "       1  overlap with validation (1 the same)",
    ]
    main(
        [
            "--problems=train",
            f"--folder={tmp_path}",
            f"--report={report}",
            "--answer_field=id",
            "--solution_field=answer",
        ]
    )
    assert json.loads(report.read_text())["left_out"] == {"contradiction": 2}
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--problems=gsm8k_tran"], "error: 'gsm8k_tran' is neither an existing file .*did you mean 'gsm8k_train'"),
        (
            ["--problems={train}", "--answer_field=gold"],
            "error: .*no field 'gold'.*set --answer_field to the one that holds it",
        ),
        (
            ["--problems=math500", "--folder={folder}"],
            "error: --folder=.* has no file math500.jsonl or .*; without --folder,",
        ),
        (["--problems={train}", "--output=/nowhere/x"], "error: .*No such file or directory: '/nowhere/x'"),
        (["--exclude=math500"], "the following arguments are required: --problems"),
        (["--problem={train}"], "the following arguments are required: --problems"),
    ],
)
def test_what_is_wrong_is_one_message(files, tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main([word.format(train=files["data__train"], folder=tmp_path) for word in words])
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert re.search(message, line)


def test_it_needs_neither_a_device_nor_jax():
    code = "import sys; sys.modules['jax'] = None; import runpy; runpy.run_module('nft_jax.data', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m nft_jax.data --problems=dapo_math_17k" in done.stdout


# On real problems.

BENCHMARKS = ("aime24", "aime25", "amc23", "math500", "olympiadbench", "minerva_math", "gsm8k_test")
# Found by comparing texts without dots and commands: "tan 225" is neither "tan 22.5" nor "cos 225".
NO_OVERLAPS = {"math-train-2865"}


@pytest.mark.parametrize(
    ("name", "left_out"), [("dapo_math_17k", (2400, 2800)), ("math_train", (20, 40)), ("gsm8k_train", (0, 5))]
)
def test_every_known_overlap_of_real_problems_is_found(data_folder, name, left_out):
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


def test_overlaps_like_the_known_ones_are_found():
    """The twin of the test on real problems: texts set in the ways that theirs differ."""
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
