"""Held-out evaluation: one program for all weights and splits, greedy without noise, and scores that add up."""

import dataclasses
import itertools
import json
import math

import jax
import numpy as np
import pytest

from helpers.experiments import JudgedPool, assert_same, compilations, experiment_on, grader, small, write_graders
from helpers.small_parts import lively_weights
from nft_jax.evaluation.evaluator import MOST_ANSWERS, MOST_PROBLEMS, Evaluator
from nft_jax.evaluation.scores import Answers, maj_at_k, pass_at_k, score
from nft_jax.run.metrics import format_score
from nft_jax.run.workdir import as_json
from nft_jax.verify.callback import NOT_ASKED
from nft_jax.verify.grade import STATUSES

PROBLEMS, K = 6, 5
# Six problems in batches of four: two places are padding. Four times five answers divide over no eight devices, and
# the user, who hears of it after the warm start, never asked for a multiple of anything.
SIZES = {
    "evaluation__max_problems": PROBLEMS,
    "evaluation__problems_per_batch": 4,
    "evaluation__answers_per_problem": K - 1,
}


@pytest.fixture(scope="module")
def evaluators(tmp_path_factory):
    """`(*splits, **changes) -> (evaluator, weights on its mesh)`, each compiled once; by default of both splits."""
    folder, made = write_graders(tmp_path_factory.mktemp("evaluation")), {}

    def make(splits, changes):
        experiment = experiment_on(small(verify__grader=grader("coin"), **SIZES | changes), folder)
        weights = experiment.place(lively_weights(experiment.config.model), experiment.weight_specs)
        tables = {name: experiment.dataset.tables[name] for name in splits or ("validation", "test")}
        return Evaluator(experiment, tables, experiment.abstract_weights()), weights

    def get(*splits, **changes):
        name = str((splits, changes))
        if name not in made:
            made[name] = make(splits, changes)
        return made[name]

    yield get
    for evaluator, _ in made.values():
        evaluator.experiment.pool.close()


def test_one_program_evaluates_all_weights_and_splits(evaluators):
    evaluator, weights = evaluators()
    other = jax.tree.map(lambda x: x * 1.5, weights)
    evaluator(weights, "validation")
    with compilations() as seen:
        first, second, changed = (evaluator(given, "validation") for given in (weights, weights, other))
        test = evaluator(weights, "test")
        assert seen == []
    assert_same(first, second)
    assert (first.token_EKT != changed.token_EKT).any()
    assert (first.token_EKT != test.token_EKT).any()
    for answers in (first, test):
        assert answers.token_EKT.shape == (PROBLEMS, K, 16)
        assert answers.correct_EK.any()
        assert not answers.correct_EK.all()


def test_answers_come_batch_by_batch(evaluators):
    evaluator, weights = evaluators()
    batches = evaluator.batches(weights, "test")
    pool = evaluator.experiment.pool
    pool.items.clear()
    first = next(batches)
    graded = len(pool.items)
    assert graded == (~first.truncated_EK).sum() > 0
    (second,) = batches
    assert (len(first.length_EK), len(second.length_EK)) == (4, 2)
    assert len(pool.items) > graded
    whole = evaluator(weights, "test")
    assert_same(Answers(*(np.concatenate(pair) for pair in zip(first, second, strict=True))), whole)


def test_greedy_answers_hold_no_noise(evaluators):
    (evaluator, weights), (seeded, same_weights) = evaluators(), evaluators(seed=1)
    mine, its = evaluator(weights, "test"), seeded(same_weights, "test")
    np.testing.assert_array_equal(mine.token_EKT[:, 0], its.token_EKT[:, 0])
    assert (mine.token_EKT[:, 1:] != its.token_EKT[:, 1:]).any(axis=-1).all()
    # The sampled answers to a problem are different draws.
    assert all(len({tuple(row) for row in mine.token_EKT[e].tolist()}) > 1 for e in range(PROBLEMS))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_padding_is_neither_graded_nor_counted(evaluators, split):
    evaluator, weights = evaluators()
    pool = evaluator.experiment.pool
    pool.items.clear()
    pool.pool = JudgedPool(lambda *_: "correct")
    answers = evaluator(weights, split)
    pool.pool = pool.own
    assert not answers.truncated_EK[-1].all()  # what padding repeats is gradable
    assert len(pool.items) == (~answers.truncated_EK).sum()
    # Each answer is graded against its own problem, and that of its own split.
    texts = evaluator.experiment.tokenizer.decode_batch(
        [answers.token_EKT[e, k, : answers.length_EK[e, k]] for e, k in np.argwhere(~answers.truncated_EK)]
    )
    references = [evaluator.tables[split].answers[e] for e, _ in np.argwhere(~answers.truncated_EK)]
    assert sorted(pool.items) == sorted(zip(texts, references, strict=True))
    # What was cut is not right, whatever the verifier would say.
    np.testing.assert_array_equal(answers.correct_EK, ~answers.truncated_EK)
    assert score(answers).problems == PROBLEMS


