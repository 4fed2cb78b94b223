"""Which ω and normaliser make NFT which other algorithm: found by comparing what each loss does to every token."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.losses import NORMALIZERS, Loss, resolve, total_loss
from nft_jax.losses.omega import OMEGAS
from nft_jax.precision import in_float64
from nft_jax.types import LossBatch, Totals

PEERS = ("grpo", "dr_grpo", "dapo", "rft", "contrast")
SETTINGS = (*({"omega": omega} for omega in OMEGAS), {"omega": "one", "negative_weight": 0.0})
# Mixed groups of every rate, twice.
Q, K, T = 14, 8, 7
# NFT is the peer as it comes; is it where the peer is given the same normaliser; is it not.
EQUAL, GIVEN, DIFFERENT = "equal", "if given it", "—"


class Row(NamedTuple):
    """NFT with these options and this normaliser, and what it is to each peer: `EQUAL`, `GIVEN` or `DIFFERENT`."""

    options: dict[str, Any]
    normalizer: str
    peers: dict[str, str]


def objective_weights(loss: Loss, normalizer: str, drift: float = 0.0) -> np.ndarray:
    """`−∂objective/∂logp_BT` in float64 on drawn groups: equal ones give equal gradients through any model.

    `drift` is the standard deviation of log R; 0: on-policy.
    """
    random = np.random.default_rng(0)
    length_QK = random.integers(1, T + 1, (Q, K)).astype(np.int32)
    correct_QK = random.permuted(np.arange(K) < 1 + np.arange(Q)[:, None] % (K - 1), axis=1).astype(np.float64)
    logp_BT = random.uniform(-3, -1, (Q * K, T))
    log_ratio_BT = drift * random.normal(size=logp_BT.shape)
    inside_BT = np.arange(T) < length_QK.reshape(-1, 1)
    with in_float64():

        def of_answer(value_QK):
            return jnp.where(inside_BT, jnp.broadcast_to(value_QK, (Q, K)).reshape(-1, 1), 0.0)

        batch = LossBatch(
            old_logp_BT=jnp.where(inside_BT, logp_BT - log_ratio_BT, 0.0),
            answer_BT=jnp.where(inside_BT, 0, -1).astype(jnp.int32),
            reward_BT=of_answer(correct_QK),
            rate_BT=of_answer(correct_QK.mean(axis=1, keepdims=True)),
            advantage_BT=of_answer(loss.advantage(jnp.asarray(correct_QK), jnp.asarray(length_QK), T)),
            pair_BT=jnp.full(logp_BT.shape, -1, jnp.int32),
        )
        totals = Totals(*(jnp.float64(count) for count in (Q * K, inside_BT.sum(), 0)))

        def objective(logp_BT):
            return total_loss(loss.function(logp_BT, batch), batch, totals, normalizer, T)

        return -np.asarray(jax.grad(objective)(jnp.asarray(logp_BT)))


def equal(one_BT: np.ndarray, other_BT: np.ndarray) -> bool:
    """Whether no token's weight differs by more than float64 rounding; never, where all weights are 0."""
    largest = np.abs(other_BT).max()
    return bool(largest > 0 and np.allclose(one_BT, other_BT, rtol=1e-12, atol=1e-14 * largest))


def table(drift: float = 0.0) -> list[Row]:
    """Every ω with every normaliser that fits, against each peer as it comes, or else with the row's normaliser."""

    @functools.cache
    def weights(name, normalizer, **options):
        return objective_weights(resolve(name, options), normalizer, drift)

    def relation(options, normalizer, peer):
        # The contrast has NFT's ω, so that the two differ in nothing else.
        same = {"omega": options["omega"]} if peer == "contrast" else {}
        mine = weights("nft", normalizer, **options)
        if equal(mine, weights(peer, resolve(peer, {}).normalizer, **same)):
            return EQUAL
        return GIVEN if equal(mine, weights(peer, normalizer, **same)) else DIFFERENT

    # The others have no objective without pairs.
    fitting = [name for name in NORMALIZERS if weights("nft", name, **SETTINGS[0]).any()]
    return [
        Row(options, normalizer, {peer: relation(options, normalizer, peer) for peer in PEERS})
        for options in SETTINGS
        for normalizer in fitting
    ]


def markdown(rows: list[Row]) -> str:
    """The table as the page has it."""
    head = ["`loss.nft.…`", "`loss.normalizer`", *(f"`{peer}`" for peer in PEERS)]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        options = ", ".join(f"`{name}={value}`" for name, value in row.options.items())
        lines.append([options, f"`{row.normalizer}`", *row.peers.values()])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
