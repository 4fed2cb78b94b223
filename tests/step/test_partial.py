"""The step with partial rollouts: the same groups as without where weights stay, ages, metrics, one program."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.experiments import STEP_METRICS, JudgedPool, assert_same, compilations, on_host
from helpers.step_programs import K, Q, uneven_limits
from nft_jax.config import value_of
from nft_jax.experiment import build_experiment
from nft_jax.machine.memory import device_bytes
from nft_jax.randomness import stream
from nft_jax.report.slots import Decoding, Flight, trace_slots
from nft_jax.run.metrics import step_metrics


@pytest.fixture
def partial(programs):
    return programs("partial")


@pytest.fixture
def whole_rollouts(plain, partial):
    """`(draws of prompts) -> (problems, Rollout)` of the engine without partial rollouts, on the host."""
    step, engine = partial.step, plain.experiment.engine

    @jax.jit
    def sample(state, asked):
        weights = engine.sampling_weights(state.model_weights)
        return engine(weights, asked, stream(step.config.seed, "rollout")).rollout

    def answer(draw_Q):
        asked = jax.device_get(jax.jit(step.next_requests)(partial.prompts, jnp.int32(0), draw_Q[None]))
        asked = jax.tree.map(lambda x: x[0], asked)
        return asked.problem_Q, jax.device_get(sample(plain.state, asked))

    return answer


def test_step_with_partial_samples_the_groups_of_whole_rollouts_if_weights_stay(partial, whole_rollouts, all_incorrect):
    """In several rounds a step, none of which trains."""
    partial.pool.pool = all_incorrect
    records = partial.take(3)
    for record in records:
        groups, (problem_Q, rollout) = record.last, whole_rollouts(record.partial.draw_RQ[int(record.rounds) - 1])
        np.testing.assert_array_equal(groups.prompt_Q, problem_Q)
        expected = jax.tree.map(lambda x: x.reshape(Q, K, *x.shape[1:]), rollout)
        np.testing.assert_array_equal(groups.token_QKT, expected.token_BT)
        np.testing.assert_array_equal(groups.length_QK, expected.length_B)
        np.testing.assert_array_equal(groups.truncated_QK, expected.truncated_B)
        np.testing.assert_allclose(groups.logp_QKT, expected.logp_BT, rtol=0, atol=1e-5)
    draws = np.concatenate([record.partial.draw_RQ[: int(record.rounds)].ravel() for record in records])
    # Each prompt is in one group, or in flight. The data shards take turns with the draws.
    assert len(draws) == int(partial.state.cursor) > 3 * Q
    every = np.sort(np.concatenate([draws, on_host(partial.state.in_flight.draw_Q)]))
    np.testing.assert_array_equal(every, np.arange((len(draws) // Q + 1 + partial.config.rollout.rounds_ahead) * Q))
    assert draws.tolist() != sorted(draws.tolist())


def test_step_without_partial_has_nothing_in_flight(plain):
    (record,) = plain.take()
    assert record.partial is plain.state.in_flight is record.last.age_QK is None


def test_step_with_partial_trains_on_whole_groups_of_bounded_age(partial):
    most, eos = value_of(partial.config, "rollout.max_age_steps"), partial.experiment.tokenizer.eos_ids
    partial.take()
    with compilations() as seen:
        records = partial.take(5)
        metrics = [step_metrics(record) for record in records]
    assert seen == []
    for record, values in zip(records, metrics, strict=True):
        groups = record.last
        last_QK = np.take_along_axis(groups.token_QKT, groups.length_QK[..., None] - 1, axis=2)[..., 0]
        request_QK = record.partial.draw_RQ[int(record.rounds) - 1][:, None] * K + np.arange(K)
        at_limit_QK = groups.length_QK == uneven_limits(request_QK, groups.token_QKT.shape[2])
        assert np.all(np.isin(last_QK, eos) | at_limit_QK)
        assert values.keys() - STEP_METRICS == {
            *("answers_in_flight", "answers_older", "answer_age_mean", "answer_age_max", "sampler_drift_mean")
        }
        assert 0 <= values["answer_age_mean"] <= values["answer_age_max"] <= most
        assert record.partial.ages.answers == record.trained * K == Q * K
        assert 0 < values["slots_useful"] <= 1
        # The first update has the weights of the fresh answers' sampler; those of older ones have drifted.
        assert values["sampler_gap_max"] is None or values["sampler_gap_max"] < 1e-4
        assert values["sampler_drift_mean"] is None or values["sampler_drift_mean"] > 1e-3
    assert max(values["answer_age_max"] for values in metrics) == most
    assert any(values["sampler_gap_max"] for values in metrics)


def test_slots_of_a_step_with_partial_are_found_again(partial):
    """At the end of each step the trace has in its slots what the loop has, and it took as many trips."""
    engine, seen = partial.experiment.engine, 0
    shards, ahead = 2, partial.config.rollout.rounds_ahead
    answers = Q * K // shards
    decoding = Decoding(engine.slots(answers), shards, shards, True, partial.config.selection.max_rounds, 0, ahead)
    for record in partial.take(5):
        rounds, (*_, draw_RQ, before, after) = int(record.rounds), record.partial
        flights = ([Flight(*row) for row in zip(*flight, strict=True)] for flight in (before, after))
        traced = trace_slots(record.length_RQK[:rounds], decoding, draw_RQ[:rounds], *flights)
        assert sum(shard.capacity for shard in traced) == record.statistics.capacity
        for x, shard in enumerate(traced):
            slots, (stays,) = np.full(decoding.slots, (1 + ahead) * answers), np.nonzero(shard.group_of[:, 0] < 0)
            for _, slot, answer in shard.busy:
                slots[slot] = np.searchsorted(stays, answer // K) * K + answer % K
                # It has drawn at every trip since it began.
                assert shard.length_B[answer] == shard.trip - shard.start_B[answer] > 0
            assert slots.tolist() == after.answer_XS[x].tolist()
            assert shard.following - rounds * answers == after.next_X[x]
            seen += int((shard.before_B[shard.length_B > 0] > 0).sum())
    assert seen > 5


def test_step_with_partial_does_not_depend_on_the_graders_time(partial):
    def final_state(pause):
        def judge(number, response, _):
            time.sleep(pause * (number % 3))
            return "correct" if len(response) % 2 else "incorrect"

        partial.start()
        partial.pool.pool = JudgedPool(judge)
        partial.take(2)
        return on_host(partial.state)

    assert_same(final_state(0.0), final_state(0.003))


def test_experiment_counts_the_cache_in_flight(partial, tmp_path):
    experiment = build_experiment(partial.config, tmp_path, list(partial.step.mesh.devices.flat))
    state = experiment.abstract_state(partial.optimizer)
    assert state.in_flight.prompts is None
    cache = state.in_flight.slots.cache
    held = [np.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for part in cache for x in part]
    assert sum(held) == device_bytes(experiment)["cache"]
    assert "in_flight" in state.saved_parts
    assert state.saved_bytes > sum(x.nbytes for part in partial.state.in_flight.slots.cache for x in part)
    assert on_host(partial.start().in_flight.slots.answer_S).tolist() == [3 * Q * K // 2] * 40
