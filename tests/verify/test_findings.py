"""What a person reads of a verdict: the text that was read as the answer, and why it is not correct."""

import pytest

from nft_jax.verify.findings import Finding, explain, key_of
from nft_jax.verify.grade import GRADERS, STATUSES, Verdict, grade

ANSWERS = (r"so \boxed{5}", r"so \boxed{6}", "no answer here", r"it is \boxed{5", "")
UNREADABLE = r"\boxed{\frac{5}}"


@pytest.mark.parametrize("name", GRADERS)
def test_explain_gives_a_reason_for_what_is_not_correct_alone(name):
    found = [explain(grade(response, "5", grader=name), name) for response in ANSWERS]
    verdicts = [grade(response, "5", grader=name) for response in ANSWERS]
    assert [finding.reason == "" for finding in found] == [verdict.status == "correct" for verdict in verdicts]
    assert found[:2] == [Finding("5", ""), Finding("6", "not the reference")]
    assert found[4].extracted is None and found[4].reason.startswith("no ")


def test_explain_tells_what_cannot_be_read_from_what_is_not_there():
    assert explain(grade(UNREADABLE, "5", grader="math"), "math").reason == "it can't be read as mathematics"
    assert explain(grade(UNREADABLE, "5", grader="boxed_exact"), "boxed_exact").reason == "not the reference"


@pytest.mark.parametrize("status", STATUSES)
def test_explain_any_verdict_of_a_grader_of_ones_own(status):
    finding = explain(Verdict(status, None, 0.1, "it broke"), "mine:grader")
    assert finding.extracted is None and bool(finding.reason) == (status != "correct")
    assert ("it broke" in finding.reason) == (status in ("timeout", "error"))


def test_keys_differ_by_problem_and_tokens():
    assert key_of(1, [2, 3]) == key_of(1, (2, 3))
    assert len({key_of(*given) for given in ((1, [2, 3]), (2, [2, 3]), (1, [2]), (1, [3, 2]), (12, [3]))}) == 5
