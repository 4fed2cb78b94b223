"""The draw of a token, and its log-prob."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.models.attention import MASK_VALUE
from nft_jax.models.logprobs import scaled_log_softmax
from nft_jax.models.on_cpus import first_largest
from nft_jax.rollout.noise import gumbel
from nft_jax.types import Array


def request_keys(key: Array, request_B: Array) -> Array:
    """Returns one key an answer, from its request number alone: a draw depends on no slot, shard or other answer."""
    return jax.vmap(lambda request: jax.random.fold_in(key, request))(request_B)


def truncate(logp_BV: Array, top_p: float, top_k: int) -> Array:
    """Truncates a distribution to its likeliest tokens and renormalizes it; the others get `MASK_VALUE`.

    Keeps the `top_k` likeliest tokens (0: all); of these, keeps the fewest likeliest ones whose mass is at least the
    share `top_p`. The likeliest token always stays. Equally likely tokens stay or go together. The order, and the
    tokens that stay, are those of Hugging Face's `TopKLogitsWarper` and `TopPLogitsWarper`
    (transformers/generation/logits_process.py), except that the latter breaks ties arbitrarily.
    """
    if 0 < top_k < logp_BV.shape[-1]:
        kept_BV = _fewest_likeliest(logp_BV, lambda kept_BV: jnp.sum(kept_BV, axis=-1) >= top_k)
        logp_BV = jax.nn.log_softmax(jnp.where(kept_BV, logp_BV, MASK_VALUE), axis=-1)
    if top_p < 1:
        mass_BV = jnp.exp(logp_BV)
        kept_BV = _fewest_likeliest(logp_BV, lambda kept_BV: jnp.sum(mass_BV, axis=-1, where=kept_BV) >= top_p)
        logp_BV = jax.nn.log_softmax(jnp.where(kept_BV, logp_BV, MASK_VALUE), axis=-1)
    return logp_BV


class _Interval(NamedTuple):
    """Bounds of the bisection: tokens up to rank `few_B` are too few, those up to `many_B` (`kept_BV`) are enough."""

    few_B: Array
    many_B: Array
    kept_BV: Array


def _fewest_likeliest(logp_BV: Array, enough: Callable[[Array], Array]) -> Array:
    """Finds the fewest likeliest tokens for which `enough(kept_BV)` is true, bool `[B, V]`; all if no set is enough.

    Bisects the rank: 31 sums over V instead of a sort.
    """
    # The bits of nonnegative floats, read as integers, sort like the floats: the likelier, the smaller.
    rank_BV = jax.lax.bitcast_convert_type(jnp.abs(logp_BV), jnp.int32)

    def halve(_, interval):
        few_B, many_B, kept_BV = interval
        middle_B = few_B + (many_B - few_B) // 2
        tried_BV = rank_BV <= middle_B[:, None]
        enough_B = enough(tried_BV)
        # The loop returns the kept tokens, because XLA may recompute logp outside with another rounding.
        return _Interval(
            few_B=jnp.where(enough_B, few_B, middle_B),
            many_B=jnp.where(enough_B, middle_B, many_B),
            kept_BV=jnp.where(enough_B[:, None], tried_BV, kept_BV),
        )

    infinity = jnp.full(logp_BV.shape[0], 0x7F800000, jnp.int32)
    start = _Interval(jnp.full_like(infinity, -1), infinity, jnp.ones(logp_BV.shape, bool))
    return jax.lax.fori_loop(0, 31, halve, start).kept_BV


def draw(
    logits_BV: Array,
    key_B: Array,
    column_B: Array,
    greedy_B: Array,
    temperature: float,
    top_p: float = 1.0,
    top_k: int = 0,
) -> tuple[Array, Array]:
    """Draws token number `column_B` of each answer by Gumbel-max; returns tokens int32 and log-probs float32, `[B]`.

    The noise is a function of (seed, request, token). Where `greedy_B` is true, the likeliest token is
    taken instead. Log-probs are of the sampling distribution, after the temperature and `truncate`.
    """
    logp_BV = truncate(scaled_log_softmax(logits_BV, temperature), top_p, top_k)

    noise_BV = gumbel(key_B, column_B, logp_BV.shape[1])
    score_BV = logp_BV + jnp.where(greedy_B[:, None], 0.0, noise_BV)
    token_B = first_largest(score_BV)
    return token_B, jnp.take_along_axis(logp_BV, token_B[:, None], axis=-1)[:, 0]
