"""Through a real model: on-policy, NFT's gradient is GRPO's with ω = √odds, and Dr. GRPO's with ω = 1 − rate.

The whole training path runs: groups are split and packed, two rows make a micro-batch, and the gradient is that of the
weights. In float64 to rounding; in `strict_on_policy`, as users run it, in float32 and bfloat16.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import (
    ANSWER_LIMIT,
    MODEL,
    assert_close,
    lively_weights,
    one_device,
    random_groups,
    random_prompts,
    small_config,
    training_step,
)
from nft_jax.config import LossConfig, RolloutConfig
from nft_jax.precision import in_float64, to_float64

# Groups of five: their rates are no binary fractions, so that rounding shows.
Q, K = 8, 5
PROMPTS = random_prompts(0, Q)
PEERS = [("sqrt_odds", "grpo", "sequence_mean"), ("one_minus_rate", "dr_grpo", "constant")]


def groups():
    """Mixed groups of every rate, sampled by a policy that is not the trained one."""
    drawn = random_groups(5, Q, K)
    return drawn._replace(logp_QKT=np.random.default_rng(0).uniform(-3, -1, drawn.logp_QKT.shape).astype(np.float32))


def gradients(name, omega, normalizer, *, dtype, strict, first=(True,)):
    """The gradient for each value of `first` (whether the weights are still those that sampled)."""
    options = {"omega": omega} if name == "nft" else {}
    loss = LossConfig(name=name, normalizer=normalizer, options=options)
    mode = {"strict_on_policy": strict, "old_logp": "current"}
    config = small_config(
        answers_per_prompt=K, loss=loss, rollout=RolloutConfig(max_answer_tokens=ANSWER_LIMIT), **mode
    )
    step = training_step(config, one_device(), dataclasses.replace(MODEL, dtype=dtype))

    @jax.jit
    def program(weights, groups, first):
        packed, totals = step.pack(groups, jnp.int32(Q), jax.tree.map(jnp.asarray, PROMPTS), jnp.int32(0))
        packed, totals = jax.tree.map(lambda x: x[0], (packed, totals))
        return step.updater.gradient(weights, packed, totals, None, first)[0]

    inputs = (lively_weights(MODEL), groups())
    if dtype == "float64":
        weights, exact = to_float64(inputs)
        inputs = (weights, exact._replace(rate_Q=exact.reward_QK.mean(axis=1)))
    return [jax.device_get(program(*inputs, value)) for value in first]


@pytest.mark.parametrize(("omega", "peer", "normalizer"), PEERS)
def test_to_float64_rounding_on_policy_and_not_at_all_off_policy(omega, peer, normalizer):
    with in_float64():
        both = {"dtype": "float64", "strict": False, "first": (True, False)}
        mine, mine_off = gradients("nft", omega, normalizer, **both)
        theirs, theirs_off = gradients(peer, omega, normalizer, **both)
    assert all(x.dtype == np.float64 for x in jax.tree.leaves(mine))
    assert_close(mine, theirs, 1e-12)
    with pytest.raises(AssertionError):
        assert_close(mine_off, theirs_off, 0.05)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        # The two multipliers of a token are the same number up to one rounding, 2^-24; the sums differ no more.
        ("float32", 2e-6),
        # Where that rounding tips a bfloat16 rounding of the backward pass, one value moves by 2^-8 of itself.
        ("bfloat16", 2**-8),
    ],
)
@pytest.mark.parametrize(("omega", "peer", "normalizer"), PEERS)
def test_strictly_on_policy_in_the_precisions_of_real_runs(omega, peer, normalizer, dtype, tolerance):
    (mine,) = gradients("nft", omega, normalizer, dtype=dtype, strict=True)
    (theirs,) = gradients(peer, omega, normalizer, dtype=dtype, strict=True)
    assert_close(mine, theirs, tolerance)
