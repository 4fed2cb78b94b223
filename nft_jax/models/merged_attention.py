"""Attention over several sets of keys: one call of a splash kernel each, merged by their log-sum-exps.

    out = Σ_i exp(lse_i − lse) out_i        lse = log Σ_i exp(lse_i)

The backward pass calls each kernel's own with the merged `out` and `lse`, so that the probability of each key, and the
mean that is taken off its gradient, are those of the softmax over all sets:

    d score_tc = exp(score_tc − lse_t) (d out_t · value_c − d out_t · out_t)

As in ring attention: Liu et al. 2023 (arXiv 2310.01889), where the sets are on several devices.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from nft_jax.compat import splash_gradient
from nft_jax.types import Array


class Part(NamedTuple):
    """One set of C keys.

    Attributes:
      segments: Splash attention's `SegmentIds` of the queries and of the keys: a query sees keys of its own segment.
    """

    key_BGCH: Array
    value_BGCH: Array
    segments: tuple[Array, Array]


def merge_outputs(found: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Merges outputs `[…, H]`, each with its log-sum-exp `[…]`, in the latter's dtype; returns both of all keys.

    A set whose log-sum-exp is a mask value adds nothing to another.
    """
    total = jax.nn.logsumexp(jnp.stack([lse for _, lse in found]), axis=0)
    return sum(jnp.exp(lse - total)[..., None] * out.astype(lse.dtype) for out, lse in found), total


def merged_attention(kernels: Sequence[Callable], query_BNTH: Array, parts: Sequence[Part], name: str) -> Array:
    """Attends from scaled queries to all keys of all parts; returns `[B, N, T, H]`.

    A query that sees no key of a part takes nothing from it; it must see some key of another.

    Args:
      kernels: Splash kernels for one row, one for each part, with `save_residuals`.
      name: Checkpoint name of the output and of its log-sum-exp, all that the backward pass needs beside the operands.
    """

    def forward(query_BNTH, parts):
        found = [jax.vmap(kernel)(query_BNTH, *part) for kernel, part in zip(kernels, parts, strict=True)]
        # A part without visible keys has the kernel's mask value as log-sum-exp.
        out, lse_BNT = merge_outputs([(out, lse) for out, (lse,) in found])
        out_BNTH, lse_BNT = checkpoint_name((out.astype(query_BNTH.dtype), lse_BNT), name)
        return out_BNTH, (query_BNTH, parts, out_BNTH, lse_BNT)

    def backward(saved, gradient_BNTH):
        query_BNTH, parts, out_BNTH, lse_BNT = saved
        by_query, by_parts = jnp.zeros(query_BNTH.shape, lse_BNT.dtype), []
        for kernel, part in zip(kernels, parts, strict=True):
            pull = jax.vmap(functools.partial(splash_gradient, kernel))
            query, *keys = pull(query_BNTH, *part, out_BNTH, lse_BNT, gradient_BNTH)
            by_query += query.astype(by_query.dtype)
            by_parts.append(Part(*keys, None))
        return by_query.astype(query_BNTH.dtype), type(parts)(by_parts)

    attend = jax.custom_vjp(lambda *operands: forward(*operands)[0])
    attend.defvjp(forward, backward)
    return attend(query_BNTH, parts)
