"""Attention over packed rows by cuDNN: each segment of each row is a sequence of one batch, as long as it is.

Keys and values are read as they are, not repeated for the queries that share them. A row's prompt is a second call, in
which each row is one sequence. The two are merged by their log-sum-exps, as `merged_attention.py` says.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from nft_jax.compat import CudnnSequences
from nft_jax.models.attention import MASK_VALUE, PromptKeys
from nft_jax.models.merged_attention import merge_outputs
from nft_jax.types import Array

# cuDNN counts the numbers before a sequence in int32.
_MOST_NUMBERS = 2**31


class Kernels(NamedTuple):
    """`compat.cudnn_attention` and `compat.cudnn_gradient`, or their emulation."""

    attend: Callable
    gradient: Callable


class Spans(NamedTuple):
    """Where the segments of B rows of T tokens lie, as S sequences: those in use first, in the order of their tokens.

    Attributes:
      start_S: int32, the sequence's first place among all B · T; B · T if it is not in use.
      length_S: int32, its tokens; 0 if it is not in use.
      sequence_BT: int32, the sequence of each token; −1 in padding, S and above for what S sequences cannot hold.
    """

    start_S: Array
    length_S: Array
    sequence_BT: Array


def find_spans(segment_BT: Array, most: int) -> Spans:
    """Finds at most `most` segments of rows; a segment is a run of equal numbers, 0 and above, within a row."""
    real_BT = segment_BT >= 0
    before_BT = jnp.pad(segment_BT[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    first_M = (real_BT & (segment_BT != before_BT)).reshape(-1)
    begun_M = jnp.cumsum(first_M, dtype=jnp.int32)
    sequence_M = jnp.where(real_BT.reshape(-1), begun_M - 1, -1)
    # Sums over all tokens, which GPUs compute in one kernel, unlike a scatter.
    number_S1 = jnp.arange(most, dtype=jnp.int32)[:, None]
    start_S = jnp.sum(begun_M[None] <= number_S1, axis=1, dtype=jnp.int32)
    length_S = jnp.sum(sequence_M[None] == number_S1, axis=1, dtype=jnp.int32)
    return Spans(start_S, length_S, sequence_M.reshape(segment_BT.shape))


def attend_rows(
    query_BTNH: Array,
    key_BTGH: Array,
    value_BTGH: Array,
    spans: Spans,
    prompt: PromptKeys | None,
    kernels: Kernels,
    name: str,
) -> Array:
    """Attends causally inside each segment, and to the row's prompt; returns `[B, T, N, H]`, 0 in padding.

    Args:
      spans: Room for a multiple of B segments, for at least twice as many. Tokens of others get NaN.
      name: Checkpoint name of the output and of its log-sum-exp, all that the backward pass needs beside the operands.
    """
    B, T, N, H = query_BTNH.shape
    if B * T * N * H >= _MOST_NUMBERS:
        raise ValueError(
            f"attention by cuDNN reads fewer than {_MOST_NUMBERS:,} numbers at once, not {B} rows × {T} tokens × {N} "
            f"heads × {H}; use fewer config.packing.rows_per_micro_batch"
        )

    def forward(operands, spans):
        query, *keys, prompt = operands
        out_BTNH, lse_SNT = kernels.attend(query, *keys, _own_sequences(spans, B, N, keys[0]), causal=True)
        lse_BTN = _take_by_token(lse_SNT, spans)
        inside_BT = _inside(spans)
        if prompt is not None:
            lse_BTN = jnp.where(inside_BT[..., None], lse_BTN, MASK_VALUE)
            out_BTNH, lse_BTN = merge_outputs([(out_BTNH, lse_BTN), _attend_prompt(kernels, query, prompt, spans)])
        # What no sequence holds has been written by nobody.
        lost_BT = spans.sequence_BT >= spans.start_S.shape[0]
        missing_BT = jnp.where(lost_BT, jnp.nan, 0).astype(query.dtype)[..., None, None]
        out_BTNH = jnp.where(inside_BT[..., None, None], out_BTNH.astype(query.dtype), missing_BT)
        lse_BTN = jnp.where(inside_BT[..., None], lse_BTN, 0)
        out_BTNH, lse_BTN = checkpoint_name((out_BTNH, lse_BTN), name)
        return out_BTNH, (operands, spans, out_BTNH, lse_BTN)

    def backward(saved, gradient_BTNH):
        (query, *keys, prompt), spans, out_BTNH, lse_BTN = saved
        inside_BT11 = _inside(spans)[..., None, None]
        sequences = _own_sequences(spans, B, N, keys[0])
        rest = _take_by_sequence(lse_BTN, spans), out_BTNH, gradient_BTNH
        found = kernels.gradient(query, *keys, sequences, *rest, causal=True)
        by_query, *by_keys = (jnp.where(inside_BT11, x, jnp.zeros((), x.dtype)) for x in found)
        by_prompt = None
        if prompt is not None:
            more, *by_prompt = _prompt_gradient(kernels, query, prompt, spans, lse_BTN, out_BTNH, gradient_BTNH)
            more = jnp.where(inside_BT11, more.astype(jnp.float32), 0)
            by_query = (by_query.astype(jnp.float32) + more).astype(query.dtype)
            by_prompt = PromptKeys(*by_prompt, None)
        return (by_query, *by_keys, by_prompt), None

    attend = jax.custom_vjp(lambda *operands: forward(*operands)[0])
    attend.defvjp(forward, backward)
    return attend((query_BTNH, key_BTGH, value_BTGH, prompt), spans)


def _inside(spans):
    """Returns which tokens some sequence holds."""
    return (spans.sequence_BT >= 0) & (spans.sequence_BT < spans.start_S.shape[0])


def _own_sequences(spans, B, N, key_BTGH):
    """Returns the spans as cuDNN takes them: offsets count numbers, so those of queries and of keys differ."""
    G, H = key_BTGH.shape[2:]
    length_BM = spans.length_S.reshape(B, -1)
    # One offset more than cuDNN reads, and one more in each row.
    start_BM = jnp.pad(spans.start_S, (0, B), constant_values=spans.sequence_BT.size).reshape(B, -1)
    return CudnnSequences(length_BM, length_BM, start_BM * (N * H), start_BM * (G * H))


def _take_by_token(lse_SNT, spans):
    """Returns the log-sum-exp of each token, `[B, T, N]`, from that of each sequence's queries."""
    B, T = spans.sequence_BT.shape
    S = spans.start_S.shape[0]
    sequence_BT = jnp.clip(spans.sequence_BT, 0, S - 1)
    place_BT = jnp.arange(B * T, dtype=jnp.int32).reshape(B, T) - spans.start_S[sequence_BT]
    return lse_SNT[sequence_BT, :, jnp.clip(place_BT, 0, T - 1)]


