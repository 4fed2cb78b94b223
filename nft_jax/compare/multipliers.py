"""Multipliers: how strongly a loss trains a token: minus its gradient with respect to the token's log-prob."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.losses import Loss, resolve
from nft_jax.types import Array, LossBatch

RATES = (0.125, 0.5, 0.875)
EPSILONS = (1.0, 0.1, 0.01)
# Leaves out 0.8 and 1.2, where both sides of PPO's minimum are equal and JAX gives each half of the gradient.
RATIOS = (np.arange(600, dtype=np.float32) + 0.5) / 200
# Answers of a group. All of RATES are multiples of 1 / ANSWERS.
ANSWERS = 8
NO_LIMIT = 2**30


class Curve(NamedTuple):
    """The multipliers of a loss on tokens of a group.

    Attributes:
      label: name of the loss.
      correct: whether the tokens are of a correct answer.
      ratio_T: float32, ratios R.
      multiplier_T: float32, the multiplier at each ratio.
    """

    label: str
    rate: float
    correct: bool
    ratio_T: np.ndarray
    multiplier_T: np.ndarray


def token_multipliers(loss: Loss, logp_BT: Array, batch: LossBatch) -> Array:
    """Returns each token's multiplier `−∂(sum of losses)/∂logp`; a positive one makes the token likelier."""
    return -jax.grad(lambda logp_BT: jnp.sum(loss.function(logp_BT, batch)))(logp_BT)


def ratio_multipliers(
    loss: Loss, ratio_T: np.ndarray, *, rate: float, correct: bool, answers: int = ANSWERS
) -> np.ndarray:
    """Returns the multiplier of a token at each ratio R, in answers of one token.

    Raises:
      ValueError: if `rate` is not the success rate of a mixed group of so many `answers`.
    """
    count = round(rate * answers)
    if count != rate * answers or not 0 < count < answers:
        raise ValueError(f"rate must be one of {', '.join(str(n / answers) for n in range(1, answers))}, not {rate}")
    correct_QK = (jnp.arange(answers) < count).astype(jnp.float32)[None]
    advantage_QK = loss.advantage(correct_QK, jnp.ones((1, answers), jnp.int32), NO_LIMIT)
    logp_BT = jnp.log(jnp.asarray(ratio_T, jnp.float32))[None]

    def all_of(value):
        return jnp.full_like(logp_BT, value)

    batch = LossBatch(
        old_logp_BT=all_of(0),
        answer_BT=jnp.arange(logp_BT.size, dtype=jnp.int32)[None],
        reward_BT=all_of(correct),
        rate_BT=all_of(rate),
        advantage_BT=all_of(advantage_QK[0, 0 if correct else -1]),
        pair_BT=jnp.full(logp_BT.shape, -1, jnp.int32),
    )
    return np.asarray(token_multipliers(loss, logp_BT, batch)[0])


def compute_curves(
    losses: Mapping[str, Loss],
    rates: Sequence[float] = RATES,
    ratio_T: np.ndarray = RATIOS,
) -> list[Curve]:
    """Returns the curves of labeled losses, on correct and on incorrect tokens, at each rate."""
    return [
        Curve(label, rate, correct, ratio_T, ratio_multipliers(loss, ratio_T, rate=rate, correct=correct))
        for correct in (True, False)
        for rate in rates
        for label, loss in losses.items()
    ]


def nft_and_grpo(epsilons: Sequence[float] = EPSILONS) -> dict[str, Loss]:
    """Returns GRPO, and NFT with the ω that makes it equal to GRPO at R = 1, at several ε."""
    nfts = {f"NFT, ε = {epsilon:g}": resolve("nft", {"omega": "sqrt_odds", "epsilon": epsilon}) for epsilon in epsilons}
    return {"GRPO (PPO's clip)": resolve("grpo", {})} | nfts


def zero_share(loss: Loss, logp_BT: Array, batch: LossBatch) -> float:
    """Returns the share of the tokens trained at R = 1 whose multiplier is exactly 0 at `logp_BT`, as by PPO's clip."""
    trained_BT = np.asarray(token_multipliers(loss, batch.old_logp_BT, batch)) != 0
    zero_BT = np.asarray(token_multipliers(loss, logp_BT, batch)) == 0
    return float(zero_BT[trained_BT].mean())
