"""ω(r̂): the weight of a prompt, as a function of the share of correct answers in its group."""

import jax.numpy as jnp

from nft_jax.types import Array

RATE_BOUNDS = (0.02, 0.98)


def one(rate_BT: Array) -> Array:
    """Returns `ω = 1`: every prompt weighs the same."""
    return jnp.ones_like(rate_BT)


def one_minus_rate(rate_BT: Array) -> Array:
    """Returns `ω = 1 − rate`: hard prompts weigh more; on-policy NFT is then Dr. GRPO."""
    return 1.0 - rate_BT


def sqrt_odds(rate_BT: Array) -> Array:
    """Returns `ω = sqrt((1 − rate) / rate)`: on-policy NFT is then GRPO; 0 at rate 0.

    At rate 0 there are only incorrect answers, whose weight `ω rate / (1 − rate)` tends to 0 although ω does not.
    """
    positive_BT = rate_BT > 0
    return jnp.where(positive_BT, jnp.sqrt((1.0 - rate_BT) / jnp.where(positive_BT, rate_BT, 1.0)), 0.0)


def odds(rate_BT: Array) -> Array:
    """Returns `ω = (1 − rate) / rate`, the odds of an incorrect answer: on-policy NFT is then MaxRL; 0 at rate 0."""
    positive_BT = rate_BT > 0
    return jnp.where(positive_BT, (1.0 - rate_BT) / jnp.where(positive_BT, rate_BT, 1.0), 0.0)


OMEGAS = {"one": one, "one_minus_rate": one_minus_rate, "sqrt_odds": sqrt_odds, "odds": odds}


def trained_rate(rate_BT: Array, clamp_rate: bool) -> Array:
    """Clamps the rate to `RATE_BOUNDS` if `clamp_rate`; this changes no mixed group of up to 50 answers."""
    return jnp.clip(rate_BT, *RATE_BOUNDS) if clamp_rate else rate_BT


def rate_is_clamped(rate_BT: Array) -> Array:
    """Tells where a mixed group's rate is strictly outside `RATE_BOUNDS`."""
    low, high = RATE_BOUNDS
    return ((rate_BT > 0) & (rate_BT < low)) | ((rate_BT > high) & (rate_BT < 1))
