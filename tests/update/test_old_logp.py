"""Recomputed log π_old: that of a forward pass before the updates, but the first update takes its own."""

import dataclasses
import math

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import (
    MODEL,
    assert_close,
    lively_weights,
    one_device,
    random_groups,
    random_prompts,
    small_config,
    training_step,
)
from nft_jax.config import LossConfig, OptimizerConfig
from nft_jax.machine.speed import extra_passes
from nft_jax.parallel.mesh import make_mesh
from nft_jax.state import State
from nft_jax.update.minibatches import find_recomputed
from nft_jax.update.packing import replace_values

Q, K, UPDATES = 8, 4, 4
WEIGHTS, PROMPTS = lively_weights(MODEL), random_prompts(0, Q)
LOSSES = {
    "nft": LossConfig(name="nft", kl_weight=0.1),
    "corrected": LossConfig(name="nft", correction="tis", correction_high=1.1),
    "corrected answers": LossConfig(name="grpo", correction="mis", correction_low=1e-3, correction_high=1e3),
    "prepared": LossConfig(name="kl_cov", options={"share": 0.2}),
    "whitened": LossConfig(name="reinforce_plus_plus"),
}


# Its steps are proportional to the gradient, not to its sign.
OPTIMIZER = OptimizerConfig(learning_rate=3.0, epsilon=1.0, warmup_updates=0, weight_decay=0.0)


@pytest.fixture(scope="module")
def groups():
    drawn = random_groups(3, Q, K)
    noise = np.random.default_rng(4).normal(-2, 0.3, drawn.logp_QKT.shape).astype(np.float32)
    return drawn._replace(logp_QKT=np.where(drawn.token_QKT > 0, noise, 0).astype(np.float32))


def make_config(loss=LOSSES["nft"], **changes):
    values = {"updates_per_step": UPDATES, "old_logp": "recompute", "loss": loss}
    return small_config(optimizer=OPTIMIZER, **values | changes)


def packed_step(config, mesh, groups):
    """The step's training half, and the packed minibatches of the groups with their counts."""
    step = training_step(config, mesh)
    return step, *step.pack(groups, jnp.int32(Q), jax.tree.map(jnp.asarray, PROMPTS), jnp.int32(0))


def make_updates(config, mesh, *, before=False):
    """All updates of a step, as a function; `before`: every log π_old comes from a forward pass before the updates."""

    def update(weights, groups):
        step, packed, totals = packed_step(config, mesh, groups)
        if before:
            old_OXBT = jax.lax.map(lambda minibatch: step.updater.logp(weights, minibatch), packed)
            packed = replace_values(packed, old_logp_BT=old_OXBT)
            # With the source "sampler", the updates take what the rows hold.
            step.updater.old_logp = "sampler"
            step = dataclasses.replace(step, config=make_config(old_logp="sampler"))
        reference = weights if config.loss.kl_weight else None
        state = State(weights, step.updater.optimizer.init(weights), jnp.int32(0), jnp.int32(0), None, reference)
        return step.update(state, packed, totals)

    return update


@pytest.mark.parametrize(
    ("name", "sizes"), [*((name, (1, 1, 1)) for name in LOSSES), ("nft", (2, 2, 2)), ("corrected answers", (2, 2, 2))]
)
def test_updates_are_those_after_a_forward_pass_over_all_minibatches(name, sizes, groups):
    """On meshes of these sizes of data, tensor and replica."""
    config, (data, tensor, replica) = make_config(LOSSES[name]), sizes
    mesh = make_mesh(data, tensor, jax.devices()[: data * tensor * replica], replica)
    found, expected = (
        jax.device_get(jax.jit(make_updates(config, mesh, before=before))(WEIGHTS, groups)) for before in (False, True)
    )
    assert found.applied.taken.tolist() == [1] * UPDATES
    change, wanted = (jax.tree.map(np.subtract, outcome.weights, WEIGHTS) for outcome in (found, expected))
    assert_close(change, wanted, 1e-3)
    for field in ("objective", "entropy", "gap", "gap_max", "ratio", "ratio_max", "kl"):
        measured, wanted = (getattr(outcome.applied.statistics, field) for outcome in (found, expected))
        np.testing.assert_allclose(measured, wanted, rtol=1e-4, atol=1e-5, err_msg=field)
    statistics = found.applied.statistics
    assert statistics.ratio_max[0] == 1
    assert (statistics.ratio_max[1:] > 1 + 1e-4).any()
    # The gap is the sampler's in all updates.
    assert (statistics.gap_max > 0.1).all()
    assert name != "corrected answers" or found.applied.rejected.any()


def test_update_after_a_skipped_one_has_the_log_probs_of_the_same_weights(groups):
    program = jax.jit(make_updates(make_config(LossConfig(name="nft")), one_device()))
    rate_Q = np.where(np.arange(Q) % UPDATES == 0, np.nan, groups.rate_Q)
    applied = jax.device_get(program(WEIGHTS, groups._replace(rate_Q=rate_Q.astype(np.float32)))).applied
    assert applied.nonfinite.tolist() == [1, 0, 0, 0]
    assert applied.statistics.ratio_max[1] == pytest.approx(1, abs=1e-5)
    assert applied.statistics.ratio_max[2] > 1 + 1e-3


def count_flops(function, *given) -> int:
    """The FLOPs of a function's matrix products; a `while` loop counts as one trip."""

    def count(jaxpr):
        flops = 0
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                shape = equation.invars[0].aval.shape
                flops += 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
            times = equation.params["length"] if equation.primitive.name == "scan" else 1
            flops += times * sum(map(count, jax.extend.core.jaxprs_in_params(equation.params)))
        return flops

    return count(jax.make_jaxpr(function)(*given).jaxpr)


@pytest.mark.parametrize("updates", [1, 2, UPDATES])
def test_first_minibatch_has_no_forward_pass_of_its_own(updates, groups):
    config = make_config(updates_per_step=updates)
    step, packed, _ = packed_step(config, one_device(), groups)
    forward = count_flops(step.updater.logp, WEIGHTS, jax.tree.map(lambda x: x[0], packed))
    found, least = (
        count_flops(make_updates(dataclasses.replace(config, old_logp=source), one_device()), WEIGHTS, groups)
        for source in ("recompute", "current")
    )
    assert 0 < forward < least / updates / 2
    assert found - least == (updates - 1) * forward


def test_minibatches_with_a_forward_pass_of_their_own():
    recompute = {
        name: list(find_recomputed(make_config(loss), make_config(loss).resolve_loss()))
        for name, loss in LOSSES.items()
    }
    # `prepare` reads log π_old before the update's forward pass, and brings one only for some losses.
    assert recompute["corrected answers"] == recompute["whitened"] == [0, 1, 2, 3]
    assert recompute["nft"] == recompute["corrected"] == recompute["prepared"] == [1, 2, 3]
    assert not find_recomputed(make_config(old_logp="current"), make_config().resolve_loss())


@pytest.mark.parametrize(
    ("loss", "changes", "passes"),
    [
        ("nft", {}, 1 + 3 / 4),
        ("nft", {"updates_per_step": 1}, 1),
        ("nft", {"old_logp": "sampler"}, 1),
        ("corrected", {}, 3 / 4),
        ("whitened", {}, 1),
        ("prepared", {}, 1 + 3 / 4),
    ],
)
def test_passes_beside_those_of_the_gradient_are_counted(loss, changes, passes):
    config = make_config(LOSSES[loss], **changes)
    assert extra_passes(config, config.resolve_loss()) == passes
