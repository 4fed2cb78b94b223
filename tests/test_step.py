"""The one program: what it holds, what it counts, what it draws, what it trains on, and that it never stops."""

import functools
import importlib
import re
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.experiments import (
    GRADERS_MODULE,
    JudgedPool,
    Program,
    assert_same,
    compilations,
    grader,
    moved,
    on_host,
    small,
    write_graders,
)
from nft_jax import losses
from nft_jax.data.order import prompt_order
from nft_jax.losses import declare
from nft_jax.parallel.mesh import make_mesh
from nft_jax.plan import hlo
from nft_jax.randomness import stream
from nft_jax.resolve import check_sizes
from nft_jax.rollout.engine import Engine
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.metrics import step_metrics
from nft_jax.step import Step
from nft_jax.verify import Pool
from nft_jax.verify.grade import STATUSES

Q, K = 8, 4
ROUNDS = 4


@declare(normalizer="token_mean")
def tempered_likelihood(logp_BT, batch, *, strength: float = 1.0):
    """A loss of one's own, named in the config as "test_step:tempered_likelihood"."""
    return jnp.where(batch.answer_BT >= 0, -strength * (batch.reward_BT - batch.rate_BT) * logp_BT, 0.0)


class LyingEngine:
    """An engine that reports each log-prob one nat too high: what trusts the sampler can be told from what doesn't."""

    def __init__(self, engine: Engine):
        self.engine, self.sampling_weights, self.begin = engine, engine.sampling_weights, engine.begin

    def round(self, *given):
        progress, done = self.engine.round(*given)
        rollout = done.rollout
        inside_BT = jnp.arange(rollout.token_BT.shape[1])[None] < rollout.length_B[:, None]
        rollout = rollout._replace(logp_BT=rollout.logp_BT + inside_BT.astype(jnp.float32))
        return progress, done._replace(rollout=rollout)


class WatchedEngine:
    """An engine that shows the host every request."""

    def __init__(self, engine: Engine):
        self.engine, self.sampling_weights, self.begin, self.requests = (
            engine,
            engine.sampling_weights,
            engine.begin,
            [],
        )

    def round(self, view, progress, window, *given):
        jax.debug.callback(lambda number_QK: self.requests.append(np.array(number_QK)), window.request_QK[0])
        return self.engine.round(view, progress, window, *given)


@dataclass(frozen=True)
class WatchedStep(Step):
    """A step that shows the host each round's groups and the training buffer."""

    rounds: list = field(default_factory=list)
    buffers: list = field(default_factory=list)

    def sample_round(self, view, prompts, cursor, *given):
        progress, groups, *effort = super().sample_round(view, prompts, cursor, *given)
        jax.debug.callback(lambda *seen: self.rounds.append(on_host(seen)), cursor, groups)
        return progress, groups, *effort

    def pack(self, buffer, trained, prompts, step):
        jax.debug.callback(lambda *seen: self.buffers.append(on_host(seen)), buffer, trained)
        return super().pack(buffer, trained, prompts, step)


