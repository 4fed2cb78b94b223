"""Layers that attend over a window: to the last tokens of a sequence only. Which ones do, and what each token sees.

A token at position p of its sequence sees positions p − window + 1 to p, as in transformers (Beltagy et al. 2020, arXiv
2004.05150, section 3.1, without what looks ahead).
"""

import dataclasses

import jax.numpy as jnp

from nft_jax.config import FULL_LAYER, WINDOW_LAYER, ModelConfig
from nft_jax.types import Array


def first_position(config: ModelConfig, layer: Array, position: Array) -> Array | None:
    """Returns the first position that a token at each `position` sees in layer number `layer`; below 0: it sees all.

    Returns None if no layer has a window.
    """
    if not config.window:
        return None
    # Positions stay below this, so that no layer without a window hides one.
    all_tokens = 2**30
    tokens = jnp.array([config.window if kind == WINDOW_LAYER else all_tokens for kind in config.kinds_of_layers])
    return position + 1 - tokens.astype(jnp.int32)[layer]


def drop_wide_window(config: ModelConfig, tokens: int) -> ModelConfig:
    """Returns the model without its window if no sequence of up to `tokens` tokens exceeds it; no number changes.

    Then every implementation of attention can be used.
    """
    if config.window < tokens:
        return config
    kinds = config.layer_kinds if config.window_rope_theta else FULL_LAYER
    return dataclasses.replace(config, window=0, layer_kinds=kinds)
