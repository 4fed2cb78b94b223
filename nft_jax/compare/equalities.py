"""Finds with which ω and normalizer NFT equals another algorithm, by comparing the weights of all tokens."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tabulate import tabulate

from nft_jax.losses import NORMALIZERS, Loss, resolve, total_loss
from nft_jax.losses.omega import OMEGAS
from nft_jax.precision import in_float64
from nft_jax.types import LossBatch, Totals

PEERS = ("grpo", "dr_grpo", "maxrl", "dapo", "rft", "contrast")
SETTINGS = (*({"omega": omega} for omega in OMEGAS), {"omega": "one", "negative_weight": 0.0})
# 14 mixed groups of 8 answers have each rate twice.
Q, K, T = 14, 8, 7
# NFT equals the peer with its default normalizer, equals it only with the row's normalizer, or does not equal it.
EQUAL, EQUAL_IF_GIVEN, DIFFERENT = "equal", "if given it", "—"


class Row(NamedTuple):
    """NFT with some settings.

    Attributes:
      peers: by peer, `EQUAL`, `EQUAL_IF_GIVEN` or `DIFFERENT`.
    """

    options: dict[str, Any]
    normalizer: str
    peers: dict[str, str]


def objective_weights(loss: Loss, normalizer: str, drift: float = 0.0) -> np.ndarray:
    """Returns `−∂objective/∂logp_BT` in float64 on random groups.

    Losses with equal weights have equal gradients through any model.

    Args:
      drift: standard deviation of log R; 0 is on-policy.
    """
    random = np.random.default_rng(0)
    length_QK = random.integers(1, T + 1, (Q, K)).astype(np.int32)
    correct_QK = random.permuted(np.arange(K) < 1 + np.arange(Q)[:, None] % (K - 1), axis=1).astype(np.float64)
    logp_BT = random.uniform(-3, -1, (Q * K, T))
    log_ratio_BT = drift * random.normal(size=logp_BT.shape)
    inside_BT = np.arange(T) < length_QK.reshape(-1, 1)
    with in_float64():

        def fill_answers(value_QK):
            return jnp.where(inside_BT, jnp.broadcast_to(value_QK, (Q, K)).reshape(-1, 1), 0.0)

        batch = LossBatch(
            old_logp_BT=jnp.where(inside_BT, logp_BT - log_ratio_BT, 0.0),
            answer_BT=jnp.where(inside_BT, 0, -1).astype(jnp.int32),
            reward_BT=fill_answers(correct_QK),
            rate_BT=fill_answers(correct_QK.mean(axis=1, keepdims=True)),
            advantage_BT=fill_answers(loss.advantage(jnp.asarray(correct_QK), jnp.asarray(length_QK), T)),
            pair_BT=jnp.full(logp_BT.shape, -1, jnp.int32),
        )
        totals = Totals(*(jnp.float64(count) for count in (Q * K, inside_BT.sum(), 0)))

        def objective(logp_BT):
            return total_loss(loss.function(logp_BT, batch), batch, totals, normalizer, T)

        return -np.asarray(jax.grad(objective)(jnp.asarray(logp_BT)))


def weights_match(one_BT: np.ndarray, other_BT: np.ndarray) -> bool:
    """Returns whether all weights agree to float64 rounding. Weights that are all 0 match nothing."""
    largest = np.abs(other_BT).max()
    return bool(largest > 0 and np.allclose(one_BT, other_BT, rtol=1e-12, atol=1e-14 * largest))


def table(drift: float = 0.0) -> list[Row]:
    """Compares NFT, with every ω and every normalizer that fits, with each peer."""

    @functools.cache
    def weights(name, normalizer, **options):
        return objective_weights(resolve(name, options), normalizer, drift)

    def relation(options, normalizer, peer):
        # The contrast takes NFT's ω, so that the two differ in nothing else.
        shared = {"omega": options["omega"]} if peer == "contrast" else {}
        mine = weights("nft", normalizer, **options)
        if weights_match(mine, weights(peer, resolve(peer, {}).normalizer, **shared)):
            return EQUAL
        return EQUAL_IF_GIVEN if weights_match(mine, weights(peer, normalizer, **shared)) else DIFFERENT

    # A normalizer of pairs gives no weights here.
    fitting = [name for name in NORMALIZERS if weights("nft", name, **SETTINGS[0]).any()]
    return [
        Row(options, normalizer, {peer: relation(options, normalizer, peer) for peer in PEERS})
        for options in SETTINGS
        for normalizer in fitting
    ]


def markdown(rows: list[Row]) -> str:
    """Makes the Markdown table of the page colab/normalizer_and_omega.md."""
    header = ["`loss.nft.…`", "`loss.normalizer`", *(f"`{peer}`" for peer in PEERS)]
    cells = [
        (
            ", ".join(f"`{name}={value}`" for name, value in row.options.items()),
            f"`{row.normalizer}`",
            *row.peers.values(),
        )
        for row in rows
    ]
    return tabulate(cells, header, tablefmt="github", stralign=None, disable_numparse=True)
