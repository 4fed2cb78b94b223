"""The engine: cached decoding is the full forward, answers end where they should and don't depend on each other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import (
    EOS_IDS,
    MODEL,
    PROMPT_LIMIT,
    TEMPERATURE,
    VOCABULARY,
    at_tokens,
    eight_devices,
    lively_weights,
    one_device,
    one_per_row,
    random_prompts,
)
from nft_jax.compat import io_callback
from nft_jax.config import RolloutConfig
from nft_jax.models import cache, transformer
from nft_jax.plan import hlo
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.state import Requests
from nft_jax.types import Prompts, Rollout, Tokens

Q, K, T = 8, 3, 8
KEY = jax.random.key(3)
GRAPH, _, AXES = transformer.abstract_model(MODEL, VOCABULARY)
PROMPTS = random_prompts(0, Q)
WEIGHTS = lively_weights(MODEL, seed=9)


def requests(greedy=False, start=0):
    """K answers to each prompt, numbered on from `start`."""
    number_QK = np.arange(start, start + Q * K, dtype=np.uint32).reshape(Q, K)
    return Requests(PROMPTS, np.arange(Q, dtype=np.int32), number_QK, np.full((Q, K), greedy))


def program(mesh, *, dtype="float32", **settings):
    """A jitted engine: `(weights, requests) -> (Rollout, capacity_n)`."""
    graph, _, _ = transformer.abstract_model(dataclasses.replace(MODEL, dtype=dtype), VOCABULARY)
    engine = Engine(graph, AXES, mesh, RolloutConfig(T, temperature=TEMPERATURE, **settings), EOS_IDS, dtype)
    return jax.jit(lambda weights, asked: engine(engine.sampling_weights(weights), asked, KEY))


def sampler(mesh, **settings):
    """`(weights, requests) -> Rollout` on the host."""
    compiled = program(mesh, **settings)
    return lambda weights, asked: jax.device_get(compiled(weights, asked)[0])


def teacher(dtype="float32"):
    """The full forward: `(weights, tokens) -> logp_BT`, as the trainer computes it."""
    graph, _, _ = transformer.abstract_model(dataclasses.replace(MODEL, dtype=dtype), VOCABULARY)
    return jax.jit(lambda w, tokens: at_tokens(transformer.bind(graph, w), tokens, TEMPERATURE, 128)[0])


def teacher_forced(forward, weights, rollout):
    """The trainer's log-probs of a rollout's tokens, laid out as the sampler's."""
    tokens = one_per_row(PROMPTS, rollout.token_BT, rollout.length_B)
    logp_BS = np.asarray(forward(weights, Tokens(*tokens)))
    place_BT = np.repeat(PROMPTS.length_N, K)[:, None] + np.arange(T)
    return np.where(np.arange(T) < rollout.length_B[:, None], np.take_along_axis(logp_BS, place_BT, axis=1), 0)


@pytest.fixture(scope="module")
def sample():
    return sampler(one_device())


@pytest.fixture(scope="module")
def rollout(sample):
    return sample(WEIGHTS, requests())


@pytest.fixture(scope="module")
def forward():
    return teacher()


def test_the_rollout_is_worth_testing(rollout):
    """Prompts of all lengths; answers that end early, by both ends, and answers that are cut."""
    assert set(PROMPTS.length_N) == set(range(1, PROMPT_LIMIT + 1))
    assert {*EOS_IDS} <= set(rollout.token_BT.ravel())
    assert len(set(rollout.length_B)) > 3
    assert 0 < rollout.truncated_B.sum() < Q * K


def test_cached_decoding_is_the_full_forward(rollout, forward):
    expected_BT = teacher_forced(forward, WEIGHTS, rollout)
    assert np.ptp(expected_BT) > 3
    np.testing.assert_allclose(rollout.logp_BT, expected_BT, rtol=0, atol=1e-5)


def test_cached_decoding_is_the_full_forward_in_bfloat16(forward):
    """bfloat16 keeps 8 bits: a logit of size 8 is off by up to 2^-6 at each rounding on its way; 0.15 is ten such."""
    found = sampler(one_device(), dtype="bfloat16")(WEIGHTS, requests())
    half = teacher_forced(teacher("bfloat16"), WEIGHTS, found)
    assert found.logp_BT.dtype == half.dtype == np.float32
    np.testing.assert_allclose(found.logp_BT, half, rtol=0, atol=0.15)
    # Both really ran in bfloat16: beside each other they are nearer than to float32.
    full = teacher_forced(forward, WEIGHTS, found)
    assert np.abs(half - full).mean() > 1e-3
    assert np.abs(found.logp_BT - half).mean() < np.abs(half - full).mean()


def test_greedy_decoding_takes_the_argmax_of_the_full_forward_step_by_step(sample):
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


