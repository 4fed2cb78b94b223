"""Rotary positions, plain and scaled to longer texts than those of a model's first training; each kind of layer's."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.config import FULL_LAYER, WINDOW_LAYER, ModelConfig, RopeScaling
from nft_jax.models.on_cpus import compute_apart
from nft_jax.precision import accumulation_dtype
from nft_jax.types import Array


class Turn(NamedTuple):
    """Cosines and sines of the angles of a head's pairs, for M tokens."""

    cos_Mh: Array
    sin_Mh: Array


# The turns of all layers: one for each kind of layer that has its own.
Rope = tuple[Turn, ...]


def make_rope(config: ModelConfig, position_M: Array) -> Rope:
    """Computes the rotary positions of M tokens."""
    dtype = accumulation_dtype(jnp.dtype(config.dtype))

    def compute(position_M):
        return tuple(_turn(position_M, *numbers, config.head_size, dtype) for numbers in _kinds(config).values())

    return compute_apart(compute, position_M)


def _kinds(config):
    """Returns theta and scaling of each kind of layer that the model has and that has its own."""
    of_all = config.rope_theta, config.rope_scaling
    if not config.window_rope_theta:
        return {FULL_LAYER: of_all}
    choices = {FULL_LAYER: of_all, WINDOW_LAYER: (config.window_rope_theta, RopeScaling())}
    return {kind: numbers for kind, numbers in choices.items() if kind in config.kinds_of_layers}


def _turn(position_M, theta, scaling, head_size, dtype):
    angle_Mh = position_M.astype(dtype)[:, None] * frequencies(theta, head_size, scaling, dtype)[None]
    factor = jnp.asarray(attention_factor(scaling), dtype)
    return Turn(jnp.cos(angle_Mh) * factor, jnp.sin(angle_Mh) * factor)


def layer_turn(config: ModelConfig, rope: Rope, layer: Array) -> Turn:
    """Returns the turn of layer number `layer`, by its kind."""
    if len(rope) == 1:
        return rope[0]
    full, window = rope
    is_full = jnp.array([kind == FULL_LAYER for kind in config.kinds_of_layers])[layer]
    return jax.tree.map(lambda full, window: jnp.where(is_full, full, window), full, window)


def rotate(x_MNH: Array, turn: Turn, scale: float = 1.0) -> Array:
    """Turns pair (i, i + H/2) by the angle of its token, and multiplies it by `scale`.

    Su et al. 2021 (arXiv 2104.09864).
    """
    cos, sin = (x_Mh[:, None] * scale if scale != 1 else x_Mh[:, None] for x_Mh in turn)
    first, second = jnp.split(x_MNH.astype(cos.dtype), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x_MNH.dtype)


def frequencies(theta: float, head_size: int, scaling: RopeScaling, dtype: jnp.dtype) -> Array:
    """Returns the angles per position of a head's pairs, `theta^(−2i/H)` with their scaling: `[H/2]`."""
    half = head_size // 2
    frequency_h = theta ** (-jnp.arange(half, dtype=dtype) / half)
    if scaling.kind == "none":
        return frequency_h
    if scaling.kind == "linear":
        return frequency_h / scaling.factor
    kept_h = _llama3_kept(frequency_h, scaling) if scaling.kind == "llama3" else _yarn_kept(theta, half, scaling, dtype)
    return frequency_h * kept_h + frequency_h / scaling.factor * (1 - kept_h)


def attention_factor(scaling: RopeScaling) -> float:
    """Returns the number that multiplies rotated queries and keys."""
    if scaling.kind != "yarn":
        return 1.0
    return scaling.attention_factor or (0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0)


def _llama3_kept(frequency_h, scaling):
    """Returns how much of each frequency is kept, from 0 to 1: a ramp in turns per `original_tokens`.

    Grattafiori et al. 2024 (arXiv 2407.21783), as in the models' published code.
    """
    turns_h = scaling.original_tokens * frequency_h / (2 * math.pi)
    low, high = scaling.low_frequency, scaling.high_frequency
    return jnp.clip((turns_h - low) / (high - low), 0, 1)


def _yarn_kept(theta, half, scaling, dtype):
    """Returns the same for YaRN: a ramp in the number of the pair. Peng et al. 2023 (arXiv 2309.00071)."""

    def pair_with(turns):
        return half * math.log(scaling.original_tokens / (turns * 2 * math.pi)) / math.log(theta)

    first, last = pair_with(scaling.beta_fast), pair_with(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * half - 1)
    width = last - first or 1e-3  # of a ramp that is a step
    return 1 - jnp.clip((jnp.arange(half, dtype=dtype) - first) / width, 0, 1)
