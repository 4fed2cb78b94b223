"""Log-probs and entropies of the next tokens of packed rows, in chunks: a `[B, T, V]` array never exists."""

import jax
import jax.numpy as jnp

from nft_jax.models.attention import PromptKeys
from nft_jax.models.transformer import Transformer
from nft_jax.parallel.layout import AS_IT_LIES, Placement
from nft_jax.rollout.sampling import of_tokens
from nft_jax.types import Array, Tokens


def logp_and_entropy(
    model: Transformer,
    tokens: Tokens,
    target_BT: Array,
    temperature: float,
    chunk: int,
    placement: Placement = AS_IT_LIES,
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
        return tuple(x.reshape(B, chunk) for x in of_tokens(logits_MV, target_Bc.reshape(-1), temperature))

    def step(_, inputs):
        return None, of_chunk(*inputs)

    chunks = (
        jnp.moveaxis(hidden_BTD.reshape(B, count, chunk, D), 1, 0),
        jnp.moveaxis(target_BT.reshape(B, count, chunk), 1, 0),
    )
    _, results = jax.lax.scan(step, None, chunks)
    logp_BT, entropy_BT = (jnp.moveaxis(x, 0, 1).reshape(B, count * chunk)[:, :T] for x in results)
    return logp_BT, entropy_BT
