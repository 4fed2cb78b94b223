"""Held-out evaluation: one program for all weights and splits, and answers that depend on nothing else."""

import dataclasses

import jax
import numpy as np
import pytest

from helpers.experiments import JudgedPool, assert_same, compilations, grader, open_on_mesh, small, write_graders
from helpers.small_parts import lively_weights
from nft_jax.evaluation.evaluator import MOST_ANSWERS, MOST_PROBLEMS
from nft_jax.evaluation.scores import Answers, score
from nft_jax.experiment import make_evaluator
from nft_jax.verify.findings import CUT

PROBLEMS, K = 6, 5
# Six problems in batches of four: two places are padding. The 4 · 5 answers of a batch do not divide over eight
# devices, so that the evaluator must enlarge the batch.
SIZES = {
    "evaluation__max_problems": PROBLEMS,
    "evaluation__problems_per_batch": 4,
    "evaluation__answers_per_problem": K - 1,
}


@pytest.fixture(scope="module")
def evaluators(tmp_path_factory):
    """`(*splits, **changes) -> (evaluator, weights on its mesh)`, each compiled once; by default of both splits.

    `evaluators.experiments[id(evaluator.model)]` is the experiment of an evaluator.
    """
    folder, made = write_graders(tmp_path_factory.mktemp("evaluation")), {}

    def make(splits, changes):
        experiment = open_on_mesh(small(verify__grader=grader("coin"), **SIZES | changes), folder)
        weights = experiment.place(lively_weights(experiment.config.model), experiment.model.weight_specs)
        tables = {name: experiment.dataset.tables[name] for name in splits or ("validation", "test")}
        get.experiments[id(experiment.model)] = experiment
        return make_evaluator(experiment, tables), weights

    def get(*splits, **changes):
        name = str((splits, changes))
        if name not in made:
            made[name] = make(splits, changes)
        return made[name]

    get.experiments = {}
    yield get
    for experiment in get.experiments.values():
        experiment.verifier.pool.close()


def test_evaluator_compiles_once_for_all_weights_and_splits(evaluators):
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


def test_evaluator_says_why_an_answer_is_not_correct(evaluators):
    evaluator, weights = evaluators()
    answers = evaluator(weights, "test")
    assert answers.truncated_EK.any() and not answers.truncated_EK.all()
    wrong_EK = ~answers.correct_EK & ~answers.truncated_EK
    assert set(answers.reason_EK[answers.correct_EK]) == {""}
    assert set(answers.reason_EK[answers.truncated_EK]) == {CUT.reason}
    # A coin extracts nothing.
    assert set(answers.reason_EK[wrong_EK]) == {"the grader says no more"} and set(answers.extracted_EK.flat) == {""}


def test_evaluator_batches_are_graded_one_by_one(evaluators):
    evaluator, weights = evaluators()
    batches = evaluator.batches(weights, "test")
    pool = evaluators.experiments[id(evaluator.model)].verifier.pool
    pool.items.clear()
    first = next(batches)
    graded = len(pool.items)
    assert graded == (~first.truncated_EK).sum() > 0
    (second,) = batches
    assert (len(first.length_EK), len(second.length_EK)) == (4, 2)
    assert len(pool.items) > graded
    whole = evaluator(weights, "test")
    assert_same(Answers(*(np.concatenate(pair) for pair in zip(first, second, strict=True))), whole)


def test_evaluator_greedy_answers_do_not_depend_on_the_seed(evaluators):
    (evaluator, weights), (seeded, same_weights) = evaluators(), evaluators(seed=1)
    mine, its = evaluator(weights, "test"), seeded(same_weights, "test")
    np.testing.assert_array_equal(mine.token_EKT[:, 0], its.token_EKT[:, 0])
    assert (mine.token_EKT[:, 1:] != its.token_EKT[:, 1:]).any(axis=-1).all()
    # The sampled answers to a problem are different draws.
    assert all(len({tuple(row) for row in mine.token_EKT[e].tolist()}) > 1 for e in range(PROBLEMS))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluator_neither_grades_nor_counts_padding(evaluators, split):
    evaluator, weights = evaluators()
    pool = evaluators.experiments[id(evaluator.model)].verifier.pool
    pool.items.clear()
    pool.pool = JudgedPool(lambda *_: "correct")
    answers = evaluator(weights, split)
    pool.pool = pool.own
    assert not answers.truncated_EK[-1].all()  # what padding repeats is gradable
    assert len(pool.items) == (~answers.truncated_EK).sum()
    # Each answer is graded against the reference of its problem in its split.
    texts = evaluators.experiments[id(evaluator.model)].tokenizer.decode_batch(
        [answers.token_EKT[e, k, : answers.length_EK[e, k]] for e, k in np.argwhere(~answers.truncated_EK)]
    )
    references = [evaluator.tables[split].answers[e] for e, _ in np.argwhere(~answers.truncated_EK)]
    assert sorted(pool.items) == sorted(zip(texts, references, strict=True))
    # Truncated answers are incorrect whatever the verifier says.
    np.testing.assert_array_equal(answers.correct_EK, ~answers.truncated_EK)
    assert score(answers).problems == PROBLEMS


# What answers depend on.


