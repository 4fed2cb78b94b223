"""How strongly a loss pulls at a token: its gradient by the token's log-prob, taken from the loss itself."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.losses import Loss, resolve
from nft_jax.types import Array, LossBatch

RATES = (0.125, 0.5, 0.875)
EPSILONS = (1.0, 0.1, 0.01)
# Not 0.8 nor 1.2, where the two sides of PPO's minimum are equal, and JAX gives each half of the gradient.
RATIOS = (np.arange(600, dtype=np.float32) + 0.5) / 200
# Enough that all of RATES are shares of so many answers.
ANSWERS = 8
NO_LIMIT = 2**30


class Curve(NamedTuple):
    """The multipliers of a loss on right or wrong tokens of a group with this rate, at the ratios `ratio_T`."""

    label: str
    rate: float
    right: bool
    ratio_T: np.ndarray
    multiplier_T: np.ndarray


def of_tokens(loss: Loss, logp_BT: Array, batch: LossBatch) -> Array:
    """The multiplier of each token: `−∂(sum of losses)/∂logp`, positive where the token is made likelier."""
    return -jax.grad(lambda logp_BT: jnp.sum(loss.function(logp_BT, batch)))(logp_BT)


def of_ratios(loss: Loss, ratio_T: np.ndarray, *, rate: float, right: bool) -> np.ndarray:
    """The multiplier of a token by its ratio R, in answers of one token.

    Raises ValueError where `rate` is no share of 8 answers, some right and some wrong.
    """
    count = round(rate * ANSWERS)
    if count != rate * ANSWERS or not 0 < count < ANSWERS:
        raise ValueError(f"rate must be one of {', '.join(str(n / ANSWERS) for n in range(1, ANSWERS))}, not {rate}")
    correct_QK = (jnp.arange(ANSWERS) < count).astype(jnp.float32)[None]
    advantage_QK = loss.advantage(correct_QK, jnp.ones((1, ANSWERS), jnp.int32), NO_LIMIT)
    logp_BT = jnp.log(jnp.asarray(ratio_T, jnp.float32))[None]

    def all_of(value):
        return jnp.full_like(logp_BT, value)

    batch = LossBatch(
        old_logp_BT=all_of(0),
        answer_BT=jnp.arange(logp_BT.size, dtype=jnp.int32)[None],
        reward_BT=all_of(right),
        rate_BT=all_of(rate),
        advantage_BT=all_of(advantage_QK[0, 0 if right else -1]),
        pair_BT=jnp.full(logp_BT.shape, -1, jnp.int32),
    )
    return np.asarray(of_tokens(loss, logp_BT, batch)[0])


def curves(
    losses: Mapping[str, Loss],
    rates: Sequence[float] = RATES,
    ratio_T: np.ndarray = RATIOS,
) -> list[Curve]:
    """The curves of losses by label, on right and on wrong tokens, at each rate."""
    return [
        Curve(label, rate, right, ratio_T, of_ratios(loss, ratio_T, rate=rate, right=right))
        for right in (True, False)
        for rate in rates
        for label, loss in losses.items()
    ]


def nft_beside_grpo(epsilons: Sequence[float] = EPSILONS) -> dict[str, Loss]:
    """GRPO, and NFT with the ω that makes it GRPO at R = 1, at several ε."""
    nfts = {f"NFT, ε = {epsilon:g}": resolve("nft", {"omega": "sqrt_odds", "epsilon": epsilon}) for epsilon in epsilons}
    return {"GRPO (PPO's clip)": resolve("grpo", {})} | nfts


def stopped(loss: Loss, logp_BT: Array, batch: LossBatch) -> float:
    """The share of the tokens trained at R = 1 whose multiplier is exactly 0 at `logp_BT`, as PPO's clip makes it."""
    trained_BT = np.asarray(of_tokens(loss, batch.old_logp_BT, batch)) != 0
    still_BT = np.asarray(of_tokens(loss, logp_BT, batch)) == 0
    return float(still_BT[trained_BT].mean())
