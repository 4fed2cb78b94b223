"""SwiGLU and the projection behind it, with a backward pass of their own: fewer passes over `[M, F]`, fewer kept."""

import jax
import jax.numpy as jnp

from nft_jax.types import Array


@jax.custom_vjp
def swiglu_down(gate_MF: Array, up_MF: Array, down_FD: Array) -> Array:
    """`(silu(gate) · up) @ down`, `[M, D]`: Shazeer 2020 (arXiv 2002.05202)."""
    return _gated(gate_MF, up_MF) @ down_FD


def _gated(gate_MF, up_MF):
    return jax.nn.silu(gate_MF) * up_MF


def _forward(gate_MF, up_MF, down_FD):
    gated_MF = _gated(gate_MF, up_MF)
    return gated_MF @ down_FD, (gate_MF, up_MF, gated_MF, down_FD)


def _backward(kept, by_out_MD):
    gate_MF, up_MF, gated_MF, down_FD = kept
    by_gated_MF = by_out_MD @ down_FD.T
    share_MF = jax.nn.sigmoid(gate_MF)
    by_gate_MF = by_gated_MF * up_MF * (share_MF * (1 + gate_MF * (1 - share_MF)))
    by_up_MF = by_gated_MF * (gate_MF * share_MF)
    # XLA:CPU is half again as fast at a product whose narrow side comes first; without the barrier it turns it round.
    by_down_DF = jax.lax.optimization_barrier(jnp.einsum("md,mf->df", by_out_MD, gated_MF))
    return by_gate_MF, by_up_MF, by_down_DF.T


swiglu_down.defvjp(_forward, _backward)
