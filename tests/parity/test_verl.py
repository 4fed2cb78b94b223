"""Losses, advantages and KL estimates against verl's own functions: pip install --no-deps verl==0.9.1."""

import contextlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.verl_parity import CASES, compare_loss, draw, load_core_algos, our_advantages
from nft_jax.losses import KLS, resolve
from nft_jax.precision import in_float64

pytestmark = pytest.mark.parity
TOLERANCE = {"float64": 1e-12, "float32": 3e-5}


@pytest.fixture(scope="module")
def core(torch, peer_folder):
    """verl's `core_algos`, without the rest of verl."""
    return load_core_algos(peer_folder("verl"))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_verl(name, dtype, core, torch):
    value, gradient = compare_loss(core, torch, CASES[name], dtype)
    # verl adds 1e-8 to an answer's length before it divides by it.
    added = 1e-7 if resolve(CASES[name].name, {}).normalizer == "sequence_mean" else 0
    assert max(value, gradient) < TOLERANCE[dtype] + added


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("name", "peer", "options"),
    [
        ("rloo", "compute_rloo_outcome_advantage", {}),
        ("reinforce_plus_plus", "compute_reinforce_plus_plus_outcome_advantage", {"gamma": 1.0}),
        ("reinforce_plus_plus_baseline", "compute_reinforce_plus_plus_baseline_outcome_advantage", {}),
        ("grpo", "compute_grpo_outcome_advantage", {}),
        ("dr_grpo", "compute_grpo_outcome_advantage", {"norm_adv_by_std_in_grpo": False}),
    ],
)
def test_advantages_are_those_of_verl(name, peer, options, dtype, core, torch):
    with in_float64() if dtype == "float64" else contextlib.nullcontext():
        drawn = draw(dtype)
        mine_BT = our_advantages(resolve(name, {"sample_std": True, "delta": 1e-6} if name == "grpo" else {}), drawn)
    mask, last = torch.tensor(drawn["mask"]).to(torch.float64), drawn["length"].astype(int) - 1
    rewards = np.zeros(drawn["mask"].shape, dtype)
    rewards[np.arange(len(last)), last] = drawn["reward"]
    given = {"index": drawn["group"]} | options
    if "gamma" in given:
        given = {"config": SimpleNamespace(gamma=1.0)}
    theirs_BT, _ = getattr(core, peer)(torch.tensor(rewards), mask.to(torch.tensor(rewards).dtype), **given)
    inside_BT = drawn["mask"]
    np.testing.assert_allclose(mine_BT[inside_BT], theirs_BT.numpy()[inside_BT], rtol=TOLERANCE[dtype], atol=1e-6)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("name", "peer"), [("k1", "k1"), ("k2", "k2"), ("k3", "k3"), ("k3_straight", "k3+")])
def test_kl_estimates_are_those_of_verl(name, peer, dtype, core, torch):
    with in_float64() if dtype == "float64" else contextlib.nullcontext():
        drawn = draw(dtype)
        answer_BT = jnp.where(drawn["mask"], 0, -1).astype(jnp.int32)
        old_BT = jnp.asarray(drawn["old"])
        value_BT, pull = jax.vjp(lambda x_BT: KLS[name](x_BT, old_BT, answer_BT), jnp.asarray(drawn["logp"]))
        (gradient_BT,) = pull(jnp.ones_like(value_BT))
    theirs = torch.tensor(drawn["logp"], requires_grad=True)
    peer_BT = core.kl_penalty(theirs, torch.tensor(drawn["old"]), peer)
    peer_BT.sum().backward()
    inside_BT = drawn["mask"]
    for mine, other in ((value_BT, peer_BT.detach()), (gradient_BT, theirs.grad)):
        np.testing.assert_allclose(
            np.asarray(mine)[inside_BT], other.numpy()[inside_BT], rtol=TOLERANCE[dtype], atol=1e-6
        )
