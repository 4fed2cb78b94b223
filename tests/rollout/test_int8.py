"""The engine with weights in int8: it samples from just that policy, on any mesh, and training does not notice."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.engines import WEIGHTS, requests, sampler, teacher_forced
from helpers.small_parts import (
    MODEL,
    eight_devices,
    lively_weights,
    one_device,
    random_groups,
    random_prompts,
    small_config,
    training_step,
)
from nft_jax.models.int8 import Int8Matrix, quantize_layers

INT8 = {"weights": "int8"}


def rounded(weights):
    """The weights that int8 stands for, in float32."""

    def expand(leaf):
        return np.asarray(leaf.values, np.float32) * leaf.scale if isinstance(leaf, Int8Matrix) else leaf

    return jax.tree.map(expand, quantize_layers(weights), is_leaf=lambda x: isinstance(x, Int8Matrix))


@pytest.fixture(scope="module")
def sampled():
    return sampler(one_device(), **INT8)(WEIGHTS, requests())


def test_engine_in_int8_samples_from_the_rounded_weights(sampled, sample):
    expected = sample(rounded(WEIGHTS), requests())
    np.testing.assert_array_equal(sampled.token_BT, expected.token_BT)
    np.testing.assert_allclose(sampled.logp_BT, expected.logp_BT, rtol=0, atol=1e-5)


def test_engine_in_int8_has_the_log_probs_of_the_full_forward_with_the_rounded_weights(sampled, forward):
    gap = np.abs(sampled.logp_BT - teacher_forced(forward, WEIGHTS, sampled))
    assert 1e-4 < gap.mean() < 0.1
    np.testing.assert_allclose(sampled.logp_BT, teacher_forced(forward, rounded(WEIGHTS), sampled), rtol=0, atol=1e-5)


def test_engine_in_int8_agrees_with_greedy_answers(sample):
    """On weights whose logits differ by some nats; an answer is compared up to its first other token."""
    found = sampler(one_device(), **INT8)(WEIGHTS, requests(greedy=True))
    expected = sample(WEIGHTS, requests(greedy=True))
    same_BT = found.token_BT == expected.token_BT
    assert same_BT.mean() > 0.9


def test_engine_in_int8_on_eight_devices(sampled):
    found = sampler(eight_devices(), **INT8)(WEIGHTS, requests())
    np.testing.assert_array_equal(found.token_BT, sampled.token_BT)
    np.testing.assert_allclose(found.logp_BT, sampled.logp_BT, rtol=0, atol=1e-5)


def test_updates_are_the_same_program_with_and_without_int8():
    config = small_config()
    other = dataclasses.replace(config, rollout=dataclasses.replace(config.rollout, **INT8))
    groups, prompts = random_groups(1, 8, 4), random_prompts(0, 64)

    def program(config):
        step = training_step(config, one_device())

        def gradient(weights):
            packed, totals = step.pack(groups, jnp.int32(8), jax.tree.map(jnp.asarray, prompts), jnp.int32(0))
            packed, totals = jax.tree.map(lambda x: x[0], (packed, totals))
            return step.updater.gradient(weights, packed, totals)

        return jax.jit(gradient).lower(lively_weights(MODEL)).as_text()

    assert program(config) == program(other)
    assert "i8" not in program(other)