def _take_by_sequence(lse_BTN, spans):
    """Returns `[S, N, T]`, the reverse of `_take_by_token`; behind a sequence's end lies what follows it."""
    B, T, N = lse_BTN.shape
    place_ST = spans.start_S[:, None] + jnp.arange(T, dtype=jnp.int32)[None]
    lse_STN = lse_BTN.reshape(B * T, N)[jnp.minimum(place_ST, B * T - 1)]
    return jnp.swapaxes(lse_STN, 1, 2)


def _prompt_sequences(spans, prompt):
    """Returns one sequence a row: its tokens, from its first to its last real one, and the keys of its prompt.

    Neither is empty: what cuDNN computes without keys is not documented. What no token should see is taken out later.
    """
    T = spans.sequence_BT.shape[1]
    end_BT = jnp.where(spans.sequence_BT >= 0, jnp.arange(1, T + 1, dtype=jnp.int32)[None], 1)
    return CudnnSequences(jnp.max(end_BT, axis=1), jnp.maximum(prompt.length_B, 1), None, None)


def _attend_prompt(kernels, query_BTNH, prompt, spans):
    """Attends to the prompts; a row without one gets the output 0 with no weight."""
    sequences = _prompt_sequences(spans, prompt)
    out_BTNH, lse_BNT = kernels.attend(query_BTNH, prompt.key_BPGH, prompt.value_BPGH, sequences, causal=False)
    seen_B11 = (prompt.length_B > 0)[:, None, None]
    lse_BTN = jnp.where(seen_B11, jnp.swapaxes(lse_BNT, 1, 2), MASK_VALUE)
    return jnp.where(seen_B11[..., None], out_BTNH, jnp.zeros((), out_BTNH.dtype)), lse_BTN


def _prompt_gradient(kernels, query_BTNH, prompt, spans, lse_BTN, out_BTNH, gradient_BTNH):
    """Returns the gradients of queries, keys and values through the call that `_attend_prompt` makes."""
    rest = jnp.swapaxes(lse_BTN, 1, 2), out_BTNH, gradient_BTNH
    keys = prompt.key_BPGH, prompt.value_BPGH
    by_query, *by_keys = kernels.gradient(query_BTNH, *keys, _prompt_sequences(spans, prompt), *rest, causal=False)
    seen_BP = jnp.arange(keys[0].shape[1], dtype=jnp.int32)[None] < prompt.length_B[:, None]
    by_keys = [jnp.where(seen_BP[..., None, None], x, jnp.zeros((), x.dtype)) for x in by_keys]
    seen_B111 = (prompt.length_B > 0)[:, None, None, None]
    return jnp.where(seen_B111, by_query, jnp.zeros((), by_query.dtype)), *by_keys
