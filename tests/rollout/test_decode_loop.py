"""The decode loop of a data shard: slots, halvings, rounds that begin early, submissions, and its compiled form."""

import jax
import numpy as np
import pytest

from helpers.engines import WEIGHTS, K, Q, T, program, requests, rounds_of, sampler, teacher_forced
from helpers.small_parts import MODEL, PROMPT_LIMIT, eight_devices, one_device
from nft_jax.compat import io_callback
from nft_jax.data.stops import compile_stops
from nft_jax.models import cache
from nft_jax.plan import hlo
from nft_jax.report.slots import Decoding, trace_slots
from nft_jax.rounding import ceil_div
from nft_jax.types import Rollout


@pytest.mark.parametrize("slots", [1, 2, 4, 7, 23])
def test_decode_loop_with_few_slots_gives_the_same_answers(slots, rollout):
    found, capacity_X, *_ = jax.device_get(program(one_device(), slots=slots)(WEIGHTS, requests()))
    np.testing.assert_array_equal(found.token_BT, rollout.token_BT)
    np.testing.assert_allclose(found.logp_BT, rollout.logp_BT, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.length_B, rollout.length_B)
    np.testing.assert_array_equal(found.truncated_B, rollout.truncated_B)
    # A slot that is free takes the next answer at once: greedy scheduling of the queue.
    ends_S = np.zeros(slots, int)
    for length in rollout.length_B:
        ends_S[ends_S.argmin()] += length
    assert capacity_X.tolist() == [ends_S.max() * slots]


def test_decode_loop_ends_answers_at_their_own_limits(rollout):
    limit_QK = 1 + np.arange(Q * K, dtype=np.int32).reshape(Q, K) % 4
    found = sampler(one_device())(WEIGHTS, requests()._replace(limit_QK=limit_QK))
    np.testing.assert_array_equal(found.length_B, np.minimum(rollout.length_B, limit_QK.ravel()))
    inside_BT = np.arange(T)[None] < found.length_B[:, None]
    np.testing.assert_array_equal(found.token_BT, np.where(inside_BT, rollout.token_BT, 0))
    # Only the engine's own limit truncates an answer.
    assert not found.truncated_B.any()


# Each token is a letter, or two; the stop texts begin and end inside tokens.
PIECES = [b"", b"", b"", *(bytes([a, b]) for a in b"xyz" for b in b"xyz"), *(bytes([a]) for a in b"xyzxyzxyz")]
STOPS = ["zxy", "yy"]


@pytest.mark.parametrize(("mesh", "slots"), [(one_device, 1), (one_device, 5), (eight_devices, 2)])
def test_decode_loop_ends_answers_at_stop_texts(mesh, slots, rollout):
    table = compile_stops(STOPS, PIECES)
    found = sampler(mesh(), slots=slots, stop_table=table)(WEIGHTS, requests())
    ended = 0
    for b, (ids, length) in enumerate(zip(rollout.token_BT, rollout.length_B, strict=True)):
        texts = [b"".join(PIECES[i] for i in ids[: n + 1]).decode() for n in range(length)]
        ends = [n + 1 for n, text in enumerate(texts) if any(stop in text for stop in STOPS)]
        expected = min(ends, default=length)
        ended += expected < length
        assert found.length_B[b] == expected
        np.testing.assert_array_equal(found.token_BT[b, :expected], ids[:expected])
        assert not found.token_BT[b, expected:].any()
        assert found.truncated_B[b] == (rollout.truncated_B[b] and not ends)
    assert ended > 3


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


HALVINGS = [
    (5, {"max_halvings": 1}, [5, 2]),
    (10, {"max_halvings": 3}, [10, 5, 2, 1]),
    (7, {"max_halvings": 2, "halving_steps": 2}, [7, 5, 3, 2, 1]),
    (2, {"max_halvings": 5, "halving_steps": 3}, [2, 1]),
]