def test_nothing_comes_after_the_end(rollout):
    for token_T, logp_T, length, truncated in zip(*rollout, strict=True):
        ends = np.isin(token_T, EOS_IDS)
        assert not ends[: length - 1].any()
        assert ends[length - 1] == (not truncated)
        assert length == T or not truncated
        assert np.all(token_T[length:] == 0)
        assert np.all(logp_T[length:] == 0)
        assert np.all(logp_T[:length] < 0)


def test_an_answer_does_not_depend_on_its_company(sample, rollout):
    random = np.random.default_rng(2)
    asked, order = requests(), random.permutation(Q)
    inner_QK = np.array([random.permutation(K) for _ in range(Q)])
    shuffled = Requests(
        Prompts(*(x[order] for x in PROMPTS)),
        asked.problem_Q[order],
        np.take_along_axis(asked.request_QK[order], inner_QK, axis=1),
        asked.greedy_QK,
    )
    found = sample(WEIGHTS, shuffled)
    place_B = (order[:, None] * K + inner_QK).ravel()
    np.testing.assert_array_equal(found.token_BT, rollout.token_BT[place_B])
    np.testing.assert_allclose(found.logp_BT, rollout.logp_BT[place_B], rtol=0, atol=1e-5)
    # Other prompts, some greedy, beside the first one.
    strangers = Prompts(*(np.concatenate([x[:1], y[1:]]) for x, y in zip(PROMPTS, random_prompts(9, Q), strict=True)))
    found = sample(
        WEIGHTS, Requests(strangers, asked.problem_Q, asked.request_QK, np.arange(Q)[:, None] > np.full(K, 3))
    )
    np.testing.assert_array_equal(found.token_BT[:K], rollout.token_BT[:K])
    assert not np.array_equal(found.token_BT[K:], rollout.token_BT[K:])


def test_an_answer_is_the_same_alone(rollout):
    """One prompt, one answer: other shapes throughout."""
    asked = jax.tree.map(lambda x: x[5:6], requests())
    alone = asked._replace(request_QK=asked.request_QK[:, 1:2], greedy_QK=asked.greedy_QK[:, 1:2])
    found = sampler(one_device())(WEIGHTS, alone)
    np.testing.assert_array_equal(found.token_BT[0], rollout.token_BT[5 * K + 1])
    np.testing.assert_allclose(found.logp_BT[0], rollout.logp_BT[5 * K + 1], rtol=0, atol=1e-5)


def test_the_request_number_makes_the_answer(sample, rollout):
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
    token_QP[np.arange(Q), PROMPTS.length_N - 1] = LAST_TOKENS
    return requests()._replace(prompts=Prompts(token_QP, PROMPTS.length_N))


def countdown():
    """The answers that `countdown_weights` must give to `countdown_requests`."""
    token_QT = np.maximum(LAST_TOKENS[:, None] - 2 * np.arange(1, T + 1), 0).astype(np.int32)
    return np.repeat(token_QT, K, axis=0)


def test_ends_and_cuts(sample):
    found = sample(countdown_weights(), countdown_requests())
    np.testing.assert_array_equal(found.token_BT, countdown())
    np.testing.assert_array_equal(found.length_B, np.repeat(LENGTHS, K))
    np.testing.assert_array_equal(found.truncated_B, np.repeat(TRUNCATED, K))


@pytest.mark.parametrize("lockstep", ["no", "yes"])
def test_eight_devices_answer_as_one_and_each_shard_stops_by_itself_unless_in_lockstep(lockstep, rollout):
    compiled = program(eight_devices(), lockstep=lockstep)
    found, capacity_n = jax.device_get(compiled(countdown_weights(), countdown_requests()))
    np.testing.assert_array_equal(found.token_BT, countdown())
    np.testing.assert_array_equal(found.truncated_B, np.repeat(TRUNCATED, K))
    # Two prompts a shard, and as many slots as answers.
    columns = [8] * 4 if lockstep == "yes" else [1, 3, 8, 8]
    np.testing.assert_array_equal(capacity_n, np.array(columns) * 2 * K)

    found, _ = jax.device_get(compiled(WEIGHTS, requests()))
    np.testing.assert_array_equal(found.token_BT, rollout.token_BT)
    np.testing.assert_allclose(found.logp_BT, rollout.logp_BT, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.truncated_B, rollout.truncated_B)


# Fewer slots than answers.


@pytest.mark.parametrize("slots", [1, 2, 4, 7, 23])
def test_few_slots_give_the_same_answers(slots, rollout):
    found, capacity_n = jax.device_get(program(one_device(), slots=slots)(WEIGHTS, requests()))
    np.testing.assert_array_equal(found.token_BT, rollout.token_BT)
    np.testing.assert_allclose(found.logp_BT, rollout.logp_BT, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.length_B, rollout.length_B)
    np.testing.assert_array_equal(found.truncated_B, rollout.truncated_B)
    # A slot that is free takes the next answer at once: greedy scheduling of the queue.
    ends_S = np.zeros(slots, int)
    for length in rollout.length_B:
        ends_S[ends_S.argmin()] += length
    assert capacity_n.tolist() == [ends_S.max() * slots]


