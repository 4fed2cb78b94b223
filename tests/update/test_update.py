"""One update: its gradient is the definition's however it is laid out, and an update of nothing changes nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import (
    MODEL,
    assert_close,
    eight_devices,
    lively_weights,
    one_device,
    random_groups,
    random_prompts,
    small_config,
    training_step,
)
from helpers.update_twin import Reference
from nft_jax.config import LossConfig, OptimizerConfig, PackingConfig
from nft_jax.losses import LOSSES
from nft_jax.update.packing import replace_values

Q, K = 8, 4
WEIGHTS = lively_weights(MODEL)
PROMPTS = random_prompts(0, 64)


def sampled_groups(seed, Q, K):
    """Groups whose sampler was near the policy: log R of about 0.3."""
    groups = random_groups(seed, Q, K)
    exact = Reference(WEIGHTS, groups, Q, PROMPTS)
    noise = 0.3 * np.random.default_rng(seed).normal(size=groups.logp_QKT.shape)
    logp_QKT = exact.of_answers(exact.logp_BS)
    return groups._replace(logp_QKT=np.where(logp_QKT == 0, 0, logp_QKT + noise).astype(np.float32))


@pytest.fixture(scope="module")
def groups():
    return sampled_groups(1, Q, K)


def gradient_program(config, mesh, *, recompute=False):
    """Deals, packs and differentiates one update: `(weights, groups, count, reference, first)`."""
    step = training_step(config, mesh)

    @jax.jit
    def program(weights, groups, count, reference, first):
        packed, totals = step.pack(groups, count, jax.tree.map(jnp.asarray, PROMPTS), jnp.int32(0))
        packed, totals = jax.tree.map(lambda x: x[0], (packed, totals))
        if recompute:
            packed = replace_values(packed, old_logp_BT=step.updater.logp(weights, packed))
        gradient, statistics = step.updater.gradient(weights, packed, totals, reference, first)
        return gradient, statistics, totals, packed

    def run(groups, count=None, *, weights=WEIGHTS, reference=None, first=False):
        count = np.int32(len(groups.rate_Q) if count is None else count)
        return jax.device_get(program(weights, groups, count, reference, first))

    return run


@pytest.fixture(scope="module")
def nft():
    """Rows of 30 tokens, two of them to a micro-batch, one device."""
    return gradient_program(small_config(), one_device())


@pytest.fixture(scope="module")
def straight(nft, groups):
    return nft(groups)


def test_updater_minibatch_has_groups_of_all_kinds(straight):
    """Several micro-batches, several answers to a row, ratios on both sides of 1."""
    _, statistics, totals, packed = straight
    assert packed.used[0] > 4
    assert packed.rows.tokens.segment_BT.max() >= 3
    assert totals.answers == Q * K
    assert statistics.ratio_max > 1.5


@pytest.mark.parametrize("name", ["nft", "grpo", "dapo", "dpo"])
def test_updater_gradient_is_that_of_the_definition_under_every_normalizer(name, nft, groups):
    """Their own normalizers are: constant, sequence_mean, token_mean, pair_mean."""
    loss = LOSSES[name].traits
    if loss.unit == "pair":
        groups = sampled_groups(2, 2 * Q, 2)
    exact = Reference(WEIGHTS, groups, len(groups.rate_Q), PROMPTS)
    value, cotangent_BS, _ = exact.objective(name, loss.normalizer, groups.logp_QKT)
    sizes = {"prompts_per_step": len(groups.rate_Q), "answers_per_prompt": exact.K}
    program = nft if name == "nft" else gradient_program(small_config(name, **sizes), one_device())
    gradient, statistics, _, packed = program(groups)
    assert packed.used[0] > 4
    assert_close(gradient, exact.gradient(cotangent_BS), 1e-5)
    np.testing.assert_allclose(statistics.objective, value, rtol=1e-4, atol=1e-6)


def test_updater_is_tested_with_all_normalizers():
    assert len({LOSSES[name].traits.normalizer for name in ("nft", "grpo", "dapo", "dpo")}) == 4


def test_update_statistics_are_sums_and_maxima_over_answer_tokens(straight, groups):
    _, statistics, totals, _ = straight
    exact = Reference(WEIGHTS, groups, Q, PROMPTS)
    _, _, batch = exact.objective("nft", "constant", groups.logp_QKT)
    inside_BS = exact.answer_BS
    gap = np.abs(exact.logp_BS - batch.old_logp_BT)[inside_BS]
    ratio = np.exp(exact.logp_BS - batch.old_logp_BT)[inside_BS]
    incorrect, rate = batch.reward_BT[inside_BS] == 0, batch.rate_BT[inside_BS]
    assert totals.tokens == inside_BS.sum()
    for name, expected in (
        ("gap", gap.sum()),
        ("gap_max", gap.max()),
        ("ratio", ratio.sum()),
        ("ratio_max", ratio.max()),
        ("clamped", np.sum(incorrect & ((1 - rate * ratio) / (1 - rate) < 1))),
        ("rate_clamped", 0),
        ("log_ratio_clamped", 0),
        ("kl", 0),
    ):
        np.testing.assert_allclose(getattr(statistics, name), expected, rtol=1e-4, err_msg=name)
    assert 0.1 < statistics.entropy / totals.tokens < np.log(21)


LAYOUTS = {
    "one answer a row": (PackingConfig(0, rows_per_micro_batch=8, logp_chunk_tokens=8), one_device),
    "everything in one row": (PackingConfig(400, rows_per_micro_batch=1), one_device),
    "prompts in rows": (PackingConfig(30, share_prompts="no", rows_per_micro_batch=2, logp_chunk_tokens=8), one_device),
    "prompts in rows, eight devices": (PackingConfig(12, share_prompts="no", rows_per_micro_batch=1), eight_devices),
    "eight devices": (PackingConfig(30, rows_per_micro_batch=1, logp_chunk_tokens=8), eight_devices),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_updater_gradient_does_not_depend_on_the_layout(name, straight, groups):
    packing, mesh = LAYOUTS[name]
    gradient, statistics, totals, _ = gradient_program(small_config(packing=packing), mesh())(groups)
    assert_close(gradient, straight[0], 1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), statistics, straight[1])
    assert totals == straight[2]


def test_updater_gradient_does_not_depend_on_the_order(nft, straight, groups):
    """Of the groups, and of the answers within a group."""
    random = np.random.default_rng(0)
    order = random.permutation(Q)
    mixed = jax.tree.map(lambda x: x[order], groups)
    inner_QK = np.array([random.permutation(K) for _ in range(Q)])

    def shuffled(x):
        return np.take_along_axis(x, inner_QK.reshape(Q, K, *[1] * (x.ndim - 2)), axis=1) if x.ndim > 1 else x

    found = nft(jax.tree.map(shuffled, mixed))
    assert not np.array_equal(found[3].rows.tokens.token_BT, straight[3].rows.tokens.token_BT)
    assert_close(found[0], straight[0], 1e-5)


def test_updater_gradient_ignores_absent_groups(nft, groups):
    count = 5
    clean = nft(groups, count)
    exact = Reference(WEIGHTS, groups, count, PROMPTS)
    _, cotangent_BS, _ = exact.objective("nft", "constant", groups.logp_QKT[:count])
    assert_close(clean[0], exact.gradient(cotangent_BS), 1e-5)

    def spoil(x):
        x = x.copy()
        x[count:] = np.nan if np.issubdtype(x.dtype, np.floating) else 1
        return x

    spoiled = nft(jax.tree.map(spoil, groups), count)
    jax.tree.map(np.testing.assert_array_equal, spoiled, clean)


def test_updater_logp_makes_the_update_on_policy(straight, groups):
    program = gradient_program(small_config(), one_device(), recompute=True)
    gradient, statistics, totals, packed = program(groups)
    np.testing.assert_allclose(statistics.ratio_max, 1, atol=1e-5)
    np.testing.assert_allclose(statistics.ratio, totals.tokens, rtol=1e-5)
    # The gap is still the sampler's.
    np.testing.assert_allclose(statistics.gap, straight[1].gap, rtol=1e-5)
    exact = Reference(WEIGHTS, groups, Q, PROMPTS)
    _, cotangent_BS, _ = exact.objective("nft", "constant", exact.of_answers(exact.logp_BS))
    assert_close(gradient, exact.gradient(cotangent_BS), 1e-5)
    # Prompts and padding have no old log-prob.
    assert not packed.rows.batch.old_logp_BT[packed.rows.batch.answer_BT < 0].any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_updater_with_current_log_probs_has_ratios_of_exactly_one(dtype, groups):
    model = dataclasses.replace(MODEL, dtype=dtype)
    program = gradient_program(small_config(old_logp="current", model=model), one_device())
    _, statistics, totals, _ = program(groups, first=True)
    assert statistics.ratio_max == 1
    assert statistics.ratio == totals.tokens
    assert statistics.gap_max > 0.1
    # Later updates of the same rollout are off-policy: they count from the sampler.
    _, statistics, _, _ = program(groups, first=False)
    assert statistics.ratio_max > 1.5


def test_updater_adds_the_gradient_of_the_kl_term(nft, groups):
    kl_weight, frozen = 0.7, lively_weights(MODEL, seed=1)
    config = small_config(loss=LossConfig(name="nft", kl_weight=kl_weight))
    gradient, statistics, _, _ = gradient_program(config, one_device())(groups, reference=frozen)
    exact = Reference(WEIGHTS, groups, Q, PROMPTS)
    value, cotangent_BS, _ = exact.objective("nft", "constant", groups.logp_QKT)
    difference_BS = np.where(exact.answer_BS, exact.logp_under(frozen) - exact.logp_BS, 0)
    assert difference_BS.max() < 10  # below the bound, where the formula is the plain one
    weight_BS = exact.token_weight("constant")
    kl_BS = np.exp(difference_BS) - difference_BS - 1
    np.testing.assert_allclose(statistics.kl, kl_BS.sum(), rtol=1e-3)
    np.testing.assert_allclose(statistics.objective, value + kl_weight * np.sum(kl_BS * weight_BS), rtol=1e-3)
    added_BS = kl_weight * weight_BS * (1 - np.exp(difference_BS))
    assert_close(gradient, exact.gradient((cotangent_BS + added_BS).astype(np.float32)), 1e-5)


BUFFER, UPDATES = 64, 2


@pytest.fixture(scope="module")
def buffer():
    return sampled_groups(3, BUFFER, K)


@pytest.fixture(scope="module")
def updates():
    """Two updates on a buffer of 64 groups, and the optimizer state that they start from."""
    config = small_config(
        prompts_per_step=BUFFER,
        updates_per_step=UPDATES,
        old_logp="current",
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="cosine", warmup_updates=1, weight_decay=0.1),
    )
    step = training_step(config, one_device())

    @jax.jit
    def program(weights, optimizer_state, groups, count):
        packed, totals = step.pack(groups, count, jax.tree.map(jnp.asarray, PROMPTS), jnp.int32(0))
        state = _State(weights, optimizer_state)
        return (*step.update(state, packed, totals), totals)

    # Moments that aren't zero, as in the middle of a run: with them even a zero gradient moves weights.
    start = jax.tree.map(lambda x: x + (0.01 if x.ndim else 3), jax.device_get(step.updater.optimizer.init(WEIGHTS)))
    start = jax.tree.map(lambda x, like: np.asarray(x, like.dtype), start, step.updater.optimizer.init(WEIGHTS))

    def run(groups, count):
        return jax.device_get(program(WEIGHTS, start, groups, np.int32(count)))

    return run, start


class _State:
    """As much of a `State` as the updates read."""

    def __init__(self, weights, optimizer_state):
        self.weights, self.optimizer_state, self.reference, self.frozen = weights, optimizer_state, None, None


def counts(optimizer_state):
    """Adam's count and the schedule's."""
    return [int(x) for x in jax.tree.leaves(optimizer_state) if x.ndim == 0]


@pytest.mark.parametrize("count", [0, 1, 37, 64])
def test_updater_with_buffers_that_are_not_full(count, updates, buffer):
    run, start = updates
    weights, optimizer_state, applied, totals = run(buffer, count)
    groups_by_update = [(count + 1) // 2, count // 2]
    np.testing.assert_array_equal(totals.answers, [K * n for n in groups_by_update])
    np.testing.assert_array_equal(applied.taken, [float(n > 0) for n in groups_by_update])
    assert not applied.nonfinite.any()
    assert counts(optimizer_state) == [n + sum(map(bool, groups_by_update)) for n in counts(start)]
    # Update 0 has every other group, and divides by their answers alone.
    mine = jax.tree.map(lambda x: x[:count:UPDATES], buffer)
    if count:
        exact = Reference(WEIGHTS, mine, groups_by_update[0], PROMPTS)
        value, cotangent_BS, _ = exact.objective("nft", "constant", exact.of_answers(exact.logp_BS))
        norm = np.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(exact.gradient(cotangent_BS))))
        np.testing.assert_allclose(applied.gradient_norm[0], norm, rtol=1e-5)
        np.testing.assert_allclose(applied.statistics.objective[0], value, rtol=1e-4, atol=1e-6)
        assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(weights), jax.tree.leaves(WEIGHTS), strict=True))
        # The first update is on-policy, the second no more.
        assert applied.statistics.ratio[0] == totals.tokens[0]
        assert applied.statistics.ratio_max[0] == 1
        assert groups_by_update[1] == 0 or applied.statistics.ratio_max[1] > 1.5
    else:
        jax.tree.map(np.testing.assert_array_equal, (weights, optimizer_state), (WEIGHTS, start))
        assert not any(np.any(x) for x in jax.tree.leaves(applied))


def test_updater_skips_and_counts_a_gradient_that_is_not_finite(updates, buffer):
    run, start = updates
    rate_Q = buffer.rate_Q.copy()
    rate_Q[6] = np.nan  # a group of update 0
    weights, optimizer_state, applied, _ = run(buffer._replace(rate_Q=rate_Q), BUFFER)
    np.testing.assert_array_equal(applied.nonfinite, [1, 0])
    np.testing.assert_array_equal(applied.taken, [0, 1])
    assert counts(optimizer_state) == [n + 1 for n in counts(start)]
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((weights, optimizer_state)))

    weights, optimizer_state, applied, _ = run(buffer._replace(rate_Q=np.full_like(rate_Q, np.nan)), BUFFER)
    np.testing.assert_array_equal(applied.nonfinite, [1, 1])
    jax.tree.map(np.testing.assert_array_equal, (weights, optimizer_state), (WEIGHTS, start))
