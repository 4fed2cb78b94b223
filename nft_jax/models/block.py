"""One decoder layer of the Qwen2 family: RMSNorm, grouped queries with rotary positions, SwiGLU.

Where to make changes: every product of a layer with a weight, except the down projection (`swiglu.py`), goes through
`Block.project`, where an adapter such as LoRA would add its term. A norm of queries and keys (QK-norm) belongs in
`Block.__call__`, before `rotate`. A new weight is declared in `Block.__init__` with its logical axes
(`parallel/layout.py` maps them to the mesh) and mapped to its Hugging Face name in `hf/weights.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from nft_jax.config import ModelConfig
from nft_jax.models.swiglu import swiglu_down
from nft_jax.parallel.layout import UNCONSTRAINED
from nft_jax.precision import accumulation_dtype
from nft_jax.types import Array


class Block(nnx.Module):
    """One layer over a flat list of M tokens: matrix units are fastest with two-dimensional activations."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        D, F, N, G, H = config.width, config.mlp_width, config.heads, config.kv_heads, config.head_size

        def matrix(inputs, outputs, axes, scale=1.0):
            value = jax.random.normal(rngs.params(), (inputs, outputs)) * (scale * inputs**-0.5)
            return nnx.Param(value, out_sharding=axes)

        residual = (2 * config.layers) ** -0.5
        self.attention_norm = nnx.Param(jnp.ones(D), out_sharding=("norm",))
        self.query = matrix(D, N * H, ("embed", "heads"))
        self.key = matrix(D, G * H, ("embed", "kv_heads"))
        self.value = matrix(D, G * H, ("embed", "kv_heads"))
        if config.qkv_bias:
            self.query_bias = nnx.Param(jnp.zeros(N * H), out_sharding=("heads",))
            self.key_bias = nnx.Param(jnp.zeros(G * H), out_sharding=("kv_heads",))
            self.value_bias = nnx.Param(jnp.zeros(G * H), out_sharding=("kv_heads",))
        self.output = matrix(N * H, D, ("heads_in", "embed_out"), residual)
        self.mlp_norm = nnx.Param(jnp.ones(D), out_sharding=("norm",))
        self.gate = matrix(D, F, ("embed", "mlp"))
        self.up = matrix(D, F, ("embed", "mlp"))
        self.down = matrix(F, D, ("mlp_in", "embed_out"), residual)
        self.config = config

    def __call__(
        self, x_MD: Array, position_M: Array, attend: Callable, constrain: Callable = UNCONSTRAINED.tokens
    ) -> tuple[Array, Any]:
        """Applies the layer.

        Args:
          x_MD: The residual stream, in the compute dtype.
          position_M: int32, each token's position in its sequence.
          attend: `(query_MNH, key_MGH, value_MGH) -> (out_MNH, state)`; `state` may be anything.
          constrain: Lays out the residual stream over the mesh.

        Returns:
          The residual stream `[M, D]` after the layer, and the `state` that `attend` returned.
        """
        config = self.config
        h_MD = rms_norm(x_MD, self.attention_norm[...], config.norm_epsilon)
        query, key, value = (self.project(name, h_MD) for name in ("query", "key", "value"))
        query, key, value = (x.reshape(x.shape[0], -1, config.head_size) for x in (query, key, value))
        query, key = (rotate(x, position_M, config.rope_theta) for x in (query, key))
        out, state = attend(query, key, value)
        x_MD = constrain(x_MD + self.project("output", out.reshape(out.shape[0], -1)))
        h_MD = rms_norm(x_MD, self.mlp_norm[...], config.norm_epsilon)
        x_MD = constrain(x_MD + swiglu_down(self.project("gate", h_MD), self.project("up", h_MD), self.down[...]))
        return x_MD, state

    def project(self, name: str, x_MD: Array) -> Array:
        """Multiplies `[M, inputs]` by the weight `name` and adds its bias, if the layer has one: `[M, outputs]`."""
        out = x_MD @ getattr(self, name)[...]
        bias = getattr(self, f"{name}_bias", None)
        return out if bias is None else out + bias[...][None]


def rms_norm(x_MD: Array, scale_D: Array, epsilon: float) -> Array:
    """Computes `x / sqrt(mean(x²) + epsilon) · scale`, with the mean in float32: Zhang 2019 (arXiv 1910.07467)."""
    wide_MD = x_MD.astype(accumulation_dtype(x_MD.dtype))
    inverse = jax.lax.rsqrt(jnp.mean(wide_MD * wide_MD, axis=-1, keepdims=True) + epsilon)
    return (wide_MD * inverse).astype(x_MD.dtype) * scale_D[None]


def rotate(x_MNH: Array, position_M: Array, theta: float) -> Array:
    """Applies rotary positions: pair (i, i + H/2) turns by `position · theta^(−2i/H)`, with angles in float32.

    Su et al. 2021 (arXiv 2104.09864).
    """
    half, dtype = x_MNH.shape[-1] // 2, accumulation_dtype(x_MNH.dtype)
    frequency = theta ** (-jnp.arange(half, dtype=dtype) / half)
    angle = position_M.astype(dtype)[:, None, None] * frequency[None, None]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = jnp.split(x_MNH.astype(dtype), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x_MNH.dtype)
