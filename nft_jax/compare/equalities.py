"""Finds with which ω and normalizer NFT equals another algorithm, by comparing the weights of all tokens."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tabulate import tabulate

from nft_jax.compare.gradients import RolloutBuffer
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


class AnswerGroups(NamedTuple):
    """Mixed groups of answers, on the host.

    Attributes:
      correct_QK: 1 for a correct answer, else 0.
      length_QK: tokens of the answer.
      logp_QKT: log-probs of the answer's tokens.
    """

    correct_QK: np.ndarray
    length_QK: np.ndarray
    logp_QKT: np.ndarray


def random_groups() -> AnswerGroups:
    """Draws groups that have each rate twice."""
    random = np.random.default_rng(0)
    length_QK = random.integers(1, T + 1, (Q, K)).astype(np.int32)
    correct_QK = random.permuted(np.arange(K) < 1 + np.arange(Q)[:, None] % (K - 1), axis=1)
    return AnswerGroups(correct_QK, length_QK, random.uniform(-3, -1, (Q, K, T)))


def rollout_groups(rollout: RolloutBuffer) -> AnswerGroups:
    """Returns the groups of a real rollout that train."""
    groups, count = rollout.groups, rollout.count
    return AnswerGroups(groups.reward_QK[:count], groups.length_QK[:count], groups.logp_QKT[:count])


def objective_weights(
    loss: Loss, normalizer: str, drift: float = 0.0, groups: AnswerGroups | None = None
) -> np.ndarray:
    """Returns `−∂objective/∂logp_BT` in float64, one answer a row; by default on random groups.

    Losses with equal weights have equal gradients through any model.

    Args:
      drift: standard deviation of log R; 0 is on-policy.
    """
    correct_QK, length_QK, logp_QKT = groups or random_groups()
    shape, limit = correct_QK.shape, logp_QKT.shape[2]
    logp_BT = np.asarray(logp_QKT, np.float64).reshape(-1, limit)
    log_ratio_BT = drift * np.random.default_rng(1).normal(size=logp_BT.shape)
    inside_BT = np.arange(limit) < length_QK.reshape(-1, 1)
    with in_float64():
        correct_QK = jnp.asarray(correct_QK, jnp.float64)

        def fill_answers(value_QK):
            return jnp.where(inside_BT, jnp.broadcast_to(value_QK, shape).reshape(-1, 1), 0.0)

        batch = LossBatch(
            old_logp_BT=jnp.where(inside_BT, logp_BT - log_ratio_BT, 0.0),
            answer_BT=jnp.where(inside_BT, 0, -1).astype(jnp.int32),
            reward_BT=fill_answers(correct_QK),
            rate_BT=fill_answers(correct_QK.mean(axis=1, keepdims=True)),
            advantage_BT=fill_answers(loss.advantage(correct_QK, jnp.asarray(length_QK), limit)),
            pair_BT=jnp.full(logp_BT.shape, -1, jnp.int32),
            key_BT=jax.random.split(jax.random.key(0), logp_BT.shape) if "key" in loss.reads else None,
            choice_BT=jnp.zeros(logp_BT.shape) if "choice" in loss.reads else None,
        )
        if loss.prepare is not None:
            batch = loss.prepare(jnp.asarray(logp_BT) if loss.forward else None, batch)
        totals = Totals(*(jnp.float64(count) for count in (correct_QK.size, inside_BT.sum(), 0)))

        def objective(logp_BT):
            return total_loss(loss.function(logp_BT, batch), batch, totals, normalizer, limit)

        return -np.asarray(jax.grad(objective)(jnp.asarray(logp_BT)))


def weights_match(one_BT: np.ndarray, other_BT: np.ndarray) -> bool:
    """Returns whether all weights agree to float64 rounding. Weights that are all 0 match nothing."""
    largest = np.abs(other_BT).max()
    return bool(largest > 0 and np.allclose(one_BT, other_BT, rtol=1e-12, atol=1e-14 * largest))


def relate_to_peers(drift: float = 0.0) -> list[Row]:
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


def format_markdown(rows: list[Row]) -> str:
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