def assert_alike(one: Answers, other: Answers) -> None:
    """Asserts equal tokens and verdicts bit for bit, and log-probs up to rounding, which depends on sizes."""
    assert_same(one._replace(logp_EK=None), other._replace(logp_EK=None))
    np.testing.assert_allclose(one.logp_EK, other.logp_EK, rtol=1e-5, atol=1e-5)


def test_evaluator_gives_the_same_answers_on_eight_devices(evaluators):
    (one, weights), (eight, spread) = evaluators(), evaluators(mesh__data=4, mesh__tensor=2)
    for split in ("validation", "test"):
        assert_alike(one(weights, split), eight(spread, split))


@pytest.mark.parametrize(
    "changes", [{"evaluation__problems_per_batch": 3}, {"evaluation__problems_per_batch": 6}], ids=str
)
def test_evaluator_answers_do_not_depend_on_the_batch(evaluators, changes):
    (one, weights), (other, same) = evaluators(), evaluators(**changes)
    assert other.batch == changes["evaluation__problems_per_batch"]
    assert_alike(one(weights, "test"), other(same, "test"))


def test_evaluator_answers_do_not_depend_on_other_splits(evaluators):
    (both, weights), (alone, same), (turned, again) = (
        evaluators(*splits) for splits in ((), ("test",), ("test", "validation"))
    )
    assert_alike(both(weights, "test"), alone(same, "test"))
    assert_alike(both(weights, "validation"), turned(again, "validation"))


def test_evaluator_answers_do_not_depend_on_more_problems_or_answers(evaluators):
    (few, weights), (many, same) = (
        evaluators(),
        evaluators(evaluation__max_problems=7, evaluation__answers_per_problem=7),
    )
    mine, its = few(weights, "test"), many(same, "test")
    assert its.token_EKT.shape[:2] == (7, 8)
    assert_alike(mine, jax.tree.map(lambda x: x[:PROBLEMS, :K], its))


def test_compile_evaluator_takes_all_problems_for_zero(evaluators):
    evaluator, _ = evaluators("test", evaluation__max_problems=0, evaluation__problems_per_batch=8)
    there = len(evaluator.tables["test"].answers)
    assert evaluator.problems == {"test": there}
    assert there > PROBLEMS


def test_evaluator_takes_a_split_smaller_than_the_batch(evaluators):
    """Its places beyond the end are padding, while another split fills the batch."""
    evaluator, weights = evaluators()
    table = evaluator.tables["test"]
    two = table._replace(token_QP=table.token_QP[:2], length_Q=table.length_Q[:2], answers=table.answers[:2])
    tables = {"two": two, "validation": evaluator.tables["validation"]}
    mixed = make_evaluator(evaluators.experiments[id(evaluator.model)], tables)
    assert mixed.problems == {"two": 2, "validation": PROBLEMS}
    assert_alike(mixed(weights, "two"), jax.tree.map(lambda x: x[:2], evaluator(weights, "test")))
    assert_alike(mixed(weights, "validation"), evaluator(weights, "validation"))


TRUNCATED = {"evaluation__temperature": 0.6, "evaluation__top_p": 0.7, "evaluation__top_k": 5}


def test_make_evaluator_samples_with_the_settings_of_evaluation(evaluators):
    (plain, weights), (truncated, same) = evaluators(), evaluators("test", **TRUNCATED)
    one, other = plain(weights, "test"), truncated(same, "test")
    np.testing.assert_array_equal(one.token_EKT[:, 0], other.token_EKT[:, 0])
    assert (one.token_EKT[:, 1:] != other.token_EKT[:, 1:]).any()
    # The training rollout keeps its settings.
    engines = [evaluators.experiments[id(one.model)].engine for one in (truncated, plain)]
    assert engines[0].config == engines[1].config
    (eight, spread) = evaluators("test", **TRUNCATED, mesh__data=4, mesh__tensor=2)
    assert_alike(other, eight(spread, "test"))


@pytest.mark.parametrize("changes", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-3}], ids=str)
def test_evaluator_is_greedy_if_sampling_leaves_one_token(evaluators, changes):
    evaluator, weights = evaluators("test", **{f"evaluation__{name}": value for name, value in changes.items()})
    answers = evaluator(weights, "test")
    assert (answers.token_EKT == answers.token_EKT[:, :1]).all()


def test_compile_evaluator_refuses_more_than_the_request_numbers(evaluators):
    evaluator, _ = evaluators()
    experiment, tables = evaluators.experiments[id(evaluator.model)], evaluator.tables
    config = experiment.config
    assert MOST_ANSWERS * MOST_PROBLEMS == 2**32
    with compilations() as seen:
        for changes, words in (
            ({"answers_per_problem": MOST_ANSWERS}, "config.evaluation.answers_per_problem=4096: use at most 4095"),
            ({"max_problems": 0}, "much has 1048577 problems.*config.evaluation.max_problems to at most 1048576"),
        ):
            evaluation = dataclasses.replace(config.evaluation, **changes)
            changed = dataclasses.replace(experiment, config=dataclasses.replace(config, evaluation=evaluation))
            much = tables["test"]._replace(answers=["1"] * (MOST_PROBLEMS + 1))
            with pytest.raises(ValueError, match=words):
                make_evaluator(changed, {"much": much})
    assert seen == []