# What an answer depends on.


def assert_alike(one: Answers, other: Answers) -> None:
    """The same tokens and verdicts bit for bit, and log-probs to rounding: programs of other sizes add up otherwise."""
    assert_same(one._replace(logp_EK=None), other._replace(logp_EK=None))
    np.testing.assert_allclose(one.logp_EK, other.logp_EK, rtol=1e-5, atol=1e-5)


def test_eight_devices_give_the_answers_of_one(evaluators):
    (one, weights), (eight, spread) = evaluators(), evaluators(mesh__data=4, mesh__tensor=2)
    for split in ("validation", "test"):
        assert_alike(one(weights, split), eight(spread, split))


@pytest.mark.parametrize(
    "changes", [{"evaluation__problems_per_batch": 3}, {"evaluation__problems_per_batch": 6}], ids=str
)
def test_the_batch_does_not_matter(evaluators, changes):
    (one, weights), (other, same) = evaluators(), evaluators(**changes)
    assert other.batch == changes["evaluation__problems_per_batch"]
    assert_alike(one(weights, "test"), other(same, "test"))


def test_the_other_splits_do_not_matter(evaluators):
    (both, weights), (alone, same), (turned, again) = (
        evaluators(*splits) for splits in ((), ("test",), ("test", "validation"))
    )
    assert_alike(both(weights, "test"), alone(same, "test"))
    assert_alike(both(weights, "validation"), turned(again, "validation"))


def test_more_problems_and_more_answers_leave_the_others_as_they_were(evaluators):
    (few, weights), (many, same) = (
        evaluators(),
        evaluators(evaluation__max_problems=7, evaluation__answers_per_problem=7),
    )
    mine, its = few(weights, "test"), many(same, "test")
    assert its.token_EKT.shape[:2] == (7, 8)
    assert_alike(mine, jax.tree.map(lambda x: x[:PROBLEMS, :K], its))


def test_zero_takes_all_problems(evaluators):
    evaluator, _ = evaluators("test", evaluation__max_problems=0, evaluation__problems_per_batch=8)
    there = len(evaluator.tables["test"].answers)
    assert evaluator.problems == {"test": there}
    assert there > PROBLEMS


def test_a_split_smaller_than_the_batch_is_taken_whole(evaluators):
    """Its places beyond the end are padding, while another split fills the batch."""
    evaluator, weights = evaluators()
    table = evaluator.tables["test"]
    two = table._replace(token_NP=table.token_NP[:2], length_N=table.length_N[:2], answers=table.answers[:2])
    mixed = Evaluator(evaluator.experiment, {"two": two, "validation": evaluator.tables["validation"]}, weights)
    assert mixed.problems == {"two": 2, "validation": PROBLEMS}
    assert_alike(mixed(weights, "two"), jax.tree.map(lambda x: x[:2], evaluator(weights, "test")))
    assert_alike(mixed(weights, "validation"), evaluator(weights, "validation"))


TRUNCATED = {"evaluation__temperature": 0.6, "evaluation__top_p": 0.7, "evaluation__top_k": 5}


def test_settings_of_sampling_are_of_the_sampled_answers_alone(evaluators):
    (plain, weights), (truncated, same) = evaluators(), evaluators("test", **TRUNCATED)
    one, other = plain(weights, "test"), truncated(same, "test")
    np.testing.assert_array_equal(one.token_EKT[:, 0], other.token_EKT[:, 0])
    assert (one.token_EKT[:, 1:] != other.token_EKT[:, 1:]).any()
    # The training rollout keeps its own.
    assert truncated.experiment.engine.config == plain.experiment.engine.config
    (eight, spread) = evaluators("test", **TRUNCATED, mesh__data=4, mesh__tensor=2)
    assert_alike(other, eight(spread, "test"))


@pytest.mark.parametrize("changes", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-3}], ids=str)
def test_sampling_that_leaves_one_token_is_greedy(evaluators, changes):
    evaluator, weights = evaluators("test", **{f"evaluation__{name}": value for name, value in changes.items()})
    answers = evaluator(weights, "test")
    assert (answers.token_EKT == answers.token_EKT[:, :1]).all()


def test_more_than_there_are_request_numbers_is_said_before_anything_is_compiled(evaluators):
    evaluator, weights = evaluators()
    experiment, tables = evaluator.experiment, evaluator.tables
    config = experiment.config
    assert MOST_ANSWERS * MOST_PROBLEMS == 2**32
    try:
        with compilations() as seen:
            for changes, words in (
                ({"answers": MOST_ANSWERS}, "config.evaluation.answers_per_problem=4096: use at most 4095"),
                ({"problems": 0}, "much has 1048577 problems.*config.evaluation.max_problems to at most 1048576"),
            ):
                evaluation = dataclasses.replace(config.evaluation, **changes)
                experiment.config = dataclasses.replace(config, evaluation=evaluation)
                much = tables["test"]._replace(answers=["1"] * (MOST_PROBLEMS + 1))
                with pytest.raises(ValueError, match=words):
                    Evaluator(experiment, {"much": much}, weights)
        assert seen == []
    finally:
        experiment.config = config


