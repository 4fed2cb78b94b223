"""`verify` inside jit: each verdict in its row, on any mesh, and no exception out of the host."""

import logging
import threading
import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.hostile_pool import FOLDER, hostile_pool
from nft_jax.parallel.mesh import make_mesh, shard_axes
from nft_jax.types import EndedAnswers
from nft_jax.verify import STATUSES, Pool
from nft_jax.verify import callback as callback_module
from nft_jax.verify.callback import NOT_GRADED, Grader, Submitter, graders_differ, verify
from nft_jax.verify.findings import Finding, key_of

B, T, EOS = 32, 6, 1
MESHES = [(4, 2), (8, 1), (1, 1)]
ANSWERS = [str(index) for index in range(10)]


def decode(rows: list[list[int]]) -> list[str]:
    """Ids from 100 are digits, EOS is silent, and id 50 + i is the i-th deed below."""
    deeds = ["crash", "sleep", "raise", "unknown"]
    return ["".join("" if t == EOS else str(t - 100) if t >= 100 else deeds[t - 50] for t in row) for row in rows]


class RecordingPool:
    """A pool that notes what it is asked."""

    def __init__(self, pool: Pool):
        self.pool = pool
        self.items = []
        self.lock = threading.Lock()

    def begin(self):
        batch = self.pool.begin()
        return types.SimpleNamespace(add=partial(self.add, batch), collect=batch.collect)

    def add(self, batch, items):
        with self.lock:
            self.items.extend(items)
        batch.add(items)

    def log_first_error(self, verdicts):
        self.pool.log_first_error(verdicts)


@pytest.fixture(scope="module")
def pool():
    with hostile_pool() as pool:
        yield pool


def answers_batch(rows: int = B, seed: int = 0):
    """Random answers, about half of them correct: (prompt, token, length, gradable) and the codes expected."""
    random = np.random.default_rng(seed)
    prompt_B = random.integers(0, 10, rows, dtype=np.int32)
    said_B = np.where(random.random(rows) < 0.5, prompt_B, (prompt_B + 1) % 10)
    token_BT = random.integers(100, 110, (rows, T), dtype=np.int32)  # garbage after the end of the answer
    token_BT[:, 0], token_BT[:, 1] = 100 + said_B, EOS
    length_B = np.full(rows, 2, np.int32)
    gradable_B = random.random(rows) < 0.75
    code_B = (gradable_B & (said_B == prompt_B)).astype(np.int32)  # "correct" is code 1, "incorrect" 0
    return (prompt_B, token_BT, length_B, gradable_B), code_B


def put(mesh, arrays):
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    return tuple(jax.device_put(array, rows) for array in arrays)


@pytest.mark.parametrize("shape", MESHES)
def test_verify_returns_each_verdict_in_its_row(pool, shape):
    mesh = make_mesh(*shape)
    recording = RecordingPool(pool)
    grader = Grader(recording, decode, ANSWERS, 600.0)
    arrays, expected = answers_batch()
    code_B, host = jax.jit(lambda *a: verify(grader, mesh, *a))(*put(mesh, arrays))
    assert code_B.dtype == jnp.int32
    np.testing.assert_array_equal(code_B, expected)
    assert 0 < expected.sum() < B
    assert host.seconds.shape == (mesh.size,)
    assert host.seconds.dtype == jnp.float32
    assert (np.asarray(host.seconds) > 0).all()
    np.testing.assert_array_equal(host.second_B, np.full(B, NOT_GRADED))
    # Each gradable row once, no other row at all; the text ends where the answer does.
    prompt_B, token_BT, _, gradable_B = arrays
    sent = [(str(token_BT[row, 0] - 100), ANSWERS[prompt_B[row]]) for row in np.flatnonzero(gradable_B)]
    assert sorted(recording.items) == sorted(sent)


@pytest.mark.parametrize("shape", MESHES)
def test_verify_works_in_a_while_loop(pool, shape):
    mesh = make_mesh(*shape)
    grader = Grader(pool, decode, ANSWERS, 600.0)
    batches = [answers_batch(seed=seed) for seed in range(4)]
    stacked = [np.stack(parts) for parts in zip(*(arrays for arrays, _ in batches), strict=True)]

    @jax.jit
    def rounds(prompt_RB, token_RBT, length_RB, gradable_RB):
        def body(carry):
            number, code_RB, seconds = carry
            code_B, host = verify(
                grader, mesh, prompt_RB[number], token_RBT[number], length_RB[number], gradable_RB[number]
            )
            return number + 1, code_RB.at[number].set(code_B), seconds + host.seconds.sum()

        start = (jnp.int32(0), jnp.full((4, B), -1, jnp.int32), jnp.float32(0))
        return jax.lax.while_loop(lambda carry: carry[0] < 4, body, start)

    number, code_RB, seconds = rounds(*stacked)
    assert int(number) == 4
    assert float(seconds) > 0
    np.testing.assert_array_equal(code_RB, np.stack([expected for _, expected in batches]))


