"""The draw of a token, and its log-prob."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.models.attention import MASK_VALUE
from nft_jax.models.logprobs import scaled_log_softmax
from nft_jax.models.on_cpus import first_largest
from nft_jax.precision import accumulation_dtype
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

    def add_noise(logp_BV):
        return logp_BV + jnp.where(greedy_B[:, None], 0.0, gumbel(key_B, column_B, logp_BV.shape[1]))

    def by_passes(logits_BV):
        logp_BV = truncate(scaled_log_softmax(logits_BV, temperature), top_p, top_k)
        token_B = first_largest(add_noise(logp_BV))
        return token_B, jnp.take_along_axis(logp_BV, token_B[:, None], axis=-1)[:, 0]

    def in_one_pass(logits_BV):
        scaled_BV = logits_BV.astype(accumulation_dtype(logits_BV.dtype)) / temperature
        return choose_in_one_pass(scaled_BV, add_noise(scaled_BV))

    if top_p < 1 or 0 < top_k < logits_BV.shape[1]:
        return by_passes(logits_BV)
    return jax.lax.platform_dependent(logits_BV, cuda=in_one_pass, default=by_passes)


def choose_in_one_pass(scaled_BV: Array, score_BV: Array) -> tuple[Array, Array]:
    """Returns the token of the highest score, and its log-prob under the softmax of `scaled_BV`, reading both once.

    For GPUs, where log-softmax and maximum otherwise read the logits three times, in six kernels. The sum of
    exponentials follows the running maximum: Milakov & Gimelshein 2018 (arXiv 1805.02867).
    """
    lowest = jnp.finfo(scaled_BV.dtype).min

    def merge(one, other):
        (largest, total, score, token), (largest2, total2, score2, token2) = one, other
        shrink = jnp.exp(-jnp.abs(largest - largest2))
        total = jnp.where(largest >= largest2, total + total2 * shrink, total2 + total * shrink)
        first = (score > score2) | ((score == score2) & (token < token2))
        best = jnp.where(first, score, score2), jnp.where(first, token, token2)
        return jnp.maximum(largest, largest2), total, *best

    token_BV = jax.lax.broadcasted_iota(jnp.int32, score_BV.shape, 1)
    operands = scaled_BV, jnp.ones_like(scaled_BV), score_BV, token_BV
    nothing = lowest, jnp.zeros((), scaled_BV.dtype), lowest, jnp.int32(0)
    largest_B, total_B, _, token_B = jax.lax.reduce(operands, nothing, merge, (1,))
    chosen_B = jnp.take_along_axis(scaled_BV, token_B[:, None], axis=-1)[:, 0]
    return token_B, chosen_B - largest_B - jnp.log(total_B)