# What answers are worth.


def answers_by_hand(right_EK) -> Answers:
    right_EK = np.array(right_EK, bool)
    length_EK = np.arange(right_EK.size, dtype=np.int32).reshape(right_EK.shape)
    verdict_EK = np.where(right_EK, STATUSES.index("correct"), STATUSES.index("incorrect"))
    tokens, asked = np.zeros((*right_EK.shape, 3), np.int32), np.full(right_EK.shape, NOT_ASKED)
    return Answers(tokens, -0.5 * length_EK, length_EK, length_EK == 0, verdict_EK, right_EK, asked)


def test_a_score_equals_the_one_by_hand():
    answers = answers_by_hand([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]])
    answers.verdict_EK[2, 1:] = [STATUSES.index(status) for status in ("unparsed", "timeout", "incorrect")]
    found = score(answers)
    assert found.greedy == 2 / 5
    # Sample variance of 1, 0, 0, 0, 1 is 0.3; of the shares 1/3, 1, 0, 1/3, 1 it is 0.2. Over 5 problems, the root.
    assert found.greedy_error == pytest.approx((0.3 / 5) ** 0.5)
    assert found.sampled == pytest.approx(8 / 15)
    assert found.sampled_error == pytest.approx((0.2 / 5) ** 0.5)
    # Of three answers, one right: two of them miss it in one case of three.
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


def test_a_score_of_one_problem_has_no_error_to_tell():
    found = score(answers_by_hand([[1, 0, 1]]))
    assert (found.greedy, found.greedy_error, found.sampled, found.sampled_error) == (1, None, 0.5, None)
    assert format_score("test", found).startswith("test: greedy 1.000, avg@2 0.500, pass@2 1.000, ")


def test_a_score_is_json(tmp_path):
    found = json.loads(json.dumps(as_json(score(answers_by_hand([[1, 0, 1, 0, 0, 0]]))), allow_nan=False))
    assert found["pass_at"] == pytest.approx({"1": 0.2, "2": 0.4, "4": 0.8, "5": 1.0})
    assert found["greedy_error"] is None


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n):
    for right in range(n + 1):
        for k in range(1, n + 1):
            hit = [min(subset) < right for subset in itertools.combinations(range(n), k)]
            assert pass_at_k(n, right, k) == pytest.approx(np.mean(hit), abs=1e-12), (right, k)


def test_pass_at_k_stays_exact_where_the_binomials_overflow():
    n = 4000
    for right, k in ((1, 1), (1, 4000), (3, 2000), (40, 64), (4000, 1), (4000, 4000), (0, 4000), (2000, 2000)):
        exact = 1 - math.comb(n - right, k) / math.comb(n, k) if k <= n - right else 1
        assert pass_at_k(n, right, k) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    ("n", "ks"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (16, [1, 2, 4, 8, 16]), (6, [1, 2, 4, 6])]
)
def test_pass_is_at_powers_of_two_and_all(n, ks):
    assert list(score(answers_by_hand([[0] * (n + 1)] * 2)).pass_at) == ks


# Majority votes.


@pytest.mark.parametrize(
    ("keys", "right", "expected"),
    [
        ("aab", [1, 1, 0], 1),
        ("abb", [1, 0, 0], 0),
        ("ab", [1, 0], 1 / 2),
        ("abcc", [1, 0, 1, 1], 1),
        ("aabbc", [1, 1, 0, 0, 1], 1 / 2),
        ([None, None, None, "a"], [0, 0, 0, 1], 1),
        ([None, None], [1, 1], 0),
        # Equal as text, graded differently (one was cut): the share of right ones.
        ("aaab", [1, 1, 0, 1], 2 / 3),
    ],
)
def test_the_majority_of_all_answers(keys, right, expected):
    assert maj_at_k(keys, right, len(keys)) == pytest.approx(expected)


def test_the_majority_of_some_answers_is_that_of_all_choices_of_them():
    """Against every subset; 256 drawn ones are off by at most 0.5 / 16 in standard deviation."""
    random = np.random.default_rng(3)
    for _ in range(10):
        keys, right = random.choice([*"abcd", None], 7).tolist(), random.integers(0, 2, 7).tolist()
        for k in (2, 3, 5):
            every = [
                maj_at_k([keys[i] for i in chosen], [right[i] for i in chosen], k)
                for chosen in itertools.combinations(range(7), k)
            ]
            assert maj_at_k(keys, right, k) == pytest.approx(np.mean(every), abs=4 * 0.5 / 16)
            assert maj_at_k(keys, right, k) == maj_at_k(keys, right, k)
