"""Log-probs and entropies of the tokens of packed rows, in sequence chunks: a `[B, T, V]` array never exists."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nft_jax.models.transformer import Transformer
from nft_jax.rollout.sampling import of_tokens
from nft_jax.types import Array, Tokens


def logp_and_entropy(
    model: Transformer,
    tokens: Tokens,
    temperature: float,
    chunk: int,
    gather: Callable[[Any], Any] = lambda weights: weights,
) -> tuple[Array, Array]:
    """`[B, T]` float32 log-prob of each token given those before it, and entropy (nats) of what it was drawn from.

    Both stand at the token itself, not at its predecessor. The first token of a sequence has no predecessor: its values
    are finite and mean nothing (it belongs to a prompt). Chunks of `chunk` tokens are recomputed in the backward pass.
    """
    hidden_BTD = model(tokens, gather)
    B, T, D = hidden_BTD.shape
    chunk = min(chunk, T)
    count = -(-T // chunk)
    padding = count * chunk - T
    target_BT = jnp.pad(tokens.token_BT[:, 1:], ((0, 0), (0, padding + 1)))
    hidden_BTD = jnp.pad(hidden_BTD, ((0, 0), (0, padding), (0, 0)))

    @jax.checkpoint
    def of_chunk(hidden_BcD, target_Bc):
        logits_MV = model.logits(hidden_BcD.reshape(B * chunk, D))
        return tuple(x.reshape(B, chunk) for x in of_tokens(logits_MV, target_Bc.reshape(-1), temperature))

    def step(_, inputs):
        return None, of_chunk(*inputs)

    chunks = (
        jnp.moveaxis(hidden_BTD.reshape(B, count, chunk, D), 1, 0),
        jnp.moveaxis(target_BT.reshape(B, count, chunk), 1, 0),
    )
    _, results = jax.lax.scan(step, None, chunks)
    logp_BT, entropy_BT = (jnp.moveaxis(x, 0, 1).reshape(B, count * chunk)[:, : T - 1] for x in results)
    return jnp.pad(logp_BT, ((0, 0), (1, 0))), jnp.pad(entropy_BT, ((0, 0), (1, 0)))