@pytest.mark.parametrize(("slots", "settings", "sizes"), HALVINGS)
def test_decode_loop_that_halves_its_slots_gives_the_same_answers_with_less_capacity(slots, settings, sizes, rollout):
    found, capacity_X, *_ = jax.device_get(program(one_device(), slots=slots, **settings)(WEIGHTS, requests()))
    np.testing.assert_array_equal(found.token_BT, rollout.token_BT)
    np.testing.assert_allclose(found.logp_BT, rollout.logp_BT, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.truncated_B, rollout.truncated_B)
    assert capacity_X.tolist() == [capacity(rollout.length_B, sizes)]
    assert capacity_X[0] < capacity(rollout.length_B, sizes[:1])


@pytest.mark.parametrize("lockstep", [False, True])
def test_decode_loop_that_halves_its_slots_on_eight_devices(lockstep, rollout):
    compiled = program(eight_devices(), slots=4, max_halvings=2, lockstep=lockstep)
    found, capacity_X, *_ = jax.device_get(compiled(WEIGHTS, requests()))
    np.testing.assert_array_equal(found.token_BT, rollout.token_BT)
    np.testing.assert_allclose(found.logp_BT, rollout.logp_BT, rtol=0, atol=1e-5)
    assert (len(set(capacity_X.tolist())) == 1) == lockstep


@pytest.mark.parametrize("lockstep", [False, True])
@pytest.mark.parametrize("slots", [1, 4])
def test_decode_loop_with_few_slots_on_eight_devices(slots, lockstep, rollout):
    found, capacity_X, *_ = jax.device_get(
        program(eight_devices(), slots=slots, lockstep=lockstep)(WEIGHTS, requests())
    )
    np.testing.assert_array_equal(found.token_BT, rollout.token_BT)
    np.testing.assert_allclose(found.logp_BT, rollout.logp_BT, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.truncated_B, rollout.truncated_B)
    assert (len(set(capacity_X.tolist())) == 1) == lockstep


def test_decode_loop_queue_order_changes_no_bit():
    compiled, asked = program(one_device(), slots=4), requests()
    first = jax.device_get(compiled(WEIGHTS, asked).rollout)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(Q)
        turned = jax.tree.map(lambda x, order=order: x[order], asked)
        found = jax.device_get(compiled(WEIGHTS, turned).rollout)
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

        return io_callback(note, jax.ShapeDtypeStruct((1,), np.int32), *ended)


