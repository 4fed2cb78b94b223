"""Rotary positions against plain NumPy; their scalings by what they keep and divide."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import decoder_twin
from nft_jax.config import ModelConfig, RopeScaling
from nft_jax.models.rope import attention_factor, frequencies, layer_turn, make_rope, rotate

M, N, H, THETA = 5, 3, 64, 1e4
PLAIN = RopeScaling()
LLAMA3 = RopeScaling("llama3", 8.0, original_tokens=256)
YARN = RopeScaling("yarn", 4.0, original_tokens=256)
RANDOM = np.random.default_rng(0)


def frequencies_of(scaling):
    return np.asarray(frequencies(THETA, H, scaling, jnp.float32))


def turn_of(config, position_M, layer=0):
    return layer_turn(config, make_rope(config, position_M), layer)


def test_rotate_matches_its_twin():
    x_MNH, position_M = RANDOM.normal(size=(M, N, H)).astype(np.float32), np.array([0, 1, 2, 7, 100], np.int32)
    expected = [
        [decoder_twin.rotate(x_H, position, THETA) for x_H in x_NH]
        for x_NH, position in zip(x_MNH, position_M, strict=True)
    ]
    turn = turn_of(ModelConfig(head_size=H, rope_theta=THETA), position_M)
    found = rotate(x_MNH, turn)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rotate(x_MNH, turn, 1.5), 1.5 * found, rtol=1e-6, atol=1e-6)


def test_frequencies_of_linear_scaling_are_all_divided():
    np.testing.assert_allclose(frequencies_of(RopeScaling("linear", 4.0)), frequencies_of(PLAIN) / 4, rtol=1e-6)


@pytest.mark.parametrize("scaling", [LLAMA3, YARN], ids=["llama3", "yarn"])
def test_frequencies_are_kept_where_short_and_divided_where_long(scaling):
    """From the fastest pair on, the share that is left falls from 1 to 1/factor; with factor 1 all are kept."""
    share_h = frequencies_of(scaling) / frequencies_of(PLAIN)
    turns_h = scaling.original_tokens * frequencies_of(PLAIN) / (2 * math.pi)
    most, least = (32, 1) if scaling.kind == "yarn" else (4, 1)
    np.testing.assert_allclose(share_h[turns_h > most], 1, rtol=1e-6)
    # The ramp of YaRN ends at a whole pair, so at most one pair after the last that turns once.
    np.testing.assert_allclose(share_h[turns_h < least][1:], 1 / scaling.factor, rtol=1e-6)
    assert np.all(np.diff(share_h) <= 1e-6)
    assert np.sum((share_h > 1 / scaling.factor + 1e-3) & (share_h < 1 - 1e-3)) > 1
    np.testing.assert_allclose(frequencies_of(dataclasses.replace(scaling, factor=1.0)), frequencies_of(PLAIN))


def test_attention_factor_is_the_given_one_or_that_of_yarn():
    assert attention_factor(PLAIN) == attention_factor(LLAMA3) == 1
    assert attention_factor(YARN) == pytest.approx(0.1 * math.log(4) + 1)
    assert attention_factor(dataclasses.replace(YARN, attention_factor=1.25)) == 1.25
    assert attention_factor(dataclasses.replace(YARN, factor=0.5)) == 1


def test_layer_turn_is_that_of_the_kind_of_the_layer():
    """Layers with windows have their own theta and no scaling; without such a theta all layers are the same."""
    position_M = np.arange(M, dtype=np.int32)
    config = ModelConfig(layers=5, head_size=H, rope_theta=THETA, rope_scaling=YARN, window_rope_theta=100.0)
    angle = {"f": frequencies_of(YARN), "w": frequencies(100.0, H, PLAIN, jnp.float32)}
    factor = {"f": attention_factor(YARN), "w": 1}
    mixed = dataclasses.replace(config, layer_kinds="wwf")
    rope = make_rope(mixed, position_M)
    for layer, kind in enumerate("wwfww"):
        cos_Mh, sin_Mh = jax.jit(lambda layer: layer_turn(mixed, rope, layer))(layer)
        angle_Mh = position_M[:, None] * np.asarray(angle[kind])[None]
        np.testing.assert_allclose(cos_Mh, factor[kind] * np.cos(angle_Mh), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(sin_Mh, factor[kind] * np.sin(angle_Mh), rtol=1e-6, atol=1e-6)
    full, window = (turn_of(dataclasses.replace(config, layer_kinds=kind), position_M) for kind in "fw")
    np.testing.assert_array_equal(turn_of(dataclasses.replace(mixed, layers=2), position_M), window)
    same = dataclasses.replace(mixed, window_rope_theta=0.0, window=8)
    np.testing.assert_array_equal(turn_of(same, position_M), full)
