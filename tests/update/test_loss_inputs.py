"""What the update gives to a loss that asks for more, however the minibatch is cut into micro-batches and shards."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import (
    ANSWER_LIMIT,
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
from nft_jax.config import LossConfig, PackingConfig
from nft_jax.state import State

Q, K = 8, 4
WEIGHTS = lively_weights(MODEL)
PROMPTS = random_prompts(0, Q)


@pytest.fixture(scope="module")
def groups():
    drawn = random_groups(3, Q, K)
    noise = np.random.default_rng(4).uniform(-3, -1, drawn.logp_QKT.shape).astype(np.float32)
    inside_QKT = np.arange(ANSWER_LIMIT) < drawn.length_QK[..., None]
    graded_QK = np.random.default_rng(5).random((Q, K), np.float32)
    return drawn._replace(logp_QKT=np.where(inside_QKT, noise, 0.0).astype(np.float32), graded_QK=graded_QK)


def reward_ids(token_QKT, length_QK):
    """A reward of a token that its id decides."""
    del length_QK
    return (token_QKT % 5).astype(jnp.float32) / 10


@pytest.fixture(scope="module")
def exact(groups):
    return Reference(WEIGHTS, groups, Q, PROMPTS)


def take(name, groups, mesh=None, key=None, **packing):
    """The gradient, the statistics and the recounted totals of one update."""
    rows = {"row_tokens": 30, "rows_per_micro_batch": 2, "logp_chunk_tokens": 8} | packing
    loss = LossConfig(name=f"helpers.probe_losses:{name}")
    step = training_step(small_config(loss=loss, packing=PackingConfig(**rows)), mesh or one_device())
    step = dataclasses.replace(step, token_reward=reward_ids)

    @jax.jit
    def program(weights, groups, key):
        packed, totals = step.pack(groups, jnp.int32(Q), jax.tree.map(jnp.asarray, PROMPTS), jnp.int32(0))
        packed, totals = jax.tree.map(lambda x: x[0], (packed, totals))
        _, left = step.updater.prepare(weights, packed, totals, False, key)
        return *step.updater.gradient(weights, packed, totals, None, False, key), left

    return jax.device_get(program(WEIGHTS, groups, jax.random.key(7) if key is None else key))


@pytest.fixture(scope="module")
def everything(groups):
    return take("everything", groups)


def test_optional_fields_are_those_of_the_groups(everything, groups, exact):
    """Each metric is Σ field · log-prob over the tokens."""
    _, statistics, _ = everything
    logp_QKT = exact.of_answers(exact.logp_BS)
    shape = logp_QKT.shape
    graded_QK1, reward_QKT = groups.graded_QK[..., None], np.asarray(reward_ids(groups.token_QKT, None))
    inside_QKT = np.arange(ANSWER_LIMIT) < groups.length_QK[..., None]
    return_QKT = np.stack([(reward_QKT * inside_QKT)[..., t:].sum(axis=-1) for t in range(ANSWER_LIMIT)], axis=-1)
    truncated_QK = groups.truncated_QK.astype(np.float32)
    assert 0 < truncated_QK.sum() < truncated_QK.size
    expected = {
        "sampler_logp": groups.logp_QKT,
        "truncated": np.broadcast_to(truncated_QK[..., None], shape),
        "length": np.broadcast_to(groups.length_QK[..., None], shape),
        "graded": np.broadcast_to(graded_QK1, shape),
        "token_reward": reward_QKT,
        "advantage": graded_QK1 - graded_QK1.mean(axis=1, keepdims=True) + return_QKT,
        "complete": np.broadcast_to(~groups.truncated_QK.any(axis=1)[:, None, None], shape),
    }
    for name, field_QKT in expected.items():
        np.testing.assert_allclose(statistics.own[name], np.sum(field_QKT * logp_QKT), rtol=1e-4, err_msg=name)
    assert statistics.own["entropy"] < 0
    assert 0.3 < statistics.own["draw"] / np.sum(logp_QKT) < 0.7


@pytest.mark.parametrize(
    ("mesh", "packing"),
    [
        ("one", {"rows_per_micro_batch": 4}),
        ("one", {"row_tokens": 18}),
        ("one", {"share_prompts": "no"}),
        ("eight", {}),
    ],
)
def test_optional_fields_do_not_depend_on_micro_batches_and_shards(mesh, packing, everything, groups):
    devices = one_device() if mesh == "one" else eight_devices()
    gradient, statistics, _ = take("everything", groups, devices, **packing)
    assert_close(gradient, everything[0], 1e-5)
    for name, value in everything[1].own.items():
        np.testing.assert_allclose(statistics.own[name], value, rtol=1e-4, err_msg=name)


def test_keys_differ_from_update_to_update(everything, groups):
    _, statistics, _ = take("everything", groups, key=jax.random.key(8))
    assert abs(statistics.own["draw"] - everything[1].own["draw"]) > 1e-3
    np.testing.assert_allclose(statistics.own["entropy"], everything[1].own["entropy"], rtol=1e-5)


@pytest.mark.parametrize("mesh", ["one", "eight"])
def test_prepare_sees_the_whole_minibatch(mesh, groups, exact):
    gradient, _, totals = take("centered_likelihood", groups, one_device() if mesh == "one" else eight_devices())
    inside_BS = exact.answer_BS
    centered_BS = np.where(inside_BS, exact.logp_BS - exact.logp_BS[inside_BS].mean(), 0) / inside_BS.sum()
    assert_close(gradient, exact.gradient(centered_BS.astype(np.float32)), 1e-5)
    assert totals.tokens == inside_BS.sum()


@pytest.mark.parametrize("mesh", ["one", "eight"])
def test_prepare_rejects_before_the_denominators_are_counted(mesh, groups, exact):
    gradient, _, totals = take("complete_likelihood", groups, one_device() if mesh == "one" else eight_devices())
    keep_B1 = ~groups.truncated_QK.reshape(-1, 1)
    kept = keep_B1.sum()
    weight_BS = exact.answer_BS * keep_B1 / (kept * exact.length_B[:, None])
    assert_close(gradient, exact.gradient(-weight_BS.astype(np.float32)), 1e-5)
    assert totals.answers == kept < Q * K
    assert totals.tokens == (exact.answer_BS & keep_B1).sum()


def test_step_updates_with_additions_keys_and_a_choice_over_the_whole_minibatch(groups):
    """Clip-Cov's draw, TIS, truncation masking and an entropy bonus, in two updates after a second forward pass."""
    loss = LossConfig(
        name="clip_cov",
        options={"share": 0.2, "covariance_low": 0.0, "covariance_high": 9.0},
        correction="tis",
        mask_truncated=True,
        entropy_weight=0.01,
    )
    config = small_config(loss=loss, updates_per_step=2, old_logp="recompute")
    step = training_step(config, one_device())

    @jax.jit
    def program(weights, groups, number):
        packed, totals = step.pack(groups, jnp.int32(Q), jax.tree.map(jnp.asarray, PROMPTS), number)
        state = State(weights, step.updater.optimizer.init(weights), number, jnp.int32(0), None, None)
        return step.update(state, packed, totals), totals

    (first, totals), (other, _) = (jax.device_get(program(WEIGHTS, groups, jnp.int32(n))) for n in (0, 1))
    applied = first.applied
    assert applied.taken.tolist() == [1, 1]
    # Group i goes to update i mod 2.
    truncated_tokens_Q = (groups.length_QK * groups.truncated_QK).sum(axis=1)
    np.testing.assert_array_equal(applied.rejected, truncated_tokens_Q.reshape(-1, 2).sum(axis=0))
    assert applied.rejected.any()
    left = totals.tokens - applied.rejected
    assert applied.statistics.own.keys() == {"chosen", "correction"}
    assert (applied.statistics.own["chosen"] <= 0.2 * left + 1).all()
    assert applied.statistics.own["chosen"].sum() > 0
    # Another step draws other tokens.
    changed = jax.tree.map(lambda one, two: np.abs(one - two).max(), first.weights, other.weights)
    assert max(jax.tree.leaves(changed)) > 0