@pytest.mark.parametrize(("devices", "slots"), [(one_device, 5), (one_device, 24), (eight_devices, 4)])
@pytest.mark.parametrize(("lockstep", "halvings"), [(False, 0), (True, 0), (False, 2)])
def test_decode_loop_finish_round_gives_the_same_answers_sooner_when_it_begins_the_next(
    devices, slots, lockstep, halvings
):
    settings = {"slots": slots, "lockstep": lockstep, "max_halvings": halvings, "halving_steps": 2}
    apart, early = (jax.device_get(rounds_of(devices(), begins_next=b, **settings)(WEIGHTS)) for b in (False, True))
    single = program(devices(), **settings)
    for number, (one, other) in enumerate(zip(apart, early, strict=True)):
        alone, capacity_X, *_ = jax.device_get(single(WEIGHTS, requests(start=number * Q * K)))
        np.testing.assert_array_equal(one.capacity_X, capacity_X)
        for found in (one.rollout, other.rollout):
            np.testing.assert_array_equal(found.token_BT, alone.token_BT)
            np.testing.assert_allclose(found.logp_BT, alone.logp_BT, rtol=0, atol=1e-5)
            np.testing.assert_array_equal(found.length_B, alone.length_B)
            np.testing.assert_array_equal(found.truncated_B, alone.truncated_B)
    # The page of a run finds the schedule again from the lengths of the answers.
    mesh = devices().shape
    shards, in_step = mesh["replica"] * mesh["data"], mesh["data"] if lockstep else 1
    length_RQK = np.stack([each.rollout.length_B.reshape(Q, K) for each in apart])
    for done, begins_next in ((apart, False), (early, True)):
        slots_of_shard = min(slots, Q * K // shards)
        decoding = Decoding(slots_of_shard, shards, in_step, begins_next, len(done), halvings, halving_steps=2)
        found = [shard.capacity for shard in trace_slots(length_RQK, decoding)]
        assert found == sum(each.capacity_X for each in done).tolist()
    # The first round takes as long; what the free slots did is saved later.
    if not halvings:
        np.testing.assert_array_equal(apart[0].capacity_X, early[0].capacity_X)
        assert sum(each.capacity_X.sum() for each in early) < sum(each.capacity_X.sum() for each in apart)


@pytest.mark.parametrize("slots", [4, 24])
def test_decode_loop_submits_ended_answers_once_while_it_decodes_others(slots):
    submit = Noted(3)
    done = jax.device_get(rounds_of(one_device(), begins_next=True, submit=submit, slots=slots)(WEIGHTS))
    handed = {}
    for place_A, request_A, problem_A, token_AT, length_A, gradable_A in submit.calls:
        for row, request in enumerate(request_A.tolist()):
            assert request not in handed
            assert place_A[row] == request % (Q * K)
            assert problem_A[row] == request % (Q * K) // K
            handed[request] = token_AT[row], length_A[row], gradable_A[row]
    tokens, _, length, truncated = Rollout(*(np.concatenate(x) for x in zip(*(r.rollout for r in done), strict=True)))
    for request, (token_T, n, gradable) in handed.items():
        assert n == length[request]
        np.testing.assert_array_equal(token_T[:n], tokens[request, :n])
        assert gradable == (not truncated[request])
    # All but those that are too few to fill a batch at the end of each round.
    assert len(handed) >= 3 * (Q * K - 2)
    # Others wait in the queue, or longer ones are still being decoded, when the first are handed over.
    place_A, _, _, _, length_A, _ = submit.calls[0]
    assert place_A.max() < Q * K // 2 if slots == 4 else length_A.max() < T
    assert [int(r.ticket_X[0]) for r in done] == [1, 1, 1]


@pytest.mark.parametrize("slots", [3, 24])
def test_decode_loop_answers_over_several_blocks_of_the_cache(slots, monkeypatch, forward):
    monkeypatch.setattr(cache, "MIN_COLUMNS", 2)
    monkeypatch.setattr(cache, "MAX_BLOCKS", 100)
    monkeypatch.setattr(cache, "COLUMN_MULTIPLE", 1)
    found = sampler(one_device(), slots=slots)(WEIGHTS, requests())
    expected_BT = teacher_forced(forward, WEIGHTS, found)
    np.testing.assert_allclose(found.logp_BT, expected_BT, rtol=0, atol=1e-5)


@pytest.mark.parametrize("devices", [one_device, eight_devices])
def test_decode_loop_copies_no_cache_and_gathers_no_weight(devices, monkeypatch):
    monkeypatch.setattr(cache, "MIN_COLUMNS", 4)
    monkeypatch.setattr(cache, "COLUMN_MULTIPLE", 1)
    mesh, slots = devices(), 4
    text = program(mesh, slots=slots).lower(WEIGHTS, requests()).compile().as_text()
    blocks = ceil_div(PROMPT_LIMIT + T, 4)
    elements = MODEL.layers * blocks * slots * MODEL.kv_heads * MODEL.head_size * 4 // mesh.shape["tensor"]
    found = {"copy": [0], "all-gather": [0], "dynamic-update-slice": [], "scatter": []}
    for line in hlo.loop_instructions(text):
        found.setdefault(hlo.operation(line), []).append(hlo.element_count(line))
    # The loop carries the cache, and this counts what is as large as it.
    assert elements in found["dynamic-update-slice"] + found["scatter"]
    assert max(found["copy"]) < elements
    assert max(found["all-gather"]) < min(
        leaf.size // MODEL.layers for leaf in jax.tree.leaves(WEIGHTS) if leaf.ndim > 2
    )
    assert "collective-permute" not in found
