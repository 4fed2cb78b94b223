"""`grade` in this process: the statuses, `boxed_exact`, and custom graders."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nft_jax.verify import STATUSES, Verdict, grade
from nft_jax.verify.grade import BOX_TAIL_CHARACTERS, GRADERS, resolve_grader

ROOT = Path(__file__).resolve().parents[2]


def test_statuses_have_a_fixed_order():
    # Arrays of codes start as zeros, and rollouts store the codes.
    assert STATUSES == ("incorrect", "correct", "unparsed", "timeout", "error")


@pytest.mark.parametrize(
    ("response", "answer", "status", "extracted"),
    [
        (r"so \boxed{5}", "5", "correct", "5"),
        (r"so \boxed{ 5 }", " 5\n", "correct", "5"),
        (r"so \boxed{05}", "5", "incorrect", "05"),
        (r"\boxed{5} no, \boxed{6}", "5", "incorrect", "6"),
        (r"5", "5", "unparsed", None),
        (r"\boxed{5", "5", "unparsed", None),
        ("", "", "unparsed", None),
        (r"\boxed{}", "", "correct", ""),
    ],
)
def test_boxed_exact(response, answer, status, extracted):
    verdict = grade(response, answer, grader="boxed_exact")
    assert verdict[:2] == (status, extracted)
    assert verdict.seconds >= 0
    assert verdict.reason == ""


def test_boxed_exact_needs_a_box_near_the_end():
    box = r"\boxed{5}"
    assert grade(box + "x" * (BOX_TAIL_CHARACTERS - len(box)), "5", grader="boxed_exact").status == "correct"
    assert grade(box + "x" * (BOX_TAIL_CHARACTERS - len(box) + 1), "5", grader="boxed_exact").status == "unparsed"
    # The answer itself may be long, as long as the box still starts inside.
    assert (
        grade(
            "x" * 9999 + r"\boxed{" + "7" * (BOX_TAIL_CHARACTERS - 8) + "}",
            "7" * (BOX_TAIL_CHARACTERS - 8),
            grader="boxed_exact",
        ).status
        == "correct"
    )


@pytest.mark.parametrize(
    ("response", "status", "extracted"),
    [
        (r"so \boxed{5}", "correct", "5"),
        (r"so \boxed{ 5 }", "incorrect", " 5 "),
        (r"\boxed{5} or \boxed {6}", "correct", "5"),
        (r"\boxed{\boxed{5}}", "correct", "5"),
        (r"\boxed{5} and \boxed{6", "unparsed", None),
        (r"\boxed{5}" + "x" * 91, "correct", "5"),
        (r"\boxed{5}" + "x" * 92, "unparsed", None),
    ],
)
def test_boxed_strict_is_the_reward_of_the_nft_release(response, status, extracted):
    assert grade(response, "5", grader="boxed_strict")[:2] == (status, extracted)


@pytest.mark.parametrize(
    ("returned", "status"),
    [
        (True, "correct"),
        (False, "incorrect"),
        (np.bool_(True), "correct"),
        ("unparsed", "unparsed"),
        (("incorrect", "7"), "incorrect"),
        (1, "error"),
        (None, "error"),
        (1.0, "error"),
        ("splendid", "error"),
        (("correct", 7), "error"),
    ],
)
def test_grade_reads_what_a_grader_returns(returned, status):
    verdict = grade("r", "a", grader=lambda response, answer: returned)
    assert verdict.status == status
    assert bool(verdict.reason) == (status == "error")


@pytest.mark.parametrize(
    ("returned", "status", "earned"),
    [
        (0.4, "incorrect", 0.4),
        (0.5, "correct", 0.5),
        (np.float32(0.75), "correct", 0.75),
        ((0.25, "7"), "incorrect", 0.25),
        (1, "correct", 1.0),
        (True, "correct", 1.0),
        ("unparsed", "unparsed", 0.0),
        (1.01, "error", 0.0),
        (float("nan"), "error", 0.0),
    ],
)
def test_grade_reads_rewards_where_it_is_told_which_are_correct(returned, status, earned):
    verdict = grade("r", "a", grader=lambda response, answer: returned, correct_from=0.5)
    assert (verdict.status, verdict.earned) == (status, earned)
    if isinstance(returned, float):
        told = grade("r", "a", grader=lambda response, answer: returned)
        assert told.status == "error"
        assert "config.verify.correct_from" in told.reason


def test_grade_turns_exceptions_into_errors_with_a_reason():
    def divides(response, answer):
        return 1 / 0

    def exits(response, answer):
        sys.exit(1)

    assert grade("r", "a", grader=divides).reason == "ZeroDivisionError: division by zero"
    assert grade("r", "a", grader=exits).status == "error"


def test_grade_raises_an_interrupt():
    def interrupted(response, answer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grade("r", "a", grader=interrupted)


def test_resolve_grader_by_name():
    assert grade("x", "x", grader="operator:eq").status == "correct"
    assert grade("x", "y", grader="operator:eq") == Verdict("incorrect", None, pytest.approx(0, abs=60))
    assert resolve_grader("boxed_exact") is GRADERS["boxed_exact"]


@pytest.mark.parametrize("name", ["boxed_exakt", "", ":", "module:", ":function", "nothing"])
def test_resolve_grader_refuses_unknown_names(name):
    with pytest.raises(ValueError, match="boxed_exact.*module:function") as caught:
        resolve_grader(name)
    assert repr(name) in str(caught.value)
    assert ("did you mean 'boxed_exact'?" in str(caught.value)) == (name == "boxed_exakt")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_here:f", "there is no module 'no_such_module_here'; it must be installed, or in a folder of"),
        ("operator:equals", "unknown function 'equals' of module 'operator': known are"),
        ("sys:maxsize", "'sys:maxsize' is a int, not a function"),
        ("operator:neg", r"has the arguments \(a, /\), but it is called as grader\(response, answer\)"),
    ],
)
def test_resolve_grader_names_what_is_wrong_with_a_module(name, words):
    with pytest.raises(ValueError, match=words):
        resolve_grader(name)


def test_grade_imports_no_jax():
    code = (
        "import sys; from nft_jax.verify import grade; assert grade(r'\\boxed{1}', '1').status == 'correct'; "
        "print(sorted({n.split('.')[0] for n in sys.modules} & {'jax', 'jaxlib', 'numpy'}))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _real_responses() -> list[dict]:
    folder = Path(os.environ.get("NFT_JAX_DATA", ROOT.parent / "shared" / "data"))
    path = folder / "verifier" / "model_outputs.jsonl"
    if not path.exists():
        pytest.skip(f"no {path}: set NFT_JAX_DATA to the folder that holds verifier/")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_boxed_exact_on_real_responses():
    rows = _real_responses()
    verdicts = [grade(row["response"], row["gold"], grader="boxed_exact") for row in rows]
    assert not any(verdict.status == "error" for verdict in verdicts)
    exact = [row["correct"] for row, verdict in zip(rows, verdicts, strict=True) if verdict.status == "correct"]
    assert len(exact) > 100
    assert all(exact)
    # The same responses with their reference answer in a box behind them.
    closed = [(row["response"] + f"\n\\boxed{{{row['gold']}}}", row["gold"]) for row in rows]
    assert all(grade(*item, grader="boxed_exact").status == "correct" for item in closed)
