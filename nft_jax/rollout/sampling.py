"""How a token is drawn, and how its log-prob is computed: the numerics that sampler and trainer share."""

import jax
import jax.numpy as jnp

from nft_jax.types import Array


def scaled_log_softmax(logits_MV: Array, temperature: float) -> Array:
    """Float32 log-softmax of `logits / temperature`: the one distribution of sampler, trainer and old log-probs."""
    return jax.nn.log_softmax(logits_MV.astype(jnp.float32) / temperature, axis=-1)


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
