"""SwiGLU (or GeGLU) and the down projection in one function; its backward pass stores fewer `[M, F]` arrays."""

import functools
import math

import jax
import jax.numpy as jnp

from nft_jax.models.int8 import Int8Matrix
from nft_jax.models.on_cpus import transpose_left
from nft_jax.precision import accumulation_dtype
from nft_jax.types import Array


def swiglu_down(gate_MF: Array, up_MF: Array, down_FD: Array | Int8Matrix, activation: str = "silu") -> Array:
    """Computes `(activation(gate) · up) @ down`, `[M, D]`: Shazeer 2020 (arXiv 2002.05202)."""
    if isinstance(down_FD, Int8Matrix):
        return activate(gate_MF, up_MF, activation) @ down_FD
    return _swiglu_down(gate_MF, up_MF, down_FD, activation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _swiglu_down(gate_MF, up_MF, down_FD, activation):
    return activate(gate_MF, up_MF, activation) @ down_FD


def activate(gate_MF: Array, up_MF: Array, activation: str = "silu") -> Array:
    """Computes `activation(gate) · up`."""
    return _ACTIVATIONS[activation](gate_MF)[0] * up_MF


def _silu(x_MF):
    """Returns silu and its derivative."""
    sigmoid_MF = jax.nn.sigmoid(x_MF)
    return x_MF * sigmoid_MF, sigmoid_MF * (1 + x_MF * (1 - sigmoid_MF))


def _gelu_tanh(x_MF):
    """Returns `x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2`, whose sum cancels in 16 bits, and its derivative."""
    wide_MF, slope = x_MF.astype(accumulation_dtype(x_MF.dtype)), math.sqrt(2 / math.pi)
    tanh_MF = jnp.tanh(slope * wide_MF * (1 + 0.044715 * wide_MF * wide_MF))
    of_tanh_MF = (1 - tanh_MF * tanh_MF) * slope * (1 + 3 * 0.044715 * wide_MF * wide_MF)
    value_MF, derivative_MF = wide_MF * (1 + tanh_MF) / 2, (1 + tanh_MF + wide_MF * of_tanh_MF) / 2
    return value_MF.astype(x_MF.dtype), derivative_MF.astype(x_MF.dtype)


_ACTIVATIONS = {"silu": _silu, "gelu_tanh": _gelu_tanh}


def _forward(gate_MF, up_MF, down_FD, activation):
    active_MF = activate(gate_MF, up_MF, activation)
    return active_MF @ down_FD, (gate_MF, up_MF, active_MF, down_FD)


def _backward(activation, residuals, d_out_MD):
    gate_MF, up_MF, active_MF, down_FD = residuals
    # Computed anew from the gate, which costs less than to keep what the forward pass makes of it in memory.
    gate_MF = jax.lax.optimization_barrier(gate_MF)
    d_active_MF = d_out_MD @ down_FD.T
    value_MF, derivative_MF = _ACTIVATIONS[activation](gate_MF)
    d_gate_MF = d_active_MF * up_MF * derivative_MF
    d_up_MF = d_active_MF * value_MF
    return d_gate_MF, d_up_MF, transpose_left(active_MF) @ d_out_MD


_swiglu_down.defvjp(_forward, _backward)
