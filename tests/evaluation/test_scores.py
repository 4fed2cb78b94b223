"""Scores of graded answers: accuracies, pass@k and majority votes."""

import itertools
import json
import math

import numpy as np
import pytest

from nft_jax.evaluation.scores import Answers, judge_by_second, maj_at_k, pass_at_k, score
from nft_jax.evaluation.tables import format_score, mean_score
from nft_jax.run.workdir import as_json
from nft_jax.verify.callback import NOT_GRADED
from nft_jax.verify.grade import STATUSES


def answers_by_hand(correct_EK) -> Answers:
    correct_EK = np.array(correct_EK, bool)
    length_EK = np.arange(correct_EK.size, dtype=np.int32).reshape(correct_EK.shape)
    verdict_EK = np.where(correct_EK, STATUSES.index("correct"), STATUSES.index("incorrect"))
    tokens, second = np.zeros((*correct_EK.shape, 3), np.int32), np.full(correct_EK.shape, NOT_GRADED)
    return Answers(tokens, -0.5 * length_EK, length_EK, length_EK == 0, verdict_EK, correct_EK, second)


def test_score_equals_the_one_by_hand():
    answers = answers_by_hand([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]])
    answers.verdict_EK[2, 1:] = [STATUSES.index(status) for status in ("unparsed", "timeout", "incorrect")]
    found = score(answers)
    assert found.greedy == 2 / 5
    # Sample variance of 1, 0, 0, 0, 1 is 0.3; of the shares 1/3, 1, 0, 1/3, 1 it is 0.2. Over 5 problems, the root.
    assert found.greedy_error == pytest.approx((0.3 / 5) ** 0.5)
    assert found.sampled == pytest.approx(8 / 15)
    assert found.sampled_error == pytest.approx((0.2 / 5) ** 0.5)
    # One of three answers is correct: two of them miss it in one case of three.
    assert found.pass_at == {1: pytest.approx(8 / 15), 2: pytest.approx((2 / 3 + 1 + 0 + 2 / 3 + 1) / 5), 3: 4 / 5}
    assert found.verdicts == {"incorrect": 5, "correct": 8, "unparsed": 1, "timeout": 1, "error": 0}
    assert found.truncated == 1 / 20
    assert found.length == 9.5
    assert found.entropy == pytest.approx(0.5)
    assert found.problems == 5
    assert "sampled 0.533" not in format_score("test", found)
    assert format_score("test", found) == (
        "test: greedy 0.400 ± 0.245, avg@3 0.533 ± 0.200, pass@3 0.800, length 9.5, cut 0.050 (5 problems)"
    )


def test_judge_by_second_takes_its_verdicts_and_never_a_cut_answer():
    answers = answers_by_hand([[1, 0, 1], [0, 0, 0]])
    correct = STATUSES.index("correct")
    answers.second_EK[:] = [[correct, correct, STATUSES.index("unparsed")], [correct, NOT_GRADED, NOT_GRADED]]
    found = judge_by_second(answers)
    # By length, the first answer was cut.
    assert found.correct_EK.tolist() == [[False, True, False], [True, False, False]]
    assert score(found).greedy == 0.5
    assert score(found).verdicts == {"incorrect": 2, "correct": 1, "unparsed": 1, "timeout": 0, "error": 0}


def test_mean_score_keeps_nothing_of_one_file_alone():
    one, other = score(answers_by_hand([[1, 0, 1]] * 3)), score(answers_by_hand([[0, 0, 1], [1, 1, 1]]))
    other = other._replace(entropy=2.0)
    mean = mean_score([one, other])
    assert mean == mean_score([other, one]) and mean_score([one]) == one
    assert (mean.entropy, mean.problems, mean.verdicts["correct"]) == ((one.entropy + 2) / 2, 5, 6)


def test_score_of_one_problem_has_no_error():
    found = score(answers_by_hand([[1, 0, 1]]))
    assert (found.greedy, found.greedy_error, found.sampled, found.sampled_error) == (1, None, 0.5, None)
    assert format_score("test", found).startswith("test: greedy 1.000, avg@2 0.500, pass@2 1.000, ")


def test_format_score_shows_the_largest_k_that_was_asked_for():
    found = score(answers_by_hand([[1, 1, 0, 0]] * 2), pass_at=(2, 1))
    assert ", pass@2 0.667, " in format_score("test", found)


def test_score_as_json(tmp_path):
    found = json.loads(json.dumps(as_json(score(answers_by_hand([[1, 0, 1, 0, 0, 0]]))), allow_nan=False))
    assert found["pass_at"] == pytest.approx({"1": 0.2, "2": 0.4, "4": 0.8, "5": 1.0})
    assert found["greedy_error"] is None


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_answer(n):
    for correct in range(n + 1):
        for k in range(1, n + 1):
            hit = [min(subset) < correct for subset in itertools.combinations(range(n), k)]
            assert pass_at_k(n, correct, k) == pytest.approx(np.mean(hit), abs=1e-12), (correct, k)


def test_pass_at_k_is_exact_where_binomials_overflow():
    n = 4000
    for correct, k in ((1, 1), (1, 4000), (3, 2000), (40, 64), (4000, 1), (4000, 4000), (0, 4000), (2000, 2000)):
        exact = 1 - math.comb(n - correct, k) / math.comb(n, k) if k <= n - correct else 1
        assert pass_at_k(n, correct, k) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    ("n", "ks"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (16, [1, 2, 4, 8, 16]), (6, [1, 2, 4, 6])]
)
def test_score_pass_at_powers_of_two_and_n(n, ks):
    assert list(score(answers_by_hand([[0] * (n + 1)] * 2)).pass_at) == ks


# Majority votes.


@pytest.mark.parametrize(
    ("votes", "correct", "expected"),
    [
        ("aab", [1, 1, 0], 1),
        ("abb", [1, 0, 0], 0),
        ("ab", [1, 0], 1 / 2),
        ("abcc", [1, 0, 1, 1], 1),
        ("aabbc", [1, 1, 0, 0, 1], 1 / 2),
        ([None, None, None, "a"], [0, 0, 0, 1], 1),
        ([None, None], [1, 1], 0),
        # Equal as text, graded differently (one was truncated): the share of correct ones.
        ("aaab", [1, 1, 0, 1], 2 / 3),
    ],
)
def test_maj_at_k_of_all_answers(votes, correct, expected):
    assert maj_at_k(votes, correct, len(votes)) == pytest.approx(expected)


def test_maj_at_k_approximates_the_mean_over_all_subsets():
    """Against every subset; the mean of 256 random ones has a standard deviation of at most 0.5 / 16."""
    random = np.random.default_rng(3)
    for _ in range(10):
        votes, correct = random.choice([*"abcd", None], 7).tolist(), random.integers(0, 2, 7).tolist()
        for k in (2, 3, 5):
            every = [
                maj_at_k([votes[i] for i in chosen], [correct[i] for i in chosen], k)
                for chosen in itertools.combinations(range(7), k)
            ]
            assert maj_at_k(votes, correct, k) == pytest.approx(np.mean(every), abs=4 * 0.5 / 16)
            assert maj_at_k(votes, correct, k) == maj_at_k(votes, correct, k)
