"""How a token is drawn, and how its log-prob is computed: the numerics that sampler and trainer share."""

import jax
import jax.numpy as jnp

from nft_jax.types import Array


def scaled_log_softmax(logits_MV: Array, temperature: float) -> Array:
    """Float32 log-softmax of `logits / temperature`: the one distribution of sampler, trainer and old log-probs."""
    return jax.nn.log_softmax(logits_MV.astype(jnp.float32) / temperature, axis=-1)


def of_tokens(logits_MV: Array, token_M: Array, temperature: float) -> tuple[Array, Array]:
    """Log-probs of given tokens, as `scaled_log_softmax` gives them, and the entropy (nats): float32 `[M]` each.

    Sums over V alone leave the logits, and one exponential an element: at 150,000 columns, passes are what costs.
    """
    scaled_MV = logits_MV.astype(jnp.float32) / temperature
    shifted_MV = scaled_MV - jax.lax.stop_gradient(jnp.max(scaled_MV, axis=-1, keepdims=True))
    weight_MV = jnp.exp(shifted_MV)
    total_M = jnp.sum(weight_MV, axis=-1)
    chosen_M = jnp.take_along_axis(shifted_MV, token_M[:, None], axis=-1)[:, 0] - jnp.log(total_M)
    # −Σ p log p, with log p = shifted − log total; a masked column has weight exactly 0 and a finite `shifted`.
    entropy_M = jnp.log(total_M) - jnp.einsum("mv,mv->m", weight_MV, shifted_MV) / total_M
    return chosen_M, entropy_M


def request_keys(key: Array, request_B: Array) -> Array:
    """One key an answer, from its request number alone: a draw depends on no slot, shard or batch composition."""
    return jax.vmap(lambda request: jax.random.fold_in(key, request))(request_B)


def draw(logits_BV: Array, key_B: Array, column: Array, greedy_B: Array, temperature: float) -> tuple[Array, Array]:
    """Draws token `column` of each answer by Gumbel-max; returns tokens `[B]` int32 and log-probs `[B]` float32.

    The noise is a function of (seed, request, token). Where `greedy_B` the likeliest token is taken instead; its
    log-prob is still that of the sampling distribution.
    """
    logp_BV = scaled_log_softmax(logits_BV, temperature)

    def noise(key):
        return jax.random.gumbel(jax.random.fold_in(key, column), logp_BV.shape[1:], jnp.float32)

    score_BV = logp_BV + jnp.where(greedy_B[:, None], 0.0, jax.vmap(noise)(key_B))
    token_B = jnp.argmax(score_BV, axis=-1).astype(jnp.int32)
    return token_B, jnp.take_along_axis(logp_BV, token_B[:, None], axis=-1)[:, 0]
