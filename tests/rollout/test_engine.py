"""The engine: its log-probs are the full forward's, answers end where they should and do not depend on each other."""

import dataclasses

import jax
import numpy as np
import pytest

from helpers.engines import GRAPH, PROMPTS, WEIGHTS, K, Q, T, program, requests, sampler, teacher, teacher_forced
from helpers.small_parts import (
    EOS_IDS,
    MIXED,
    PROMPT_LIMIT,
    VOCABULARY,
    eight_devices,
    lively_weights,
    one_device,
    one_per_row,
    random_prompts,
)
from nft_jax.models import transformer
from nft_jax.rollout.state import Requests
from nft_jax.types import Prompts


def test_engine_rollout_has_answers_of_all_kinds(rollout):
    """Prompts of all lengths; answers that end early, by both ends, and answers that are cut."""
    assert set(PROMPTS.length_Q) == set(range(1, PROMPT_LIMIT + 1))
    assert {*EOS_IDS} <= set(rollout.token_BT.ravel())
    assert len(set(rollout.length_B)) > 3
    assert 0 < rollout.truncated_B.sum() < Q * K


def test_engine_log_probs_are_those_of_the_full_forward(rollout, forward):
    expected_BT = teacher_forced(forward, WEIGHTS, rollout)
    assert np.ptp(expected_BT) > 3
    np.testing.assert_allclose(rollout.logp_BT, expected_BT, rtol=0, atol=1e-5)


def test_engine_log_probs_are_those_of_the_full_forward_in_bfloat16(forward):
    """bfloat16 keeps 8 bits: a logit of size 8 is off by up to 2^-6 at each rounding on its way; 0.15 is ten such."""
    found = sampler(one_device(), dtype="bfloat16")(WEIGHTS, requests())
    half = teacher_forced(teacher("bfloat16"), WEIGHTS, found)
    assert found.logp_BT.dtype == half.dtype == np.float32
    np.testing.assert_allclose(found.logp_BT, half, rtol=0, atol=0.15)
    # Both really ran in bfloat16: beside each other they are nearer than to float32.
    full = teacher_forced(forward, WEIGHTS, found)
    assert np.abs(half - full).mean() > 1e-3
    assert np.abs(found.logp_BT - half).mean() < np.abs(half - full).mean()


def test_engine_log_probs_of_layers_of_two_kinds_are_those_of_the_full_forward():
    """On eight devices; the decode loop counts its layers by two where two are unrolled."""
    model = dataclasses.replace(MIXED, layers=4, layer_kinds="wwf", unrolled_layers=2)
    weights = lively_weights(model)
    found = sampler(eight_devices(), model=model)(weights, requests())
    expected_BT = teacher_forced(teacher(model=model), weights, found)
    assert np.ptp(expected_BT) > 3
    np.testing.assert_allclose(found.logp_BT, expected_BT, rtol=0, atol=1e-5)


def test_engine_takes_the_argmax_of_the_full_forward_for_greedy_requests(sample):
    found = sample(WEIGHTS, requests(greedy=True))
    likeliest = jax.jit(lambda w, tokens: _last_argmax(w, tokens))
    token_QT, length_Q = np.zeros((Q, T), np.int32), np.zeros(Q, np.int32)
    running_Q = np.ones(Q, bool)
    for column in range(T):
        token_Q = np.asarray(likeliest(WEIGHTS, one_per_row(PROMPTS, token_QT, length_Q)))
        token_QT[running_Q, column] = token_Q[running_Q]
        length_Q += running_Q
        running_Q &= ~np.isin(token_Q, EOS_IDS)
    assert len(set(length_Q)) > 1
    np.testing.assert_array_equal(found.token_BT, np.repeat(token_QT, K, axis=0))
    np.testing.assert_array_equal(found.length_B, np.repeat(length_Q, K))
    np.testing.assert_array_equal(found.truncated_B, np.repeat(running_Q, K))


def _last_argmax(weights, tokens):
    model = transformer.bind(GRAPH, weights)
    last_B = (tokens.segment_BT == 0).sum(axis=1) - 1
    hidden_BTD = model(tokens)
    return model.logits(hidden_BTD[np.arange(Q), last_B]).argmax(axis=-1)


def test_engine_rollout_is_empty_after_the_end_of_an_answer(rollout):
    for token_T, logp_T, length, truncated in zip(*rollout, strict=True):
        ends = np.isin(token_T, EOS_IDS)
        assert not ends[: length - 1].any()
        assert ends[length - 1] == (not truncated)
        assert length == T or not truncated
        assert np.all(token_T[length:] == 0)
        assert np.all(logp_T[length:] == 0)
        assert np.all(logp_T[:length] < 0)