def capacity(lengths, sizes):
    """What slots have time for under greedy scheduling, if they shrink to the next size once that holds the rest."""
    waiting, busy, total = list(lengths), [], 0
    while waiting or busy:
        while waiting and len(busy) < sizes[0]:
            busy.append(waiting.pop(0))
        while not waiting and len(sizes) > 1 and len(busy) <= sizes[1]:
            sizes = sizes[1:]
        total += sizes[0]
        busy = [left - 1 for left in busy if left > 1]
    return total


@pytest.mark.parametrize(("slots", "shrink"), [(5, 1), (10, 3), (7, 2), (2, 5)])
def test_slots_that_shrink_give_the_same_answers_for_less(slots, shrink, rollout):
    found, capacity_n = jax.device_get(program(one_device(), slots=slots, shrink=shrink)(WEIGHTS, requests()))
    np.testing.assert_array_equal(found.token_BT, rollout.token_BT)
    np.testing.assert_allclose(found.logp_BT, rollout.logp_BT, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.truncated_B, rollout.truncated_B)
    sizes = [max(slots >> halvings, 1) for halvings in range(shrink + 1)]
    assert capacity_n.tolist() == [capacity(rollout.length_B, sizes)]
    assert capacity_n[0] < capacity(rollout.length_B, sizes[:1])


@pytest.mark.parametrize("lockstep", ["no", "yes"])
def test_slots_that_shrink_on_eight_devices(lockstep, rollout):
    compiled = program(eight_devices(), slots=4, shrink=2, lockstep=lockstep)
    found, capacity_n = jax.device_get(compiled(WEIGHTS, requests()))
    np.testing.assert_array_equal(found.token_BT, rollout.token_BT)
    np.testing.assert_allclose(found.logp_BT, rollout.logp_BT, rtol=0, atol=1e-5)
    assert (len(set(capacity_n.tolist())) == 1) == (lockstep == "yes")


@pytest.mark.parametrize("lockstep", ["no", "yes"])
@pytest.mark.parametrize("slots", [1, 4])
def test_few_slots_on_eight_devices(slots, lockstep, rollout):
    found, capacity_n = jax.device_get(program(eight_devices(), slots=slots, lockstep=lockstep)(WEIGHTS, requests()))
    np.testing.assert_array_equal(found.token_BT, rollout.token_BT)
    np.testing.assert_allclose(found.logp_BT, rollout.logp_BT, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.truncated_B, rollout.truncated_B)
    assert (len(set(capacity_n.tolist())) == 1) == (lockstep == "yes")


def test_the_order_of_the_queue_changes_no_bit():
    compiled, asked = program(one_device(), slots=4), requests()
    first = jax.device_get(compiled(WEIGHTS, asked)[0])
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(Q)
        turned = jax.tree.map(lambda x, order=order: x[order], asked)
        found = jax.device_get(compiled(WEIGHTS, turned)[0])
        place_B = (order[:, None] * K + np.arange(K)).ravel()
        jax.tree.map(lambda x, y, place_B=place_B: np.testing.assert_array_equal(x, y[place_B]), found, first)


class Noted:
    """Hands over nothing, but notes what it should."""

    def __init__(self, answers):
        self.answers, self.calls = answers, []

    def __call__(self, ended, round_answers):
        def note(*ended):
            self.calls.append(jax.tree.map(np.array, ended))
            return np.ones(1, np.int32)

        return io_callback(note, jax.ShapeDtypeStruct((1,), np.int32), *ended, ordered=False)


def rounds_of(mesh, *, ahead, submit=None, count=3, **settings):
    """`count` rounds of the same prompts with numbers that go on, in one program: `weights -> [Round]`."""
    engine = Engine(GRAPH, AXES, mesh, RolloutConfig(T, temperature=TEMPERATURE, **settings), EOS_IDS, "float32")

    def run(weights):
        view = engine.sampling_weights(weights)
        asked = [requests(start=number * Q * K) for number in range(count + 1)]
        progress, done = None, []
        for number in range(count):
            window = jax.tree.map(lambda *x: jnp.stack(x), *asked[number : number + 2])
            progress = engine.begin(view, window) if progress is None else progress
            progress, round_ = engine.round(view, progress, window, KEY, ahead and number + 1 < count, submit)
            done.append(round_)
        return done

    return jax.jit(run)


