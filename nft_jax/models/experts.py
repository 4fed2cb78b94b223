"""Mixture of experts: a router sends each token to K of E feed-forward networks and adds their weighted outputs.

The (token, expert) pairs are sorted by expert, so that each product with the experts' weights is one grouped matrix
product, `jax.lax.ragged_dot`. No expert has a capacity, so no token is dropped, and a token's output depends on no
other token.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from nft_jax.config import ModelConfig
from nft_jax.models.swiglu import activate
from nft_jax.precision import accumulation_dtype
from nft_jax.types import Array

EXPERT_WEIGHTS = ("gate", "up", "down")  # of a layer; each expert has its own


def route(scores_ME: Array, config: ModelConfig) -> tuple[Array, Array]:
    """Chooses the experts of each token.

    The probabilities are softmax(scores) over all experts, in float32. Those of the chosen experts are divided by their
    sum if the config says so (Qwen3 technical report, arXiv 2505.09388, section 2).

    Args:
      scores_ME: The router's products, in the compute dtype.

    Returns:
      The weights of the chosen experts `[M, K]` in the dtype of the scores, largest first, and their numbers, int32.
    """
    probability_ME = jax.nn.softmax(scores_ME.astype(accumulation_dtype(scores_ME.dtype)), axis=-1)
    weight_MK, expert_MK = jax.lax.top_k(probability_ME, config.experts_per_token)
    if config.experts_normalized:
        weight_MK = weight_MK / jnp.sum(weight_MK, axis=-1, keepdims=True)
    return weight_MK.astype(scores_ME.dtype), expert_MK


def mix_experts(
    x_MD: Array, router_DE: Array, gate_EDF: Array, up_EDF: Array, down_EFD: Array, config: ModelConfig
) -> Array:
    """Computes `Σ_k weight_k · (activation(x gate_k) · (x up_k)) down_k` over the K experts of each token, `[M, D]`."""
    weight_MK, expert_MK = route(x_MD @ router_DE, config)
    M, K = expert_MK.shape
    expert_C = expert_MK.reshape(-1)
    order_C = jnp.argsort(expert_C, stable=True)
    size_E = jnp.bincount(expert_C, length=config.experts).astype(jnp.int32)
    h_CD = x_MD[order_C // K]
    gate_CF, up_CF = (_multiply(h_CD, weights, size_E) for weights in (gate_EDF, up_EDF))
    sorted_CD = _multiply(activate(gate_CF, up_CF, config.activation), down_EFD, size_E)
    out_MKD = sorted_CD[jnp.argsort(order_C)].reshape(M, K, -1)
    sums = accumulation_dtype(x_MD.dtype)
    return jnp.sum(out_MKD.astype(sums) * weight_MK.astype(sums)[..., None], axis=1).astype(x_MD.dtype)


def _one_at_a_time(function: Callable) -> Callable:
    """Returns `function`, which `vmap` applies to one element of the mapped axis after the other.

    JAX can't map grouped products whose weights are not mapped. On a mesh, the mapped axis is that of replicas, and a
    device has one of them.
    """
    function = jax.custom_batching.custom_vmap(function)

    @function.def_vmap
    def apply(size, is_mapped, *operands):
        def one(index):
            pairs = zip(operands, is_mapped, strict=True)
            return function(*(operand[index] if mapped else operand for operand, mapped in pairs))

        out = jax.tree.map(lambda *each: jnp.stack(each), *map(one, range(size)))
        return out, jax.tree.map(lambda _: True, out)

    return function


_products = _one_at_a_time(jax.lax.ragged_dot)


@_one_at_a_time
def _gradients(x_CI, weights_EIO, size_E, gradient_CO):
    _, pull = jax.vjp(lambda *operands: jax.lax.ragged_dot(*operands, size_E), x_CI, weights_EIO)
    return pull(gradient_CO)


@jax.custom_vjp
def _multiply(x_CI: Array, weights_EIO: Array, size_E: Array) -> Array:
    """Multiplies the rows, sorted by expert, by the weights of their experts."""
    return _products(x_CI, weights_EIO, size_E)


def _forward(*operands):
    return _products(*operands), operands


def _backward(operands, gradient_CO):
    return (*_gradients(*operands, gradient_CO), None)


_multiply.defvjp(_forward, _backward)