@pytest.mark.parametrize(("shape", "place_is_known"), [*((shape, True) for shape in MESHES), ((2, 4), False)])
def test_submitter_answers_are_graded_once_and_collected(pool, shape, place_is_known):
    """Half of the rows are handed over before, two at a time, by each shard; the rest is graded at the end."""
    mesh = make_mesh(*shape)
    recording = RecordingPool(pool)
    grader = Grader(recording, decode, ANSWERS, 600.0)
    submit = Submitter(grader, mesh, 2)
    (problem_B, token_BT, length_B, gradable_B), expected = answers_batch()
    request_B = np.arange(B, dtype=np.uint32) + 1000

    def shard(request_b, problem_b, token_bt, length_b, gradable_b):
        b = request_b.shape[0]

        def body(carry):
            place, ticket = carry
            place_A = jnp.stack([place, place + 2])
            rows = (x[place_A] for x in (request_b, problem_b, token_bt, length_b, gradable_b))
            return place + 4, jnp.maximum(ticket, submit(EndedAnswers(place_A, *rows), b if place_is_known else None))

        return jax.lax.while_loop(lambda carry: carry[0] < b, body, (jnp.int32(0), jnp.zeros(1, jnp.int32)))[1]

    @jax.jit
    def run(request_B, *rows):
        spec = jax.sharding.PartitionSpec("data")
        ticket_X = jax.shard_map(
            shard, mesh=mesh, axis_names=shard_axes(mesh), in_specs=(spec,) * 5, out_specs=spec, check_vma=False
        )(request_B, *rows)
        return verify(grader, mesh, *rows, request_B, ticket_X)

    arrays = put(mesh, (request_B, problem_B, token_BT, length_B, gradable_B))
    for _ in range(2):
        np.testing.assert_array_equal(run(*arrays)[0], expected)
    sent = [(str(token_BT[row, 0] - 100), ANSWERS[problem_B[row]]) for row in np.flatnonzero(gradable_B)]
    assert sorted(recording.items) == sorted(2 * sent)


def test_grader_grades_an_answer_that_differs_from_the_submitted_one(pool):
    recording = RecordingPool(pool)
    grader = Grader(recording, decode, ANSWERS, 600.0)
    token = np.array([[103, EOS], [104, EOS]], np.int32)
    rows = np.array([7, 8], np.uint32), np.array([3, 3], np.int32), token, np.full(2, 2, np.int32), np.ones(2, bool)
    assert grader.submit(*rows).shape == (1,)
    other = token[::-1]
    code_b, *_ = grader(np.ones(1, np.int32), *rows[:2], other, *rows[3:])
    np.testing.assert_array_equal(code_b, [0, 1])
    assert len(recording.items) == 4
    # Nothing is left of it: the same request is graded again.
    grader(np.ones(1, np.int32), *rows)
    assert len(recording.items) == 6


def test_verify_passes_every_status_to_the_device(pool):
    mesh = make_mesh(4, 2)
    grader = Grader(pool, decode, ANSWERS)
    arrays, expected = answers_batch()
    arrays[3][:] = True
    arrays[1][:3, 0] = [50, 51, 52]
    code_B, _ = jax.jit(lambda *a: verify(grader, mesh, *a))(*put(mesh, arrays))
    assert [STATUSES[code] for code in np.asarray(code_B)[:3]] == ["error", "timeout", "error"]
    correct = arrays[1][3:, 0] - 100 == arrays[0][3:]
    np.testing.assert_array_equal(np.asarray(code_B)[3:], correct.astype(np.int32))


@pytest.mark.parametrize("shape", MESHES)
def test_grader_second_pool_judges_the_same_rows_for_comparison_alone(pool, shape):
    mesh = make_mesh(*shape)
    arrays, expected = answers_batch()
    with Pool("helpers.lenient_grader:at_least", paths=[FOLDER]) as lenient:
        grader = Grader(pool, decode, ANSWERS, 600.0, lenient)
        run = jax.jit(lambda *a: verify(grader, mesh, *a))
        code_B, host = jax.block_until_ready(run(*put(mesh, arrays)))
    np.testing.assert_array_equal(code_B, expected)
    gradable_B = arrays[3]
    np.testing.assert_array_equal(np.asarray(host.second_B)[~gradable_B], np.full((~gradable_B).sum(), NOT_GRADED))
    said_B = arrays[1][:, 0] - 100
    lenient_B = (said_B >= arrays[0]).astype(np.int32)
    np.testing.assert_array_equal(np.asarray(host.second_B)[gradable_B], lenient_B[gradable_B])
    np.testing.assert_array_equal(graders_differ(code_B, host.second_B), gradable_B & (lenient_B != expected))
    assert 0 < np.asarray(graders_differ(code_B, host.second_B)).sum() < gradable_B.sum()


