"""Log-probs and entropies of the next tokens of packed rows, in chunks, so that no `[B, T, V]` array exists."""

import functools

import jax
import jax.numpy as jnp

from nft_jax.models.attention import PromptKeys
from nft_jax.models.transformer import Transformer
from nft_jax.parallel.layout import UNCONSTRAINED, Placement
from nft_jax.precision import accumulation_dtype
from nft_jax.rounding import ceil_div
from nft_jax.types import Array, Tokens


def logp_and_entropy(
    model: Transformer,
    tokens: Tokens,
    target_BT: Array,
    temperature: float,
    chunk: int,
    placement: Placement = UNCONSTRAINED,
    prompt: PromptKeys | None = None,
) -> tuple[Array, Array]:
    """Returns the log-prob of each place's target and the entropy (nats) of its distribution: float32 `[B, T]` each.

    Args:
      target_BT: int32, the token that follows each place. Where none follows, the results are finite but meaningless.
      temperature: Divides the logits.
      chunk: How many places of a row have logits at a time; the backward pass recomputes each chunk.
      placement, prompt: As in `Transformer.__call__`.
    """
    hidden_BTD = model(tokens, placement, prompt)
    B, T, D = hidden_BTD.shape
    chunk = min(chunk, T)
    count = ceil_div(T, chunk)
    tail = ((0, 0), (0, count * chunk - T))
    hidden_BTD, target_BT = jnp.pad(hidden_BTD, (*tail, (0, 0))), jnp.pad(target_BT, tail)

    @jax.checkpoint
    def chunk_logp(hidden_BtD, target_Bt):
        logits_MV = model.logits(hidden_BtD.reshape(B * chunk, D), placement)
        scores = score_tokens(model, logits_MV, target_Bt.reshape(-1), temperature, placement)
        return tuple(x.reshape(B, chunk) for x in scores)

    def step(_, inputs):
        return None, chunk_logp(*inputs)

    chunks = (
        jnp.moveaxis(hidden_BTD.reshape(B, count, chunk, D), 1, 0),
        jnp.moveaxis(target_BT.reshape(B, count, chunk), 1, 0),
    )
    _, results = jax.lax.scan(step, None, chunks)
    logp_BT, entropy_BT = (jnp.moveaxis(x, 0, 1).reshape(B, count * chunk)[:, :T] for x in results)
    return logp_BT, entropy_BT


def score_tokens(
    model: Transformer, logits_MV: Array, token_M: Array, temperature: float, placement: Placement = UNCONSTRAINED
) -> tuple[Array, Array]:
    """Returns `token_logp_and_entropy`, computed as the model computes functions of rows."""

    def score(_, logits_MV, token_M, part=slice(None)):
        return token_logp_and_entropy(logits_MV, token_M, temperature)[part]

    if not model.config.bitwise:
        return score(None, logits_MV, token_M)
    # One by one: the sampler reads no entropy, and the compiler would fuse the rest of one function differently there.
    parts = (functools.partial(score, part=part) for part in (0, 1))
    return tuple(model.map_rows(part, placement)(None, logits_MV, token_M) for part in parts)


def scaled_log_softmax(logits_MV: Array, temperature: float) -> Array:
    """Returns the float32 log-softmax of `logits / temperature`, which sampler, trainer and old log-probs share."""
    return jax.nn.log_softmax(logits_MV.astype(accumulation_dtype(logits_MV.dtype)) / temperature, axis=-1)


def token_logp_and_entropy(logits_MV: Array, token_M: Array, temperature: float) -> tuple[Array, Array]:
    """Returns the log-probs of tokens under `scaled_log_softmax`, and its entropy (nats): float32 `[M]` each.

    With 150,000 ids, passes over the logits are the cost. So this takes one exponential an element, and otherwise only
    sums over V.
    """
    scaled_MV = logits_MV.astype(accumulation_dtype(logits_MV.dtype)) / temperature
    shifted_MV = scaled_MV - jax.lax.stop_gradient(jnp.max(scaled_MV, axis=-1, keepdims=True))
    weight_MV = jnp.exp(shifted_MV)
    total_M = jnp.sum(weight_MV, axis=-1)
    chosen_M = jnp.take_along_axis(shifted_MV, token_M[:, None], axis=-1)[:, 0] - jnp.log(total_M)
    # −Σ p log p with log p = shifted − log total. A masked column has weight exactly 0 and a finite `shifted`.
    entropy_M = jnp.log(total_M) - jnp.einsum("mv,mv->m", weight_MV, shifted_MV) / total_M
    return chosen_M, entropy_M
