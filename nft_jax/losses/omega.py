"""ω(r̂): how much a prompt weighs, as a function of the share of right answers in its group."""

import jax.numpy as jnp

from nft_jax.types import Array

RATE_BOUNDS = (0.02, 0.98)


def one(rate_BT: Array) -> Array:
    """`ω = 1`: every prompt weighs the same."""
    return jnp.ones_like(rate_BT)


def one_minus_rate(rate_BT: Array) -> Array:
    """`ω = 1 − rate`: hard prompts weigh more; on-policy NFT is then Dr. GRPO."""
    return 1.0 - rate_BT


def sqrt_odds(rate_BT: Array) -> Array:
    """`ω = sqrt((1 − rate) / rate)`: on-policy NFT is then GRPO; 0 at rate 0.

    At rate 0 there are only wrong answers, whose weight `ω rate / (1 − rate)` tends to 0 although ω does not.
    """
    positive_BT = rate_BT > 0
    return jnp.where(positive_BT, jnp.sqrt((1.0 - rate_BT) / jnp.where(positive_BT, rate_BT, 1.0)), 0.0)


OMEGAS = {"one": one, "one_minus_rate": one_minus_rate, "sqrt_odds": sqrt_odds}


def trained_rate(rate_BT: Array, clamp_rate: bool) -> Array:
    """The rate a loss computes with: clamped to `RATE_BOUNDS`, inactive for groups of up to 50 answers, or as it is."""
    return jnp.clip(rate_BT, *RATE_BOUNDS) if clamp_rate else rate_BT


def rate_is_clamped(rate_BT: Array) -> Array:
    """True where a mixed group's rate lies strictly outside `RATE_BOUNDS`."""
    low, high = RATE_BOUNDS
    return ((rate_BT > 0) & (rate_BT < low)) | ((rate_BT > high) & (rate_BT < 1))