# Several answers to a row, several micro-batches, not as many on every data shard.
PACKING = {"packing__row_tokens": 50, "packing__rows_per_micro_batch": 1}
# Beside the plain one: each loss in a program that also takes another path of the step.
PROGRAMS = {
    "plain": (PACKING, {}),
    "eight devices": (PACKING | {"mesh__data": 4, "mesh__tensor": 2}, {}),
    # Rows of tokens are split over `tensor` too, so they must divide by it.
    "two replicas": (
        {"mesh__replica": 2, "mesh__data": 2, "mesh__tensor": 2, "mesh__sequence_parallel": True}
        | PACKING
        | {"rollout__lockstep": "yes", "old_logp": "recompute"},
        {},
    ),
    "rft": (
        {"loss__name": "rft", "old_logp": "recompute", "updates_per_step": 2},
        {"wrap_engine": LyingEngine},
    ),
    "grpo": ({"loss__name": "grpo", "loss__kl_weight": 0.1}, {}),
    "dr_grpo": ({"loss__name": "dr_grpo", "strict_on_policy": True}, {"wrap_engine": LyingEngine}),
    "dapo": (
        {
            "loss__name": "dapo",
            "selection__carry": True,
            "selection__candidates_per_round": 2 * Q,
            "selection__rate_below": 0.75,
            "packing__row_tokens": 50,
        },
        {"step_class": WatchedStep, "wrap_engine": WatchedEngine},
    ),
    "dpo": ({"loss__name": "dpo", "updates_per_step": 2, "packing__rows_per_micro_batch": 3}, {}),
    "contrast": ({"loss__name": "contrast"}, {}),
    "own": ({"loss__name": f"{__name__}:tempered_likelihood", "loss__own__strength": 2.0}, {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_graders(tmp_path_factory.mktemp("step"))


@pytest.fixture(scope="module")
def programs(folder):
    """`(name) -> Program`: each compiled once, and given back as it was before its first step."""
    made: dict[str, Program] = {}

    def get(name: str) -> Program:
        if name not in made:
            changes, parts = PROGRAMS[name]
            made[name] = Program(small(verify__grader=grader("coin"), **changes), folder, **parts)
        made[name].start()
        return made[name]

    yield get
    for program in made.values():
        program.close()


@pytest.fixture
def plain(programs):
    return programs("plain")


@pytest.fixture(scope="module")
def all_wrong(folder):
    with Pool(grader("all_wrong")) as pool:
        yield pool


@pytest.fixture(scope="module")
def all_right(folder):
    with Pool(grader("all_right")) as pool:
        yield pool


def that_end_at_once(program: Program):
    """Weights under which the first token of every answer ends it: all hidden states share a direction, EOS's own."""
    weights = jax.tree.map(np.zeros_like, program.weights)
    weights["embedding"] += 1
    weights["norm"] += 1
    weights["head"][program.experiment.tokenizer.eos_ids[0]] = 1
    return weights


# The program.


def test_nothing_compiles_after_the_first_step(plain, all_wrong):
    plain.take()
    rounds = []
    with compilations() as seen:
        for pool in (plain.pool.own, all_wrong, plain.pool.own):
            plain.pool.pool = pool
            (record,) = plain.take()
            step_metrics(record)
            rounds.append(int(record.rounds))
        assert seen == []
        jax.jit(lambda x: x + 1).lower(jnp.zeros(())).compile()
        assert seen  # the ear is open
    assert rounds[1] == ROUNDS > rounds[0]


def test_one_program_holds_decode_loop_callback_and_optimizer(plain):
    text = plain.compiled.as_text()
    assert text.count("HloModule ") == 1
    named = dict.fromkeys(re.findall(r'op_name="jit\(train_step\)/([^"]*)"', text))
    # Draws in a loop (columns) inside a loop (rounds); the callback inside the rounds.
    assert any(re.search(r"^while/body/while/body/.*gumbel", name) for name in named)
    callbacks = [line for line in text.splitlines() if "custom_call_target" in line and "callback" in line]
    # One submits inside the loop of draws, one collects after it.
    paths = sorted(re.search(r'op_name="jit\(train_step\)/([^"]*)"', line)[1] for line in callbacks)
    assert len(paths) == 2
    assert all(path.startswith("while/body/") for path in paths)
    assert [path.count("while/body") for path in paths] == [1, 3] or [path.count("while/body") for path in paths] == [
        3,
        1,
    ]
    # Backward pass, then AdamW's root inside the `cond` that skips empty updates.
    assert any("transpose(jvp" in name for name in named)
    assert any(re.search(r"cond/branch_1_fun/sqrt$", name) for name in named)


def test_the_loops_of_generation_wait_for_no_other_shard_and_move_no_answer(programs):
    """On CPU devices a collective permute waits for all of them, which loops of different lengths never satisfy."""
    program = programs("eight devices")
    lines = list(hlo.inside_loops(program.compiled.as_text()))
    seen = {hlo.operation(line) for line in lines if "shard_map/while/body" in line}
    assert {"all-reduce", "all-gather", "dot"} <= seen
    assert not seen & {"collective-permute", "all-to-all", "reduce-scatter"}
    # Nor do the rounds copy the cache that they hand on.
    model, columns = (
        program.config.model,
        program.config.data.max_prompt_tokens + program.config.rollout.max_answer_tokens,
    )
    cache = f"[{model.layers},1,{Q * K // 4},{model.kv_heads // 2},{model.head_size},{columns}]"
    assert {"dynamic-update-slice", "while"} <= {hlo.operation(line) for line in lines if cache in line}
    assert not [line for line in lines if cache in line and hlo.operation(line) in ("copy", "copy-start", "all-gather")]


def test_the_state_is_donated(plain):
    before = plain.state
    plain.take()
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(plain.state))


def test_step_and_cursor_count_what_was_drawn(plain, all_wrong):
    rounds = 0
    for number, pool in enumerate((plain.pool.own, all_wrong, plain.pool.own), start=1):
        plain.pool.pool = pool
        (record,) = plain.take()
        rounds += int(record.rounds)
        assert int(plain.state.step) == number
        assert int(plain.state.cursor) == rounds * Q
        assert (int(record.statistics.groups), int(record.statistics.answers)) == (
            record.rounds * Q,
            record.rounds * Q * K,
        )


@pytest.mark.parametrize("mesh", ["eight devices", "two replicas"])
def test_one_device_and_eight_draw_the_same_answers_and_take_the_same_gradient(mesh, programs):
    one, eight = programs("plain"), programs(mesh)
    for step in range(3):
        (mine,), (its,) = one.take(), eight.take()
        assert_same((mine.last.prompt_Q, mine.last.token_QKT), (its.last.prompt_Q, its.last.token_QKT))
        assert (mine.rounds, mine.trained, mine.wasted) == (its.rounds, its.trained, its.wasted)
        # How much of a round yet to come the free slots got done depends on their number.
        assert_same(*(tally._replace(seconds=0, capacity=0) for tally in (mine.statistics, its.statistics)))
        if step == 0:
            assert one.config.updates_per_step == 1  # or the gradient would be of weights that differ already
            jax.tree_util.tree_map_with_path(assert_close, one.gradient, eight.gradient)
    assert mine.trained == Q


def assert_close(path, mine, its):
    assert np.linalg.norm(mine) > 0, path
    assert np.linalg.norm(mine - its) <= 1e-5 * np.linalg.norm(mine), path


# Dynamic sampling.


def test_where_all_is_wrong_nothing_moves(plain, all_wrong):
    plain.take()  # the optimizer's state is no longer zero
    before = on_host(plain.state)
    plain.pool.pool = all_wrong
    (record,) = plain.take()
    after = on_host(plain.state)
    assert_same(before.weights, after.weights)
    assert_same(before.optimizer_state, after.optimizer_state)
    assert (record.trained, record.rounds, record.applied.taken.sum(), record.statistics.reward) == (0, ROUNDS, 0, 0)
    assert (after.step, after.cursor) == (before.step + 1, before.cursor + ROUNDS * Q)
    metrics = step_metrics(record)
    assert metrics["loss"] is metrics["gradient_norm"] is metrics["entropy"] is metrics["ratio_mean"] is None
    plain.pool.pool = plain.pool.own
    assert plain.take()[0].trained == Q
    assert moved(after.weights, on_host(plain.state.weights))


def test_where_all_is_right_nothing_moves(plain, all_right):
    # Even a right answer counts as wrong when it is cut: only answers that all end are all right.
    weights = that_end_at_once(plain)
    plain.start(weights)
    plain.pool.pool = all_right
    (record,) = plain.take()
    assert record.statistics.reward == record.statistics.answers == ROUNDS * Q * K
    assert (record.statistics.longest, record.statistics.tokens) == (1, record.statistics.answers)
    assert (record.trained, record.rounds, record.applied.taken.sum()) == (0, ROUNDS, 0)
    assert_same(weights, on_host(plain.state.weights))


def test_a_cut_answer_is_never_right_and_never_graded(plain, all_right):
    plain.pool.pool = all_right
    (record,) = plain.take()
    assert 0 < record.statistics.truncated < record.statistics.answers
    assert record.statistics.reward + record.statistics.truncated == record.statistics.answers
    assert len(plain.pool.items) == record.statistics.reward


@pytest.mark.parametrize("right", [1, 3])
def test_a_buffer_that_is_not_full_trains_on_what_is_there(plain, right):
    plain.pool.pool = JudgedPool(
        lambda number, *_: "correct" if number % (2 * K) == 0 and number < 2 * K * right else "incorrect"
    )
    before = plain.weights
    (record,) = plain.take()
    assert record.statistics.reward == right
    assert 1 <= record.trained == record.statistics.kept <= right
    assert record.rounds == ROUNDS
    assert record.totals.answers == record.trained * K
    assert record.applied.taken == 1
    assert moved(before, on_host(plain.state.weights))


def test_of_two_updates_the_empty_one_is_skipped(programs):
    program = programs("rft")
    program.pool.pool = JudgedPool(lambda number, *_: "correct" if number == 0 else "incorrect")
    (record,) = program.take()
    assert record.trained == 1
    np.testing.assert_array_equal(record.totals.answers, [K, 0])
    np.testing.assert_array_equal(record.applied.taken, [1, 0])
    assert moved(program.weights, on_host(program.state.weights))
    leaves = jax.tree_util.tree_leaves_with_path(program.state.optimizer_state)
    counts = [int(leaf) for path, leaf in leaves if jax.tree_util.keystr(path).endswith(".count")]
    assert counts
    assert set(counts) == {1}


def test_losses_of_all_groups_need_one_round(programs, all_wrong):
    program = programs("grpo")
    program.pool.pool = all_wrong
    (record,) = program.take()
    assert (record.rounds, record.trained, record.statistics.kept, record.wasted) == (1, Q, Q, 0)
    assert record.totals.answers == Q * K


def select_by_hand(program: Program, record, carried):
    """The step's choice of groups again, from the groups it rolled, as lists: (buffer, carried, wasted)."""
    Q, config = program.config.prompts_per_step, program.config.selection
    rounds = sorted(program.step.rounds, key=lambda seen: int(seen[0]))[-int(record.rounds) :]
    pool = list(carried)
    for _, groups in rounds:
        rows = [jax.tree.map(lambda x, q=q: x[q], groups) for q in range(config.candidates_per_round)]
        pool += [row for row in rows if config.low < row.rate_Q < config.high]
    surplus = pool[Q:]
    capacity = program.config.carry_capacity
    return pool[:Q], surplus[:capacity], len(surplus[capacity:])


def test_surplus_groups_are_carried_one_step_and_used_first(programs):
    program, carried, seen = programs("dapo"), [], []
    program.step.buffers.clear()
    # Right answers are spread evenly: most groups are mixed, more than are needed.
    program.pool.pool = JudgedPool(lambda number, *_: "correct" if number % 3 == 0 or number % 5 == 0 else "incorrect")
    for _ in range(6):
        age = len(program.step.rounds)
        (record,) = program.take()
        buffer, trained = program.step.buffers[-1]
        expected, next_carried, wasted = select_by_hand(program, record, carried)
        assert record.from_carry == len(carried)
        assert record.trained == trained == len(expected)
        for place, group in enumerate(expected):
            assert_same(jax.tree.map(lambda x, place=place: x[place], buffer), group)
        groups, many = on_host(program.state.carried)
        assert many == len(next_carried)
        for place, group in enumerate(next_carried):
            assert_same(jax.tree.map(lambda x, place=place: x[place], groups), group)
        assert record.wasted == wasted
        # All that is carried was rolled in this very step.
        assert len(program.step.rounds) - age == record.rounds > 0
        # Rates in quarters fall into the bins 0, 2, 5, 8, 10; the band leaves out both its ends.
        assert (
            record.statistics.kept == record.statistics.rates[2] + record.statistics.rates[5] < record.statistics.groups
        )
        carried = next_carried
        seen.append((record.from_carry, wasted, record.statistics.rates[8]))
    assert np.any(seen, axis=0).all()  # groups carried, groups lost, and groups at the band's upper end


@pytest.mark.parametrize("name", ["dapo", "grpo"])
def test_the_whole_state_survives_a_checkpoint(programs, tmp_path, name):
    program = programs(name)
    program.take(2)
    # One has groups to carry, the other a reference that it must not lose.
    assert program.state.reference is not None or int(program.state.carried[1]) > 0
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(2, program.state, {})
        # The next step reuses the memory of what is being saved.
        records = program.take(2)
        straight = on_host(program.state)
        checkpoints.wait()
        program.start(jax.tree.map(np.zeros_like, program.weights))
        step, program.state = checkpoints.restore(program.state, lambda run: None)
    assert step == 2
    again = program.take(2)
    assert_same(straight, on_host(program.state))
    untimed = [record._replace(statistics=record.statistics._replace(seconds=0)) for record in records + again]
    assert_same(untimed[:2], untimed[2:])


def test_no_request_number_and_no_prompt_of_an_epoch_comes_twice(programs, all_wrong):
    program = programs("dapo")
    program.step.engine.requests.clear()
    program.step.rounds.clear()
    program.take(2)
    program.pool.pool = all_wrong
    program.take()
    requests, cursor = program.step.engine.requests, int(program.state.cursor)
    assert len(requests) == cursor / (2 * Q) > 3
    numbers = np.sort(np.concatenate([number_QK.ravel() for number_QK in requests]))
    np.testing.assert_array_equal(numbers, np.arange(cursor * K))
    prompt = np.concatenate([groups.prompt_Q for _, groups in program.step.rounds])
    assert len(set(prompt.tolist())) == len(prompt) == cursor <= len(program.table.answers)
    order = prompt_order(stream(program.config.seed, "order"), len(program.table.answers), jnp.int32(0), cursor)
    assert set(prompt.tolist()) == set(order.tolist())


def test_no_noise_is_used_twice_in_steps_and_rounds(plain, all_wrong):
    # Under these weights every token is equally likely whatever the prompt: the answers are the noise, and stay so.
    plain.start(jax.tree.map(np.zeros_like, plain.weights))
    plain.pool.pool = all_wrong
    groups = [record.last for record in plain.take(3)]
    answers = np.concatenate([group.token_QKT.reshape(Q * K, -1) for group in groups])
    length = np.concatenate([group.length_QK.ravel() for group in groups])
    long = [tuple(row) for row in answers[length > 8].tolist()]
    assert len(set(long)) == len(long) > Q


@pytest.mark.parametrize("carry", [False, True])
def test_beginning_with_the_next_round_changes_time_and_nothing_else(folder, carry):
    """With a few slots, of which the long answers of a round hold some while the next round begins in the others."""
    changes = {"rollout__slots": 6, "selection__carry": carry, "verify__grader": grader("coin")}
    records, states = {}, {}
    for ahead in ("no", "drop", "finish"):
        program = Program(small(selection__ahead=ahead, **changes), folder)
        records[ahead] = [
            record._replace(statistics=record.statistics._replace(seconds=0)) for record in program.take(3)
        ]
        states[ahead] = on_host(program.state)
        program.close()
    assert any(record.rounds > 1 for record in records["no"])
    # Two programs, so that rounding differs.
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
    jax.tree.map(close, states["no"].weights, states["drop"].weights)
    for plain, early in zip(records["no"], records["drop"], strict=True):
        assert_same(*(record.statistics._replace(capacity=0) for record in (plain, early)))
        assert_same(*(record.last._replace(logp_QKT=0) for record in (plain, early)))
        for name in ("rounds", "trained", "from_carry", "wasted"):
            assert_same(getattr(plain, name), getattr(early, name))
    # What is begun and needed has been begun earlier.
    capacity = {ahead: [record.statistics.capacity for record in records[ahead]] for ahead in records}
    assert sum(capacity["drop"]) < sum(capacity["no"])
    # What is begun is finished: a round more than is needed, but where there is no more to begin.
    first, needed = records["finish"][0], records["no"][0]
    assert first.rounds == min(needed.rounds + 1, ROUNDS)
    assert_same(first.totals, needed.totals)
    assert first.statistics.answers == first.rounds * Q * K
    lost = first.wasted + (states["finish"].carried[1] if carry else 0)
    assert lost >= needed.wasted


# Where the old log-probs come from.


def test_strictly_on_policy_the_ratio_is_one_whatever_the_sampler_says(programs):
    program = programs("dr_grpo")
    for record in program.take(3):
        statistics, tokens = record.applied.statistics, record.totals.tokens
        assert statistics.ratio == tokens > 0
        # The maximum runs over all places of a row, those outside answers too, where the ratio is not above 1.
        assert statistics.ratio_max == 1
        assert statistics.gap / tokens == pytest.approx(1, abs=1e-4)


def test_by_default_the_sampler_is_believed(plain):
    (record,) = plain.take()
    statistics, tokens = record.applied.statistics, record.totals.tokens
    assert 0 < statistics.gap_max < 1e-4
    assert abs(statistics.ratio / tokens - 1) < 1e-4
    assert statistics.ratio_max != 1  # two programs' rounding: were it 1, the test above could not fail


def test_recomputed_log_probs_are_the_trainers_own(programs):
    program = programs("rft")
    (record,) = program.take()
    statistics, tokens = record.applied.statistics, record.totals.tokens
    assert statistics.ratio[0] / tokens[0] == pytest.approx(1, abs=1e-5)
    assert statistics.ratio_max[0] == pytest.approx(1, abs=1e-4)
    assert statistics.gap[0] / tokens[0] == pytest.approx(1, abs=1e-4)
    # The second update's weights are no longer those of the recomputation.
    assert abs(statistics.ratio_max[1] - 1) > 1e-3


# Losses.


@pytest.mark.parametrize("name", ["plain", "rft", "grpo", "dr_grpo", "dapo", "dpo", "contrast", "own"])
def test_each_loss_takes_its_updates_and_moves_the_weights(programs, name):
    program = programs(name)
    (record,) = program.take()
    metrics = step_metrics(record)
    assert metrics["updates_taken"] == program.config.updates_per_step
    assert metrics["updates_nonfinite"] == 0
    assert np.isfinite(metrics["loss"])
    assert metrics["gradient_norm"] > 0
    assert metrics["entropy"] > 0
    assert moved(program.weights, on_host(program.state.weights))
    pairs = record.totals.pairs
    assert (pairs > 0).all() if program.experiment.loss.unit == "pair" else not pairs.any()


def test_the_kl_term_measures_against_weights_that_stay(programs, all_wrong):
    program = programs("grpo")
    first, second, third = (record.applied.statistics for record in program.take(3))
    assert 0 <= first.kl < 1e-6 < second.kl < third.kl
    assert_same(program.weights, on_host(program.state.reference))
    # Where no answer has an advantage the penalty is all there is: its weight times a mean over tokens, of answers.
    program.pool.pool = all_wrong
    (record,) = program.take()
    penalty = program.config.loss.kl_weight * record.applied.statistics.kl / record.totals.tokens
    # A mean over sequences weighs a token by the mean length over its answer's: between 1/limit and limit.
    limit = program.config.rollout.max_answer_tokens
    assert penalty / limit < record.applied.statistics.objective < penalty * limit
    assert record.applied.gradient_norm > 0


# A verifier that misbehaves.


def test_a_hostile_verifier_costs_its_own_answers_only(plain):
    with Pool(grader("hostile"), item_seconds=1.0) as hostile:
        plain.pool.pool = hostile
        (record,) = plain.take()
        asked = [response for response, _ in plain.pool.items]
        count = dict(zip(STATUSES, record.statistics.verdicts.astype(int).tolist(), strict=True))
        assert hostile.replacements > 0
    graders = importlib.import_module(GRADERS_MODULE)
    deeds = [graders.draw(response, graders.DEEDS) for response in asked]
    hangs, failures = (sum(deed in kind for deed in deeds) for kind in (graders.HANGS, graders.FAILS))
    assert hangs > 0
    assert failures > 0
    # A slow machine may time out more than what hangs.
    assert count["timeout"] >= hangs
    assert 0 < count["error"] <= failures
    assert count["timeout"] + count["error"] >= hangs + failures
    assert count["correct"] > 0
    assert sum(count.values()) == record.statistics.answers
    assert record.statistics.reward == count["correct"]
    plain.pool.pool = plain.pool.own
    (record,) = plain.take()
    assert record.statistics.verdicts[[STATUSES.index("timeout"), STATUSES.index("error")]].sum() == 0
    assert record.trained == Q


# Sizes that do not divide.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts_per_step": 6}, ["6 candidate prompts a round are not divisible by 4 data shards", "use 4 or 8"]),
        (
            {"selection__candidates_per_round": 2},
            ["2 candidate prompts a round are not divisible by 4 data shards; use 4"],
        ),
        (
            {"prompts_per_step": 4, "answers_per_prompt": 1, "loss__name": "grpo"},
            ["4 prompts × 1 answers = 4 answers are not divisible by 8 devices"],
        ),
        (
            {"prompts_per_step": 4, "answers_per_prompt": 3, "updates_per_step": 2, "loss__name": "dpo"},
            ["2 prompts × 1 pairs = 2 units are not divisible by 4 data shards", "updates_per_step=2"],
        ),
        ({"model__kv_heads": 1}, ["1 key-value heads are not divisible by mesh.tensor=2"]),
        (
            {"mesh__sequence_parallel": True, "packing__row_tokens": 31, "data__max_prompt_tokens": 15},
            [
                "config.packing.row_tokens=31 tokens over mesh.tensor=2",
                "use 32",
                "config.data.max_prompt_tokens=15",
                "use 16",
            ],
        ),
    ],
)
def test_sizes_that_do_not_divide_are_said_with_sizes_that_do(changes, words):
    config = small(**changes)
    with pytest.raises(ValueError, match="does not divide over the mesh") as raised:
        check_sizes(config, losses.resolve(config.loss.name, config.loss.options), make_mesh(4, 2))
    assert all(word in str(raised.value) for word in words), raised.value
