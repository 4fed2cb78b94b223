"""SwiGLU and the down projection in one function, whose backward pass reads and stores fewer `[M, F]` arrays."""

import jax
import jax.numpy as jnp

from nft_jax.types import Array


@jax.custom_vjp
def swiglu_down(gate_MF: Array, up_MF: Array, down_FD: Array) -> Array:
    """Computes `(silu(gate) · up) @ down`, `[M, D]`: Shazeer 2020 (arXiv 2002.05202)."""
    return activate(gate_MF, up_MF) @ down_FD


def activate(gate_MF: Array, up_MF: Array) -> Array:
    """Computes `silu(gate) · up`."""
    return jax.nn.silu(gate_MF) * up_MF


def _forward(gate_MF, up_MF, down_FD):
    active_MF = activate(gate_MF, up_MF)
    return active_MF @ down_FD, (gate_MF, up_MF, active_MF, down_FD)


def _backward(residuals, d_out_MD):
    gate_MF, up_MF, active_MF, down_FD = residuals
    d_active_MF = d_out_MD @ down_FD.T
    sigmoid_MF = jax.nn.sigmoid(gate_MF)
    d_gate_MF = d_active_MF * up_MF * (sigmoid_MF * (1 + gate_MF * (1 - sigmoid_MF)))
    d_up_MF = d_active_MF * (gate_MF * sigmoid_MF)
    # XLA:CPU is 1.5 times as fast when a product's narrow side comes first. Without the barrier it swaps the sides.
    d_down_DF = jax.lax.optimization_barrier(jnp.einsum("md,mf->df", d_out_MD, active_MF))
    return d_gate_MF, d_up_MF, d_down_DF.T


swiglu_down.defvjp(_forward, _backward)