@pytest.mark.parametrize(("devices", "slots"), [(one_device, 5), (one_device, 24), (eight_devices, 4)])
@pytest.mark.parametrize(("lockstep", "shrink"), [("no", 0), ("yes", 0), ("no", 2)])
def test_rounds_that_begin_early_give_the_same_answers_sooner(devices, slots, lockstep, shrink):
    settings = {"slots": slots, "lockstep": lockstep, "shrink": shrink}
    apart, early = (jax.device_get(rounds_of(devices(), ahead=ahead, **settings)(WEIGHTS)) for ahead in (False, True))
    single = program(devices(), **settings)
    for number, (one, other) in enumerate(zip(apart, early, strict=True)):
        alone, capacity_n = jax.device_get(single(WEIGHTS, requests(start=number * Q * K)))
        np.testing.assert_array_equal(one.capacity_n, capacity_n)
        for found in (one.rollout, other.rollout):
            np.testing.assert_array_equal(found.token_BT, alone.token_BT)
            np.testing.assert_allclose(found.logp_BT, alone.logp_BT, rtol=0, atol=1e-5)
            np.testing.assert_array_equal(found.length_B, alone.length_B)
            np.testing.assert_array_equal(found.truncated_B, alone.truncated_B)
    # The first round takes as long; what the free slots did is saved later.
    if not shrink:
        np.testing.assert_array_equal(apart[0].capacity_n, early[0].capacity_n)
        assert sum(round_.capacity_n.sum() for round_ in early) < sum(round_.capacity_n.sum() for round_ in apart)


@pytest.mark.parametrize("slots", [4, 24])
def test_ended_answers_are_handed_over_once_while_others_are_decoded(slots):
    submit = Noted(3)
    done = jax.device_get(rounds_of(one_device(), ahead=True, submit=submit, slots=slots)(WEIGHTS))
    handed = {}
    for place_F, request_F, problem_F, token_FT, length_F, gradable_F in submit.calls:
        for row, request in enumerate(request_F.tolist()):
            assert request not in handed
            assert place_F[row] == request % (Q * K)
            assert problem_F[row] == request % (Q * K) // K
            handed[request] = token_FT[row], length_F[row], gradable_F[row]
    tokens, _, length, truncated = Rollout(*(np.concatenate(x) for x in zip(*(r.rollout for r in done), strict=True)))
    for request, (token_T, n, gradable) in handed.items():
        assert n == length[request]
        np.testing.assert_array_equal(token_T[:n], tokens[request, :n])
        assert gradable == (not truncated[request])
    # All but those that are too few to fill a batch at the end of each round.
    assert len(handed) >= 3 * (Q * K - 2)
    # Others wait in the queue, or longer ones are still being decoded, when the first are handed over.
    place_F, _, _, _, length_F, _ = submit.calls[0]
    assert place_F.max() < Q * K // 2 if slots == 4 else length_F.max() < T
    assert [int(r.ticket_n[0]) for r in done] == [1, 1, 1]


@pytest.mark.parametrize("slots", [3, 24])
def test_answers_over_several_blocks_of_the_cache(slots, monkeypatch, forward):
    monkeypatch.setattr(cache, "MIN_COLUMNS", 2)
    monkeypatch.setattr(cache, "MAX_BLOCKS", 100)
    monkeypatch.setattr(cache, "MULTIPLE", 1)
    found = sampler(one_device(), slots=slots)(WEIGHTS, requests())
    expected_BT = teacher_forced(forward, WEIGHTS, found)
    np.testing.assert_allclose(found.logp_BT, expected_BT, rtol=0, atol=1e-5)


@pytest.mark.parametrize("devices", [one_device, eight_devices])
def test_the_loop_copies_no_cache_and_gathers_no_weight(devices, monkeypatch):
    monkeypatch.setattr(cache, "MIN_COLUMNS", 4)
    monkeypatch.setattr(cache, "MULTIPLE", 1)
    mesh, slots = devices(), 4
    text = program(mesh, slots=slots).lower(WEIGHTS, requests()).compile().as_text()
    blocks = -(-(PROMPT_LIMIT + T) // 4)
    elements = MODEL.layers * blocks * slots * MODEL.kv_heads * MODEL.head_size * 4 // mesh.shape["tensor"]
    found = {"copy": [0], "all-gather": [0], "dynamic-update-slice": [], "scatter": []}
    for line in hlo.inside_loops(text):
        found.setdefault(hlo.operation(line), []).append(hlo.size(line))
    # The loop carries the cache, and this counts what is as large as it.
    assert elements in found["dynamic-update-slice"] + found["scatter"]
    assert max(found["copy"]) < elements
    assert max(found["all-gather"]) < min(
        leaf.size // MODEL.layers for leaf in jax.tree.leaves(WEIGHTS) if leaf.ndim > 2
    )
    assert "collective-permute" not in found
