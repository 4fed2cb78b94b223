"""Held-out evaluation: one program for all weights, greedy without noise, and scores that add up."""

import jax
import numpy as np
import pytest
from experiments import JudgedPool, assert_same, compilations, experiment_on, grader, small, write_graders
from small_parts import lively_weights

from nft_jax.training.evaluation import Answers, Evaluator, score
from nft_jax.verify.grade import STATUSES

PROBLEMS, K = 6, 5
# Six problems in batches of four: two places are padding. Four times five answers divide over no eight devices, and
# the user, who hears of it after the warm start, never asked for a multiple of anything.
SIZES = {"evaluation__problems": PROBLEMS, "evaluation__batch": 4, "evaluation__answers": K - 1}


@pytest.fixture(scope="module")
def evaluators(tmp_path_factory):
    """`(**changes) -> (evaluator, weights on its mesh)`, each compiled once."""
    folder, made = write_graders(tmp_path_factory.mktemp("evaluation")), {}

    def make(changes):
        experiment = experiment_on(small(verify__grader=grader("coin"), **SIZES | changes), folder)
        weights = experiment.place(lively_weights(experiment.config.model), experiment.weight_specs)
        return Evaluator(experiment, experiment.dataset.tables["validation"], weights), weights

    def get(**changes):
        name = str(changes)
        if name not in made:
            made[name] = make(changes)
        return made[name]

    yield get
    for evaluator, _ in made.values():
        evaluator.experiment.pool.close()


def test_one_program_evaluates_all_weights(evaluators):
    evaluator, weights = evaluators()
    other = jax.tree.map(lambda x: x * 1.5, weights)
    evaluator(weights)
    with compilations() as seen:
        first, second, changed = evaluator(weights), evaluator(weights), evaluator(other)
        assert seen == []
    assert_same(first, second)
    assert (first.token_EKT != changed.token_EKT).any()
    assert first.token_EKT.shape == (PROBLEMS, K, 16)
    assert first.correct_EK.any()
    assert not first.correct_EK.all()


def test_greedy_answers_hold_no_noise(evaluators):
    (evaluator, weights), (seeded, same_weights) = evaluators(), evaluators(seed=1)
    mine, its = evaluator(weights), seeded(same_weights)
    np.testing.assert_array_equal(mine.token_EKT[:, 0], its.token_EKT[:, 0])
    assert (mine.token_EKT[:, 1:] != its.token_EKT[:, 1:]).any(axis=-1).all()
    # The sampled answers to a problem are different draws.
    assert all(len({tuple(row) for row in mine.token_EKT[e].tolist()}) > 1 for e in range(PROBLEMS))


def test_padding_is_neither_graded_nor_counted(evaluators):
    evaluator, weights = evaluators()
    pool = evaluator.experiment.pool
    pool.items.clear()
    pool.pool = JudgedPool(lambda *_: "correct")
    answers = evaluator(weights)
    pool.pool = pool.own
    assert not answers.truncated_EK[-1].all()  # what padding repeats is gradable
    assert len(pool.items) == (~answers.truncated_EK).sum()
    # Each answer is graded against its own problem.
    texts = evaluator.experiment.tokenizer.decode_batch(
        [answers.token_EKT[e, k, : answers.length_EK[e, k]] for e, k in np.argwhere(~answers.truncated_EK)]
    )
    references = [evaluator.table.answers[e] for e, _ in np.argwhere(~answers.truncated_EK)]
    assert sorted(pool.items) == sorted(zip(texts, references, strict=True))
    # What was cut is not right, whatever the verifier would say.
    np.testing.assert_array_equal(answers.correct_EK, ~answers.truncated_EK)
    assert score(answers).problems == PROBLEMS


def test_eight_devices_give_the_answers_of_one(evaluators):
    (one, weights), (eight, spread) = evaluators(), evaluators(mesh__data=4, mesh__tensor=2)
    assert_same(one(weights), eight(spread))


def answers_by_hand(right_EK) -> Answers:
    right_EK = np.array(right_EK, bool)
    length_EK = np.arange(right_EK.size, dtype=np.int32).reshape(right_EK.shape)
    verdict_EK = np.where(right_EK, STATUSES.index("correct"), STATUSES.index("wrong"))
    return Answers(np.zeros((*right_EK.shape, 3), np.int32), length_EK, length_EK == 0, verdict_EK, right_EK)


def test_a_score_equals_the_one_by_hand():
    answers = answers_by_hand([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]])
    found = score(answers)
    assert found.greedy == 2 / 5
    # Sample variance of 1, 0, 0, 0, 1 is 0.3; of the shares 1/3, 1, 0, 1/3, 1 it is 0.2. Over 5 problems, the root.
    assert found.greedy_error == pytest.approx((0.3 / 5) ** 0.5)
    assert found.sampled == pytest.approx(8 / 15)
    assert found.sampled_error == pytest.approx((0.2 / 5) ** 0.5)
    assert found.any_right == 4 / 5
    assert found.truncated == 1 / 20
    assert found.length == 9.5
    assert found.problems == 5


def test_a_score_of_one_problem_has_no_error_to_tell():
    found = score(answers_by_hand([[1, 0, 1]]))
    assert (found.greedy, found.greedy_error, found.sampled, found.sampled_error) == (1, 0, 0.5, 0)
