"""Partial rollouts of the engine: what is in the slots when a step ends goes on in the next, with its weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.engines import AXES, GRAPH, KEY, WEIGHTS, K, Q, T, requests, sampler, teacher_forced
from helpers.small_parts import EOS_IDS, MODEL, TEMPERATURE, eight_devices, lively_weights, one_device
from nft_jax.config import RolloutConfig
from nft_jax.data.stops import compile_stops
from nft_jax.rollout.engine import Engine

PIECES = [b"", b"", b"", *(bytes([a, b]) for a in b"xyz" for b in b"xyz"), *(bytes([a]) for a in b"xyzxyzxyz")]
STOPS = compile_stops(["zxy", "yy"], PIECES)
CHANGING = [lively_weights(MODEL, seed=seed) for seed in range(9, 13)]
# A step decodes on as many devices, in as many slots, as many rounds ahead, with texts that end an answer or without.
FEW, SHARDED = (one_device, 5, 1, False), (eight_devices, 3, 2, False)


@functools.cache
def steps(devices, slots, ahead, stops):
    """`(weights of each step) -> [(kept, Round)]`, on the host; all steps are one program."""
    config = RolloutConfig(T, temperature=TEMPERATURE, slots=slots, partial=True, max_age_steps=ahead)
    engine = Engine(GRAPH, AXES, devices(), config, EOS_IDS, "float32", True, STOPS if stops else None)

    def ask(start):
        rounds = [requests()._replace(request_QK=number * Q * K) for number in range(1 + ahead)]
        first_QK = start + jnp.arange(Q * K, dtype=jnp.uint32).reshape(Q, K)
        return jax.tree.map(
            lambda *x: jnp.stack(x), *(each._replace(request_QK=first_QK + each.request_QK) for each in rounds)
        )

    @jax.jit
    def begin(weights):
        return engine.keep(engine.start(engine.sampling_weights(weights), ask(jnp.uint32(0))))

    @jax.jit
    def take(weights, kept, start):
        sampling_weights, asked = engine.sampling_weights(weights), ask(start)
        progress = engine.resume(sampling_weights, asked, kept)
        progress, done = engine.finish_round(sampling_weights, progress, asked, KEY, True)
        return engine.keep(progress), done

    def run(weights):
        kept, seen = begin(weights[0]), []
        for number, each in enumerate(weights):
            kept, done = take(each, kept, np.uint32(number * Q * K))
            seen.append(jax.device_get((kept, done)))
        return seen

    return run


@functools.cache
def plain(stops):
    """`number -> Rollout`: the answers of the engine without partial rollouts to the requests of a step."""
    sample = sampler(one_device(), stop_table=STOPS if stops else None)
    return functools.cache(lambda number: sample(WEIGHTS, requests(start=number * Q * K)))


@pytest.mark.parametrize("case", [FEW, SHARDED, (one_device, 4, 1, True)])
def test_engine_resume_gives_the_answers_of_whole_rollouts_if_weights_stay(case):
    _, slots, ahead, stops = case
    seen, used, drawn = steps(*case)([WEIGHTS] * 4), 0, 0
    for number, (_, done) in enumerate(seen):
        expected, found = plain(stops)(number), done.rollout
        np.testing.assert_array_equal(found.token_BT, expected.token_BT)
        np.testing.assert_allclose(found.logp_BT, expected.logp_BT, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(found.length_B, expected.length_B)
        np.testing.assert_array_equal(found.truncated_B, expected.truncated_B)
        assert done.age_B.min() >= 0
        assert done.age_B.max() <= min(ahead, number)
        # No shard stops before the others.
        assert len(set(done.capacity_X.tolist())) == 1
        drawn += found.length_B.sum()
        used += done.capacity_X.sum()
    assert any(done.age_B.max() == ahead for _, done in seen)
    # No slot has waited: what was drawn for later steps is in their answers.
    if case[0] is one_device:
        assert used == drawn + seen[-1][0].rollout.length_B.sum()


def test_engine_resume_keeps_every_token_with_the_log_prob_of_the_weights_that_drew_it(forward):
    seen, before, aged, changed = steps(*FEW)(CHANGING), None, 0, 0
    for number, (kept, done) in enumerate(seen):
        by_teacher = functools.partial(teacher_forced, forward, CHANGING[number])
        # What one set of weights drew has its log-probs, also after prompts that older ones had read.
        fresh_B = done.age_B == 0
        np.testing.assert_allclose(done.rollout.logp_BT[fresh_B], by_teacher(done.rollout)[fresh_B], rtol=0, atol=1e-5)
        if before is not None:
            # Answers in flight go on where they were.
            inside_BT = np.arange(T)[None] < before.length_B[:, None]
            for old_BT, new_BT in ((before.token_BT, done.rollout.token_BT), (before.logp_BT, done.rollout.logp_BT)):
                np.testing.assert_array_equal(old_BT[inside_BT], new_BT[inside_BT])
            np.testing.assert_array_equal(done.age_B > 0, before.length_B > 0)
            grown_B = (done.rollout.length_B > before.length_B) & (before.length_B > 0)
            # Had they gone on with the older weights, most would have gone on otherwise.
            older = teacher_forced(forward, CHANGING[number - 1], done.rollout)[grown_B]
            changed += (np.abs(older - done.rollout.logp_BT[grown_B]).max(axis=1) > 0.1).sum()
            aged += grown_B.sum()
        before = jax.tree.map(lambda x: x[: Q * K], kept.rollout)
        began_B = kept.age_B[: Q * K] == 0
        np.testing.assert_allclose(before.logp_BT[began_B], by_teacher(before)[began_B], rtol=0, atol=1e-5)
    assert changed > aged / 2 > 1


def test_engine_resume_on_eight_devices_draws_as_on_one_if_every_answer_has_a_slot():
    one, other = (steps(devices, 0, 1, False)(CHANGING) for devices in (one_device, eight_devices))
    for (_, found), (_, expected) in zip(one, other, strict=True):
        np.testing.assert_array_equal(found.rollout.token_BT, expected.rollout.token_BT)
        np.testing.assert_allclose(found.rollout.logp_BT, expected.rollout.logp_BT, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(found.age_B, expected.age_B)
    assert any((found.age_B > 0).any() for _, found in one)