def test_engine_answers_do_not_depend_on_the_other_requests(sample, rollout):
    random = np.random.default_rng(2)
    asked, order = requests(), random.permutation(Q)
    inner_QK = np.array([random.permutation(K) for _ in range(Q)])
    shuffled = Requests(
        Prompts(*(x[order] for x in PROMPTS)),
        asked.problem_Q[order],
        np.take_along_axis(asked.request_QK[order], inner_QK, axis=1),
        asked.limit_QK,
        asked.greedy_QK,
    )
    found = sample(WEIGHTS, shuffled)
    place_B = (order[:, None] * K + inner_QK).ravel()
    np.testing.assert_array_equal(found.token_BT, rollout.token_BT[place_B])
    np.testing.assert_allclose(found.logp_BT, rollout.logp_BT[place_B], rtol=0, atol=1e-5)
    # Other prompts, some greedy, beside the first one.
    strangers = Prompts(*(np.concatenate([x[:1], y[1:]]) for x, y in zip(PROMPTS, random_prompts(9, Q), strict=True)))
    found = sample(WEIGHTS, asked._replace(prompts=strangers, greedy_QK=np.arange(Q)[:, None] > np.full(K, 3)))
    np.testing.assert_array_equal(found.token_BT[:K], rollout.token_BT[:K])
    assert not np.array_equal(found.token_BT[K:], rollout.token_BT[K:])


def test_engine_gives_the_same_answer_to_a_single_request(rollout):
    """One prompt, one answer: other shapes throughout."""
    asked = jax.tree.map(lambda x: x[5:6], requests())
    alone = asked._replace(**{name: getattr(asked, name)[:, 1:2] for name in ("request_QK", "limit_QK", "greedy_QK")})
    found = sampler(one_device())(WEIGHTS, alone)
    np.testing.assert_array_equal(found.token_BT[0], rollout.token_BT[5 * K + 1])
    np.testing.assert_allclose(found.logp_BT[0], rollout.logp_BT[5 * K + 1], rtol=0, atol=1e-5)


def test_engine_answers_depend_on_the_request_number(sample, rollout):
    np.testing.assert_array_equal(sample(WEIGHTS, requests()).token_BT, rollout.token_BT)
    # Short answers, and some longer ones of so sure a model, agree by chance; most may not, in a group either.
    long_B = rollout.length_B > 3
    other = sample(WEIGHTS, requests(start=Q * K))
    assert long_B.sum() > 10
    assert np.all(other.token_BT == rollout.token_BT, axis=1)[long_B].mean() < 0.2
    assert len({tuple(row) for row in rollout.token_BT[long_B]}) > 0.8 * long_B.sum()
    repeated = requests()._replace(request_QK=np.full((Q, K), 5, np.uint32))
    found = sample(WEIGHTS, repeated).token_BT.reshape(Q, K, T)
    assert np.all(found == found[:, :1])


def countdown_weights():
    """A model that says i − 2 after i, surely: from an odd token down to end 1, from an even one down to end 2."""
    weights = jax.tree.map(np.zeros_like, WEIGHTS)
    weights["norm"] = np.ones_like(WEIGHTS["norm"])
    blocks = weights["blocks"]
    for name in ("attention_norm", "mlp_norm"):
        blocks[name] = np.ones_like(blocks[name])
    for token in range(VOCABULARY):
        weights["embedding"][token, token] = 1
        weights["head"][max(token - 2, 0), token] = 30
    return weights


# The last token of each prompt decides: 3 and 4 end at once, by one end and by the other; 18 ends in the last column
# that there is; 20 is cut. Shards of two prompts each (on 4 data shards) run 1, 3, 8 and 8 columns.
LAST_TOKENS = np.array([3, 4, 7, 8, 18, 17, 20, 19], np.int32)
LENGTHS = np.array([1, 1, 3, 3, 8, 8, 8, 8])
TRUNCATED = np.array([False] * 6 + [True] * 2)


def countdown_requests():
    token_QP = np.full((Q, PROMPT_LIMIT), 11, np.int32)
    token_QP[np.arange(Q), PROMPTS.length_Q - 1] = LAST_TOKENS
    return requests()._replace(prompts=Prompts(token_QP, PROMPTS.length_Q))


def countdown():
    """The answers that `countdown_weights` must give to `countdown_requests`."""
    token_QT = np.maximum(LAST_TOKENS[:, None] - 2 * np.arange(1, T + 1), 0).astype(np.int32)
    return np.repeat(token_QT, K, axis=0)


def test_engine_ends_answers_at_eos_and_truncates_at_the_limit(sample):
    found = sample(countdown_weights(), countdown_requests())
    np.testing.assert_array_equal(found.token_BT, countdown())
    np.testing.assert_array_equal(found.length_B, np.repeat(LENGTHS, K))
    np.testing.assert_array_equal(found.truncated_B, np.repeat(TRUNCATED, K))


@pytest.mark.parametrize("lockstep", [False, True])
def test_engine_on_eight_devices_stops_each_shard_by_itself_unless_in_lockstep(lockstep, rollout):
    compiled = program(eight_devices(), lockstep=lockstep)
    found, capacity_X, *_ = jax.device_get(compiled(countdown_weights(), countdown_requests()))
    np.testing.assert_array_equal(found.token_BT, countdown())
    np.testing.assert_array_equal(found.truncated_B, np.repeat(TRUNCATED, K))
    # Two prompts a shard, and as many slots as answers.
    columns = [8] * 4 if lockstep else [1, 3, 8, 8]
    np.testing.assert_array_equal(capacity_X, np.array(columns) * 2 * K)

    found = jax.device_get(compiled(WEIGHTS, requests())).rollout
    np.testing.assert_array_equal(found.token_BT, rollout.token_BT)
    np.testing.assert_allclose(found.logp_BT, rollout.logp_BT, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.truncated_B, rollout.truncated_B)
