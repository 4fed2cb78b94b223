"""Log-probs and entropies of the next tokens of packed rows, in chunks: a `[B, T, V]` array never exists."""

import jax
import jax.numpy as jnp

from nft_jax.models.attention import PromptKeys
from nft_jax.models.transformer import Transformer
from nft_jax.parallel.layout import UNCONSTRAINED, Placement
from nft_jax.precision import accumulation_dtype
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
    """`[B, T]` float32 log-prob of each place's target, the token that follows it, and entropy (nats) of the choice.

    Where nothing follows, the values are finite and mean nothing. Chunks of `chunk` places are recomputed in the
    backward pass. `placement` and `prompt` as the model takes them.
    """
    hidden_BTD = model(tokens, placement, prompt)
    B, T, D = hidden_BTD.shape
    chunk = min(chunk, T)
    count = -(-T // chunk)
    tail = ((0, 0), (0, count * chunk - T))
    hidden_BTD, target_BT = jnp.pad(hidden_BTD, (*tail, (0, 0))), jnp.pad(target_BT, tail)

    @jax.checkpoint
    def of_chunk(hidden_BcD, target_Bc):
        logits_MV = model.logits(hidden_BcD.reshape(B * chunk, D))
        return tuple(x.reshape(B, chunk) for x in token_logp_and_entropy(logits_MV, target_Bc.reshape(-1), temperature))

    def step(_, inputs):
        return None, of_chunk(*inputs)

    chunks = (
        jnp.moveaxis(hidden_BTD.reshape(B, count, chunk, D), 1, 0),
        jnp.moveaxis(target_BT.reshape(B, count, chunk), 1, 0),
    )
    _, results = jax.lax.scan(step, None, chunks)
    logp_BT, entropy_BT = (jnp.moveaxis(x, 0, 1).reshape(B, count * chunk)[:, :T] for x in results)
    return logp_BT, entropy_BT


def scaled_log_softmax(logits_MV: Array, temperature: float) -> Array:
    """Float32 log-softmax of `logits / temperature`: the one distribution of sampler, trainer and old log-probs."""
    return jax.nn.log_softmax(logits_MV.astype(accumulation_dtype(logits_MV.dtype)) / temperature, axis=-1)


def token_logp_and_entropy(logits_MV: Array, token_M: Array, temperature: float) -> tuple[Array, Array]:
    """Log-probs of given tokens, as `scaled_log_softmax` gives them, and the entropy (nats): float32 `[M]` each.

    Sums over V alone leave the logits, and one exponential an element: at 150,000 columns, passes are what costs.
    """
    scaled_MV = logits_MV.astype(accumulation_dtype(logits_MV.dtype)) / temperature
    shifted_MV = scaled_MV - jax.lax.stop_gradient(jnp.max(scaled_MV, axis=-1, keepdims=True))
    weight_MV = jnp.exp(shifted_MV)
    total_M = jnp.sum(weight_MV, axis=-1)
    chosen_M = jnp.take_along_axis(shifted_MV, token_M[:, None], axis=-1)[:, 0] - jnp.log(total_M)
    # −Σ p log p, with log p = shifted − log total; a masked column has weight exactly 0 and a finite `shifted`.
    entropy_M = jnp.log(total_M) - jnp.einsum("mv,mv->m", weight_MV, shifted_MV) / total_M
    return chosen_M, entropy_M
