"""Partial rollouts of the engine: what is in the slots when a step ends goes on in the next, with its weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.engines import AXES, GRAPH, KEY, LIMIT_QK, PROMPTS, WEIGHTS, K, Q, T, requests, sampler, teacher_forced
from helpers.small_parts import EOS_IDS, MODEL, TEMPERATURE, eight_devices, lively_weights, one_device
from nft_jax.config import RolloutConfig
from nft_jax.data.stops import compile_stops
from nft_jax.parallel.mesh import shard_count
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.state import Requests

PIECES = [b"", b"", b"", *(bytes([a, b]) for a in b"xyz" for b in b"xyz"), *(bytes([a]) for a in b"xyzxyzxyz")]
STOPS = compile_stops(["zxy", "yy"], PIECES)
CHANGING = [lively_weights(MODEL, seed=seed) for seed in range(9, 13)]
# A step decodes on as many devices, in as many slots, as many rounds ahead, with texts that end an answer or without.
FEW, SHARDED = (one_device, 5, 1, False), (eight_devices, 3, 2, False)


@functools.cache
def steps(devices, slots, ahead, stops, eos_ids=EOS_IDS):
    """`(weights of each step, [limits by draw]) -> [(kept, Round)]`, on the host; all steps are one program."""
    config = RolloutConfig(T, temperature=TEMPERATURE, slots=slots, partial=True, max_age_steps=ahead)
    engine = Engine(GRAPH, AXES, devices(), config, eos_ids, "float32", True, STOPS if stops else None)

    def ask(draw_RQ, limit_DK):
        """Requests of draws: each round has the same prompts, as its draws begin with a multiple of Q."""
        request_RQK = draw_RQ.astype(jnp.uint32)[..., None] * K + jnp.arange(K, dtype=jnp.uint32)[None, None]
        prompts = jax.tree.map(lambda x: jnp.asarray(x)[draw_RQ % Q], PROMPTS)
        greedy_RQK = jnp.zeros(request_RQK.shape, bool)
        return Requests(prompts, draw_RQ % Q, request_RQK, jnp.asarray(limit_DK)[draw_RQ % len(limit_DK)], greedy_RQK)

    first_RQ = jnp.arange((1 + ahead) * Q).reshape(1 + ahead, Q)

    @jax.jit
    def begin(weights):
        return engine.keep(engine.start(engine.sampling_weights(weights), ask(first_RQ, LIMIT_QK)))

    @jax.jit
    def take(weights, kept, limit_DK):
        sampling_weights = engine.sampling_weights(weights)
        asked = ask(kept.draws(1 + ahead, shard_count(engine.mesh)), limit_DK)
        progress = engine.resume(sampling_weights, asked, kept)
        progress, done = engine.finish_round(sampling_weights, progress, asked, KEY, True)
        return engine.keep(progress), done

    def run(weights, limit_DK=LIMIT_QK):
        kept, seen = begin(weights[0]), []
        for each in weights:
            kept, done = take(each, kept, limit_DK)
            seen.append(jax.device_get((kept, done)))
        return seen

    return run


@functools.cache
def plain(stops):
    """`number -> Rollout`: the answers of the engine without partial rollouts to the requests of a step."""
    sample = sampler(one_device(), stop_table=STOPS if stops else None)
    return functools.cache(lambda number: sample(WEIGHTS, requests(start=number * Q * K)))


def whole_rollouts(stops, draw_Q):
    """The answers of whole rollouts to draws."""
    rounds = [plain(stops)(draw // Q) for draw in draw_Q]
    rows = [slice(draw % Q * K, (draw % Q + 1) * K) for draw in draw_Q]
    parts = [jax.tree.map(lambda x, row=row: x[row], each) for each, row in zip(rounds, rows, strict=True)]
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


@pytest.mark.parametrize("case", [FEW, SHARDED, (one_device, 4, 1, True)])
def test_engine_resume_gives_the_answers_of_whole_rollouts_if_weights_stay(case):
    _, slots, ahead, stops = case
    seen, used, drawn, draws = steps(*case)([WEIGHTS] * 5), 0, 0, []
    for number, (_, done) in enumerate(seen):
        expected, found = whole_rollouts(stops, done.draw_Q), done.rollout
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
        draws += done.draw_Q.tolist()
    kept, _ = seen[-1]
    # Each prompt is answered once.
    np.testing.assert_array_equal(np.sort(draws + kept.draw_Q.tolist()), np.arange((len(seen) + 1 + ahead) * Q))
    assert any(done.age_B.max() == ahead for _, done in seen)
    # No slot has waited: what was drawn for later steps is in their answers.
    if case[0] is one_device:
        assert used == drawn + kept.rollout.length_B.sum()


def test_engine_resume_keeps_every_token_with_the_log_prob_of_the_weights_that_drew_it(forward):
    seen, before, aged, changed = steps(*FEW)(CHANGING), {}, 0, 0
    for number, (kept, done) in enumerate(seen):

        def by_teacher(weights, draw_Q, rollout):
            prompts = jax.tree.map(lambda x: x[draw_Q % Q], PROMPTS)
            return teacher_forced(forward, CHANGING[weights], rollout, prompts).reshape(-1, K, T)

        after, logp_QKT = by_draw(done.draw_Q, done.rollout), done.rollout.logp_BT.reshape(-1, K, T)
        # What one set of weights drew has its log-probs, also after prompts that older ones had read.
        fresh_QK = done.age_B.reshape(-1, K) == 0
        expected_QKT = by_teacher(number, done.draw_Q, done.rollout)
        np.testing.assert_allclose(logp_QKT[fresh_QK], expected_QKT[fresh_QK], rtol=0, atol=1e-5)
        older_QKT = by_teacher(number - 1, done.draw_Q, done.rollout)
        for place, (draw, new) in enumerate(after.items()):
            if draw not in before:
                continue
            # Answers in flight go on where they were.
            old, inside_KT = before[draw], np.arange(T)[None] < before[draw].length_B[:, None]
            np.testing.assert_array_equal(old.token_BT[inside_KT], new.token_BT[inside_KT])
            np.testing.assert_array_equal(old.logp_BT[inside_KT], new.logp_BT[inside_KT])
            np.testing.assert_array_equal(~fresh_QK[place], old.length_B > 0)
            grown_K = (new.length_B > old.length_B) & (old.length_B > 0)
            # Had they gone on with the older weights, most would have gone on otherwise.
            apart_K = np.abs(older_QKT[place] - logp_QKT[place]).max(axis=1) > 0.1
            changed, aged = changed + (apart_K & grown_K).sum(), aged + grown_K.sum()
        before = by_draw(kept.draw_Q, kept.rollout)
    assert changed > aged / 2 > 1


def by_draw(draw_Q, rollout):
    """Each draw's K answers."""
    return {
        int(draw): jax.tree.map(lambda x, place=place: x[place * K : (place + 1) * K], rollout)
        for place, draw in enumerate(draw_Q)
    }


@pytest.mark.parametrize("ahead", [1, 3])
def test_engine_resume_lets_no_group_wait_for_a_long_one_until_it_is_old(ahead):
    """One answer of a prompt has the whole limit, all others one token."""
    limit_DK = np.ones((9 * Q, K), np.int32)
    limit_DK[1, 2] = T
    seen = steps(one_device, Q * K * (1 + ahead), ahead, False, eos_ids=())([WEIGHTS] * (ahead + 2), limit_DK)
    for number, (_, done) in enumerate(seen):
        assert (1 in done.draw_Q.tolist()) == (number == ahead)
        # The first trip ends all others; what begins later waits for the trips of the long one.
        trips = {0: 1, ahead: T - 1}.get(number, 0)
        assert done.capacity_X.tolist() == [trips * Q * K * (1 + ahead)]
