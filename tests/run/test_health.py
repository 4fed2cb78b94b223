"""What a run says of updates that are not finite, of steps in which nothing trains, and of settings to change."""

import dataclasses

import pytest

from helpers.experiments import small
from nft_jax.run.health import Hints, NonFiniteUpdates

ANSWERS, K = 32, 4


def metrics(taken=1, nonfinite=0, **changes):
    """The metrics of a step with eight groups of four answers, all incorrect where nothing else is said."""
    verdicts = {"incorrect": ANSWERS, "correct": 0, "unparsed": 0, "timeout": 0, "error": 0}
    return {
        "updates_taken": taken,
        "updates_nonfinite": nonfinite,
        "gradient_norm": 0.5 if taken else None,
        "gradient_over_epsilon": 1e4 if taken else None,
        "truncated": 0.0,
        "answers": ANSWERS,
        "rate_histogram": [ANSWERS // K, *[0] * 10],
        "verdicts": verdicts,
    } | changes


IDLE = metrics(taken=0)


def verdicts(**counts):
    """Those of an idle step; the rest is incorrect."""
    return {"verdicts": metrics()["verdicts"] | {"incorrect": ANSWERS - sum(counts.values())} | counts}


def hints_of(*steps, **changes):
    """The hints of each of these steps."""
    hints = Hints(small(**changes))
    return [hints.add_step(step) for step in steps]


# Updates that are not finite.


def test_nonfinite_updates_end_a_run_after_so_many_steps_in_a_row():
    counter = NonFiniteUpdates(3)
    bad, good, partly = metrics(taken=0, nonfinite=2), metrics(), metrics(taken=1, nonfinite=1)
    for step in (bad, bad, good, bad, IDLE, bad, partly, bad, IDLE, bad):
        counter.add(step)
        counter.check()
    assert counter.steps == 2
    counter.add(bad)
    words = r"no update of the last 3 steps .*\(config.record.nonfinite_steps=3\)"
    with pytest.raises(FloatingPointError, match=words):
        counter.check()


def test_nonfinite_updates_without_a_limit_end_nothing():
    counter = NonFiniteUpdates(0)
    for _ in range(99):
        counter.add(metrics(taken=0, nonfinite=1))
        counter.check()
    assert counter.steps == 99


# Settings to change.


def test_hints_say_once_that_epsilon_shortens_the_steps():
    small_gradient = metrics(gradient_over_epsilon=20.0)
    (first, second) = hints_of(small_gradient, small_gradient, optimizer__epsilon=1e-3)
    assert len(first) == 1 and second == []
    assert "20 × config.optimizer.epsilon=0.001. Below 100 ×" in first[0] and "config.loss.constant_tokens" in first[0]
    for rms in (100.0, 1e6, 0.0, None):
        assert hints_of(metrics(gradient_over_epsilon=rms)) == [[]]
    assert hints_of(small_gradient, optimizer__name="muon") == [[]]


# Nothing trains.


def test_hints_say_once_that_nothing_has_trained_and_again_after_something_has():
    seen = hints_of(*[IDLE] * 7, metrics(), *[IDLE] * 4)
    assert [len(each) for each in seen] == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0]
    assert seen[2][0].startswith("nothing has trained for 3 steps: of 24 groups with 96 answers, all answers of 24 are")
    assert not any(hints_of(*[IDLE] * 9, record__idle_steps=0))
    assert "for a step" in hints_of(IDLE, record__idle_steps=1)[0][0]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({}, ["all answers of 8 are incorrect; take easier problems", "config.answers_per_prompt=4"]),
        ({"rate_histogram": [*[0] * 10, 8]}, ["all answers of 8 are correct; take harder problems"]),
        ({"rate_histogram": [5, *[0] * 9, 3]}, ["5 are incorrect and all answers of 3 are correct"]),
        (
            {"rate_histogram": [4, 0, 4, *[0] * 8]},
            ["4 are incorrect and 4 have success rates outside config.selection"],
        ),
        ({"truncated": 1.0}, ["100 % of the answers are cut at config.rollout.max_answer_tokens=16", "raise it"]),
        (verdicts(timeout=30), ["ended 30 with timeouts and 0 with errors", "config.verify.seconds_per_answer=5"]),
        (verdicts(error=32), ["0 with timeouts and 32 with errors", "see its first error above"]),
        (verdicts(unparsed=20), ["the grader boxed_exact found no answer in 20 of them", "config.data.template"]),
        ({"updates_taken": 1, "gradient_norm": 0.0}, ["nothing has trained"]),  # GRPO's groups without contrast
    ],
)
def test_hints_say_why_nothing_trains(step, words):
    (hints,) = hints_of(IDLE | step, record__idle_steps=1)
    assert all(word in hints[-1] for word in words), hints


def test_hints_do_not_call_steps_idle_that_train_or_are_not_finite():
    assert not any(hints_of(*[metrics(taken=0, nonfinite=1)] * 9))
    assert not any(hints_of(*[metrics(taken=1, nonfinite=1)] * 9))


# Settings to change.


def test_hints_say_once_that_half_of_the_answers_are_cut():
    seen = hints_of(*(metrics(truncated=share) for share in (None, 0.2, 0.49, 0.5, 0.9, 0.1, 0.9)))
    assert [len(each) for each in seen] == [0, 0, 0, 1, 0, 0, 0]
    assert seen[3][0].startswith("50 % of the answers are cut at config.rollout.max_answer_tokens=16 and count as")


@pytest.mark.parametrize(
    ("greedy", "sampled", "errors", "said"),
    [
        (0.6, 0.2, (0.02, 0.01), True),
        (0.6, 0.31, (0.02, 0.01), False),  # not below half
        (0.6, 0.2, (0.2, 0.1), False),  # within the noise
        (0.6, 0.2, (None, None), True),
        (0.0, 0.0, (None, None), False),
        (0.2, 0.6, (0.01, 0.01), False),
    ],
)
def test_hints_say_once_that_sampled_answers_are_far_below_greedy_ones(greedy, sampled, errors, said):
    hints = Hints(small(strict_on_policy=True))
    found = [hints.add_score(greedy, sampled, errors) for _ in range(2)]
    assert [len(each) for each in found] == [int(said), 0]
    if said:
        assert "0.200 against 0.600" in found[0][0]
        assert "config.rollout.temperature below 1 (with config.strict_on_policy=false)" in found[0][0]


def test_hints_read_all_settings_that_they_name():
    """Each `config.NAME` in a hint is a setting."""
    config = small()
    hints = Hints(dataclasses.replace(config))
    texts = [hints._describe_cut(0.5), hints._describe_idle(), *hints.add_score(0.9, 0.1, (None, None))]
    for text in texts:
        for name in [
            word.split("config.")[1].split("=")[0].strip("(),;:") for word in text.split() if "config." in word
        ]:
            place = config
            for part in name.split("."):
                place = getattr(place, part)
