"""Request numbers over rounds, steps, and programs: no draw of a run is used twice."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import one_device, random_prompts, small_config
from nft_jax import losses, step
from nft_jax.config import RolloutConfig, SelectionConfig
from nft_jax.data.order import prompt_order
from nft_jax.evaluation import evaluator
from nft_jax.evaluation.evaluator import MOST_ANSWERS, Batch
from nft_jax.randomness import STREAMS, stream
from nft_jax.rollout.state import Round
from nft_jax.state import State
from nft_jax.step import Step
from nft_jax.types import Rollout
from nft_jax.verify.callback import NOT_GRADED, HostReport

Q, K, C, T, N = 8, 4, 3, 7, 20


class NumberingEngine:
    """An engine whose answers are the request's number and the key; their length is the prompt's."""

    config = RolloutConfig(T)

    def sampling_weights(self, weights):
        return weights

    def start(self, sampling_weights, requests):
        return ()

    def finish_round(self, sampling_weights, progress, requests, key, begins_next, submit):
        return progress, self(sampling_weights, jax.tree.map(lambda x: x[0], requests), key)

    def __call__(self, sampling_weights, requests, key):
        number_B = requests.request_QK.reshape(-1)
        value_BT = jnp.zeros((number_B.size, T), jnp.uint32).at[:, 0].set(number_B)
        value_BT = value_BT.at[:, 1:3].set(jax.random.key_data(key)[None])
        length_B = jnp.repeat(requests.prompts.length_Q, requests.request_QK.shape[1])
        nothing = jnp.zeros(value_BT.shape)
        rollout = Rollout(value_BT.astype(jnp.int32), nothing, length_B, jnp.zeros(number_B.shape, bool))
        return Round(rollout, jnp.ones(1, jnp.int32), jnp.zeros(1, jnp.int32))


@pytest.fixture
def bound(monkeypatch):
    """A step of 8 prompts in rounds of 3 candidates, all of which train."""

    def no_verdicts(grader, mesh, prompt_B, token_BT, *_, **__):
        return jnp.ones(prompt_B.shape, jnp.int32), HostReport(jnp.full(prompt_B.shape, NOT_GRADED), jnp.zeros(1))

    monkeypatch.setattr(step, "verify", no_verdicts)
    monkeypatch.setattr(evaluator, "verify", no_verdicts)
    config = small_config("grpo", selection=SelectionConfig(candidates_per_round=C))
    return Step(config, one_device(), NumberingEngine(), None, losses.resolve("grpo", {}), None)


def sampled(bound, cursor, prompts):
    """What a step samples, from the cursor on."""
    state = State(None, None, jnp.int32(0), cursor, None, None)
    return bound.sample(state, jax.tree.map(jnp.asarray, prompts))[0]


def test_next_requests_number_on_over_rounds_and_steps_and_draw_prompts_in_order(bound):
    prompts = random_prompts(0, N)._replace(length_Q=np.arange(1, N + 1, dtype=np.int32))
    sample = jax.jit(lambda cursor: sampled(bound, cursor, prompts))
    cursor, numbers, drawn = np.int32(0), [], []
    for _ in range(4):
        found = jax.device_get(sample(cursor))
        assert (found.rounds, found.count) == (3, 9)
        numbers += found.pool.token_QKT[: found.count, :, 0].ravel().tolist()
        drawn += found.pool.prompt_Q[: found.count].tolist()
        # The engine was given the prompts that the groups name.
        np.testing.assert_array_equal(found.pool.length_QK[: found.count, 0], found.pool.prompt_Q[: found.count] + 1)
        cursor = found.cursor
    assert numbers == list(range(4 * 9 * K))
    np.testing.assert_array_equal(
        drawn, prompt_order(stream(bound.config.seed, "order"), N, np.arange(4 * 9, dtype=np.int32))
    )


def evaluated(bound, prompts):
    """The answers of an evaluation of 8 problems: of a second split, and not its first problems."""
    model = types.SimpleNamespace(config=bound.config.model, mesh=bound.mesh)
    number_E = jnp.arange(8, dtype=jnp.int32)
    batch = Batch(prompts, number_E + 5, number_E + 100, jnp.ones(8, bool))
    answers = 1 + bound.config.evaluation.answers_per_problem
    return evaluator._evaluate(model, bound.engine, None, answers, bound.config.seed, None, batch)


def test_evaluator_requests_are_numbered_by_problem_and_answer(bound):
    answers = jax.jit(lambda prompts: evaluated(bound, prompts))(random_prompts(0, 8))
    K = 1 + bound.config.evaluation.answers_per_problem
    expected_EK = np.arange(5, 13)[:, None] * MOST_ANSWERS + np.arange(K)[None]
    np.testing.assert_array_equal(answers.token_EKT[:, :, 0], expected_EK)


def test_stream_gives_every_use_of_randomness_its_own_key(bound):
    """The engine's keys are seen in its answers, in training and in evaluation."""
    keys = {name: np.asarray(jax.random.key_data(stream(bound.config.seed, name))).astype(np.int32) for name in STREAMS}
    training = jax.jit(lambda cursor: sampled(bound, cursor, random_prompts(0, N)))(np.int32(0))
    np.testing.assert_array_equal(training.pool.token_QKT[0, 0, 1:3], keys["rollout"])
    answers = jax.jit(lambda prompts: evaluated(bound, prompts))(random_prompts(0, 8))
    np.testing.assert_array_equal(answers.token_EKT[0, 0, 1:3], keys["evaluation"])
    assert len({tuple(key.tolist()) for key in keys.values()}) == len(STREAMS) > 1
    assert not np.array_equal(jax.random.key_data(stream(0, "rollout")), jax.random.key_data(stream(1, "rollout")))
