"""Rotary positions, plain and scaled to longer texts than those of a model's first training; each kind of layer's."""

import math
from typing import NamedTuple

import jax.numpy as jnp

from nft_jax.config import FULL_LAYER, WINDOW_LAYER, ModelConfig, RopeScaling
from nft_jax.precision import accumulation_dtype
from nft_jax.types import Array


class Rope(NamedTuple):
    """The rotary positions of a layer.

    Attributes:
      frequency_h: The angles per position of a head's pairs.
      factor: The number that multiplies rotated queries and keys: a float, or an array if layers differ in it.
    """

    frequency_h: Array
    factor: float | Array


def layer_rope(config: ModelConfig, layer: Array, dtype: jnp.dtype) -> Rope:
    """Returns the rotary positions of layer number `layer`, by its kind."""
    of_all = config.rope_theta, config.rope_scaling
    choices = {
        FULL_LAYER: of_all,
        WINDOW_LAYER: (config.window_rope_theta, RopeScaling()) if config.window_rope_theta else of_all,
    }
    ropes = {
        kind: Rope(frequencies(theta, config.head_size, scaling, dtype), attention_factor(scaling))
        for kind, (theta, scaling) in choices.items()
        if kind in config.kinds_of_layers
    }
    if len(ropes) == 1 or not config.window_rope_theta:
        return next(iter(ropes.values()))
    full, window = ropes[FULL_LAYER], ropes[WINDOW_LAYER]
    is_full = jnp.array([kind == FULL_LAYER for kind in config.kinds_of_layers])[layer]
    factor = full.factor if full.factor == window.factor else jnp.where(is_full, full.factor, window.factor)
    return Rope(jnp.where(is_full, full.frequency_h, window.frequency_h), factor)


def rotate(x_MNH: Array, position_M: Array, frequency_h: Array, factor: float | Array = 1.0) -> Array:
    """Turns pair (i, i + H/2) by `position · frequency_i` and multiplies it by `factor`, with angles in float32.

    Su et al. 2021 (arXiv 2104.09864).
    """
    dtype = accumulation_dtype(x_MNH.dtype)
    angle = position_M.astype(dtype)[:, None, None] * frequency_h[None, None]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    if not isinstance(factor, float) or factor != 1:
        cos, sin = (x * jnp.asarray(factor, dtype) for x in (cos, sin))
    first, second = jnp.split(x_MNH.astype(dtype), 2, axis=-1)
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
