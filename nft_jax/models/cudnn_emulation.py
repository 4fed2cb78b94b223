"""What cuDNN's attention computes, in plain JAX and slowly: for tests on any platform.

The functions have the arguments of `compat.cudnn_attention` and `compat.cudnn_gradient`. What cuDNN leaves unwritten,
outside of all sequences, is NaN here.
"""

import jax
import jax.numpy as jnp

from nft_jax.compat import CudnnSequences
from nft_jax.types import Array


def cudnn_attention(
    query_BTNH: Array, key_BCGH: Array, value_BCGH: Array, sequences: CudnnSequences, *, causal: bool
) -> tuple[Array, Array]:
    """Attends inside each sequence; returns the output `[B, T, N, H]` and the log-sum-exp `[S, N, T]`."""
    query, key, value = _cut(query_BTNH, key_BCGH, value_BCGH, sequences)
    score_SGRTC = _scores(query[0], key[0], sequences, causal)
    lse_SGRT = jax.nn.logsumexp(score_SGRTC, axis=-1)
    weight_SGRTC = jnp.exp(score_SGRTC - lse_SGRT[..., None])
    out_STGRH = jnp.einsum("sgrtc,scgh->stgrh", weight_SGRTC, value[0])
    lse_SNT = lse_SGRT.reshape(lse_SGRT.shape[0], -1, lse_SGRT.shape[-1])
    inside_ST = jnp.arange(lse_SNT.shape[2])[None] < sequences.query_length.reshape(-1, 1)
    lse_SNT = jnp.where(inside_ST[:, None], lse_SNT, jnp.nan)
    return _write(out_STGRH, query[1], query_BTNH), lse_SNT


def cudnn_gradient(
    query_BTNH: Array,
    key_BCGH: Array,
    value_BCGH: Array,
    sequences: CudnnSequences,
    lse_SNT: Array,
    out_BTNH: Array,
    gradient_BTNH: Array,
    *,
    causal: bool,
) -> tuple[Array, Array, Array]:
    """Returns the gradients of query, key and value, for any output and log-sum-exp that they are a part of."""
    query, key, value = _cut(query_BTNH, key_BCGH, value_BCGH, sequences)
    S, T, N, H = query[0].shape
    groups = S, T, key[0].shape[2], -1, H
    out_STGRH, gradient_STGRH = (
        _cut_one(x, sequences.query_length, sequences.query_offset)[0].reshape(groups)
        for x in (out_BTNH, gradient_BTNH)
    )
    score_SGRTC = _scores(query[0], key[0], sequences, causal)
    inside_ST = jnp.arange(T)[None] < sequences.query_length.reshape(-1, 1)
    lse_SNT = jnp.where(inside_ST[:, None], lse_SNT, 0)
    weight_SGRTC = jnp.exp(score_SGRTC - lse_SNT.reshape(*score_SGRTC.shape[:-1])[..., None])
    by_weight = jnp.einsum("stgrh,scgh->sgrtc", gradient_STGRH, value[0])
    mean_SGRT = jnp.einsum("stgrh,stgrh->sgrt", gradient_STGRH, out_STGRH)
    by_score = weight_SGRTC * (by_weight - mean_SGRT[..., None]) * H**-0.5
    by_query = jnp.einsum("sgrtc,scgh->stgrh", by_score, key[0])
    by_key = jnp.einsum("sgrtc,stgrh->scgh", by_score, query[0].reshape(groups))
    by_value = jnp.einsum("sgrtc,stgrh->scgh", weight_SGRTC, gradient_STGRH)
    parts = (by_query, query, query_BTNH), (by_key, key, key_BCGH), (by_value, value, value_BCGH)
    return tuple(_write(found, cut[1], like) for found, cut, like in parts)


def _scores(query_STNH, key_SCGH, sequences, causal):
    """Returns the scores `[S, G, R, T, C]`; −inf for keys that are not seen, 0 in rows of queries that see none."""
    S, T, _, H = query_STNH.shape
    C, G = key_SCGH.shape[1:3]
    score = jnp.einsum("stgrh,scgh->sgrtc", query_STNH.reshape(S, T, G, -1, H), key_SCGH) * H**-0.5
    place_T, place_C = jnp.arange(T)[None, :, None], jnp.arange(C)[None, None]
    query_length, key_length = (x.reshape(-1, 1, 1) for x in sequences[:2])
    seen_STC = (place_T < query_length) & (place_C < key_length) & ((place_C <= place_T) | (not causal))
    empty_ST1 = ~jnp.any(seen_STC, axis=-1, keepdims=True)
    score = jnp.where(seen_STC[:, None, None], score, -jnp.inf)
    return jnp.where(empty_ST1[:, None, None], 0, score)


def _cut(query_BTNH, key_BCGH, value_BCGH, sequences):
    query = _cut_one(query_BTNH, sequences.query_length, sequences.query_offset)
    return query, *(_cut_one(x, sequences.key_length, sequences.key_offset) for x in (key_BCGH, value_BCGH))


def _cut_one(x_BTNH, length, offset):
    """Returns the tokens of each sequence, float32 `[S, T, N, H]`, 0 behind its end, and their places in the rows."""
    B, T, N, H = x_BTNH.shape
    length_S = length.reshape(-1)
    # Of a packed batch, cuDNN reads the first S + 1 offsets.
    start_S = jnp.arange(B) * T if offset is None else offset.reshape(-1)[: length_S.shape[0]] // (N * H)
    column_T = jnp.arange(T)[None]
    inside_ST = column_T < length_S[:, None]
    place_ST = jnp.where(inside_ST, start_S[:, None] + column_T, B * T)
    flat_MNH = x_BTNH.astype(jnp.float32).reshape(B * T, N, H)
    return jnp.where(inside_ST[..., None, None], flat_MNH[jnp.minimum(place_ST, B * T - 1)], 0), place_ST


def _write(x_ST, place_ST, like_BTNH):
    """Writes the tokens of each sequence into rows of NaN."""
    B, T, N, H = like_BTNH.shape
    rows = jnp.full((B * T, N, H), jnp.nan).at[place_ST.reshape(-1)].set(x_ST.reshape(-1, N, H), mode="drop")
    return rows.reshape(B, T, N, H).astype(like_BTNH.dtype)