@pytest.mark.parametrize("shape", [(4, 2), (1, 1)])
def test_verify_returns_each_reward_in_its_row_if_it_is_asked(shape):
    mesh, (arrays, _) = make_mesh(*shape), answers_batch()
    with Pool("helpers.lenient_grader:share", paths=[FOLDER], correct_from=0.6) as graded:
        grader = Grader(graded, decode, ANSWERS, 600.0)
        run = jax.jit(lambda *a: (verify(grader, mesh, *a, rewards=True), verify(grader, mesh, *a)))
        (code_B, host), (same_B, without) = jax.device_get(run(*put(mesh, arrays)))
    reward_B = np.where(arrays[3], 1 - (arrays[1][:, 0] - 100) / 10, 0)
    np.testing.assert_allclose(host.reward_B, reward_B, rtol=1e-6)
    np.testing.assert_array_equal(code_B, reward_B > 0.59)
    np.testing.assert_array_equal(same_B, code_B)
    assert without.reward_B is None


def test_verify_without_gradable_rows_sends_nothing_to_the_pool(pool):
    mesh = make_mesh(4, 2)
    recording = RecordingPool(pool)
    arrays, _ = answers_batch()
    arrays[3][:] = False
    arrays[0][:] = -1  # an empty slot may hold any index
    grader = Grader(recording, decode, ANSWERS)
    code_B, _ = jax.jit(lambda *a: verify(grader, mesh, *a))(*put(mesh, arrays))
    np.testing.assert_array_equal(code_B, np.zeros(B, np.int32))
    assert recording.items == []


def _raise(*arguments):
    raise OSError("the tokenizer fell over")


@pytest.mark.parametrize("broken", ["decode", "pool", "index", "count"])
def test_grader_exception_is_an_error_in_every_row_and_logged_once(pool, broken, caplog):
    mesh = make_mesh(1, 1)
    arrays, expected = answers_batch()
    broken_pool = type("Broken", (), {"begin": _raise})()
    grader = Grader(
        broken_pool if broken == "pool" else pool,
        {"decode": _raise, "count": lambda rows: ["one text"]}.get(broken, decode),
        ANSWERS,
    )
    if broken == "index":
        arrays[0][np.flatnonzero(arrays[3])[0]] = -1
    run = jax.jit(lambda *a: verify(grader, mesh, *a))
    with caplog.at_level(logging.ERROR, logger=callback_module.__name__):
        for _ in range(2):
            code_B, _ = run(*put(mesh, arrays))
            np.testing.assert_array_equal(code_B, np.full(B, STATUSES.index("error"), np.int32))
    assert len(caplog.records) == 1


def test_verify_refuses_a_batch_that_cannot_be_split(pool):
    mesh = make_mesh(4, 2)
    grader = Grader(pool, decode, ANSWERS)
    arrays, _ = answers_batch(30)
    with pytest.raises(ValueError, match=r"30 answers .* 8 devices \(replica 1 × data 4 × tensor 2\); use 24 or 32"):
        jax.eval_shape(lambda *a: verify(grader, mesh, *a), *arrays)


def test_verify_compiles_once_for_many_steps(pool):
    mesh = make_mesh(4, 2)
    grader = Grader(pool, decode, ANSWERS)
    run = jax.jit(lambda *a: verify(grader, mesh, *a))
    for seed in range(5):
        arrays, expected = answers_batch(seed=seed)
        np.testing.assert_array_equal(run(*put(mesh, arrays))[0], expected)
    assert run._cache_size() == 1


def test_findings_are_kept_from_the_first_call_on_and_given_once():
    with Pool("gsm8k", workers=1) as pool:
        grader = Grader(pool, decode, ANSWERS)
        token_bt = np.array([[103, EOS], [104, EOS], [EOS, EOS]], np.int32)
        rows = np.arange(3), np.full(3, 3, np.int32), token_bt, np.array([2, 2, 1]), np.ones(3, bool)
        ticket = np.zeros(1, np.int32)
        grader(ticket, *rows)
        assert grader.take_findings() == {}
        assert [STATUSES[code] for code in grader(ticket, *rows).code_B] == ["correct", "incorrect", "unparsed"]
        expected = [Finding("3", ""), Finding("4", "not the reference"), Finding(None, "no number as the result")]
        keys = [key_of(3, tokens) for tokens in ([103, EOS], [104, EOS], [EOS])]
        assert grader.take_findings() == dict(zip(keys, expected, strict=True))
        assert grader.take_findings() == {}
        assert grader.take_findings(keep_next=False) == {}
        grader(ticket, *rows)
        assert grader.take_findings() == {}
