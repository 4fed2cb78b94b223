"""One decoder layer: RMSNorms, grouped queries with rotary positions, SwiGLU; the config says which parts it has.

Where to make changes: every product of a layer with a weight, except the down projection (`swiglu.py`) and those of
experts (`experts.py`), goes through `Block.project`, where an adapter (`lora.py`) adds its term. A new weight is
declared in `Block.__init__` with its logical axes (`parallel/layout.py` maps them to the mesh), and named as in Hugging
Face files in `hf/tensors.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from nft_jax.config import ModelConfig
from nft_jax.models.experts import mix_experts
from nft_jax.models.int8 import Int8Matrix
from nft_jax.models.norms import rms_norm
from nft_jax.models.on_cpus import multiply
from nft_jax.models.rope import Rope, layer_turn, rotate
from nft_jax.models.swiglu import activate, swiglu_down
from nft_jax.parallel.layout import UNCONSTRAINED, Placement
from nft_jax.types import Array


class Block(nnx.Module):
    """One layer over a flat list of M tokens: matrix units are fastest with two-dimensional activations."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        D, F, N, G, H = config.width, config.mlp_width, config.heads, config.kv_heads, config.head_size

        def matrix(inputs, outputs, axes, scale=1.0, experts=0):
            shape, axes = ((experts, inputs, outputs), ("experts", *axes)) if experts else ((inputs, outputs), axes)
            value = jax.random.normal(rngs.params(), shape) * (scale * inputs**-0.5)
            return nnx.Param(value, out_sharding=axes)

        def bias(outputs, axis):
            return nnx.Param(jnp.zeros(outputs), out_sharding=(axis,))

        def norm(size):
            return nnx.Param(jnp.full(size, 1.0 - config.norm_offset), out_sharding=("norm",))

        residual = (2 * config.layers) ** -0.5
        if config.norms != "after":
            self.attention_norm, self.mlp_norm = norm(D), norm(D)
        if config.norms != "before":
            self.attention_out_norm, self.mlp_out_norm = norm(D), norm(D)
        self.query = matrix(D, N * H, ("embed", "heads"))
        self.key = matrix(D, G * H, ("embed", "kv_heads"))
        self.value = matrix(D, G * H, ("embed", "kv_heads"))
        if config.qkv_bias:
            self.query_bias = bias(N * H, "heads")
            self.key_bias = bias(G * H, "kv_heads")
            self.value_bias = bias(G * H, "kv_heads")
        if config.qk_norm != "none":
            sizes = (H, H) if config.qk_norm == "head" else (N * H, G * H)
            self.query_norm, self.key_norm = map(norm, sizes)
        self.output = matrix(N * H, D, ("heads_in", "embed_out"), residual)
        if config.output_bias:
            self.output_bias = bias(D, "norm")
        if config.experts:
            self.router = matrix(D, config.experts, ("embed", "experts"))
        self.gate = matrix(D, F, ("embed", "mlp"), experts=config.experts)
        self.up = matrix(D, F, ("embed", "mlp"), experts=config.experts)
        self.down = matrix(F, D, ("mlp_in", "embed_out"), residual, config.experts)
        if config.mlp_bias:
            self.gate_bias, self.up_bias, self.down_bias = bias(F, "mlp"), bias(F, "mlp"), bias(D, "norm")
        self.config = config

    def __call__(
        self,
        x_MD: Array,
        rope: Rope,
        layer: Array,
        attend: Callable,
        placement: Placement = UNCONSTRAINED,
    ) -> tuple[Array, Any]:
        """Applies the layer.

        Args:
          x_MD: The residual stream, in the compute dtype.
          rope: The rotary positions of the tokens.
          layer: int32, the number of the layer, which decides its kind.
          attend: `(query_MNH, key_MGH, value_MGH) -> (out_MNH, state)`; `state` may be anything.
          placement: Lays out the residual stream over the mesh (`layout.layer_placement`).

        Returns:
          The residual stream `[M, D]` after the layer, and the `state` that `attend` returned.
        """
        out, state = attend(*self.read(x_MD, rope, layer))
        return self.add(x_MD, out, placement), state

    def read(self, x_MD: Array, rope: Rope, layer: Array) -> tuple[Array, Array, Array]:
        """Returns the queries `[M, N, H]`, keys and values `[M, G, H]` that attention reads."""
        config = self.config
        h_MD = self._normalize("attention_norm", x_MD)
        query, key, value = (self._project_heads(name, h_MD) for name in ("query", "key", "value"))
        turn = layer_turn(config, rope, layer)
        # Attention divides scores by √H. What the config divides them by instead is put into the queries, in float32.
        factor = (config.head_size / (config.query_scalar or config.head_size)) ** 0.5
        return rotate(query, turn, factor), rotate(key, turn), value

    def add(self, x_MD: Array, out: Array, placement: Placement = UNCONSTRAINED) -> Array:
        """Adds attention's output `[M, N, H]`, projected, and the feed-forward layer to the residual stream."""
        out_MD = self.project("output", out.reshape(out.shape[0], -1))
        x_MD = placement.tokens(x_MD + self._normalize("attention_out_norm", out_MD))
        out_MD = self._feed_forward(self._normalize("mlp_norm", x_MD), placement)
        return placement.tokens(x_MD + self._normalize("mlp_out_norm", out_MD))

    def project(self, name: str, x_MD: Array) -> Array:
        """Multiplies `[M, inputs]` by the weight `name`, adds its adapter's term and its bias if the layer has them."""
        weight, adapter = getattr(self, name)[...], getattr(self, f"{name}_adapter", None)
        out = x_MD @ weight if isinstance(weight, Int8Matrix) else multiply(x_MD, weight)
        return self._add_bias(name, out if adapter is None else out + adapter(x_MD))

    def _feed_forward(self, h_MD, placement):
        """Returns what the feed-forward layer, or the experts of each token, add to the residual stream."""
        config = self.config
        if config.experts:
            weights = tuple(getattr(self, name)[...] for name in ("router", "gate", "up", "down"))
            return placement.map_rows(lambda weights, h_MD: mix_experts(h_MD, *weights, config))(weights, h_MD)
        gate, up = self.project("gate", h_MD), self.project("up", h_MD)
        out_MD, adapter = swiglu_down(gate, up, self.down[...], config.activation), getattr(self, "down_adapter", None)
        out_MD = out_MD if adapter is None else out_MD + adapter(activate(gate, up, config.activation))
        return self._add_bias("down", out_MD)

    def _project_heads(self, name, x_MD):
        """Returns queries, keys or values by heads `[M, heads, H]`, with their norm, if the layer has one."""
        out = self.project(name, x_MD)
        norm = getattr(self, f"{name}_norm", None)
        if norm is not None:
            out = self._normalize(f"{name}_norm", out.reshape(out.shape[0], -1, norm.shape[-1]))
        return out.reshape(out.shape[0], -1, self.config.head_size)

    def _normalize(self, name, x):
        """Applies the norm `name`, if the layer has it."""
        scale = getattr(self, name, None)
        return x if scale is None else rms_norm(x, scale[...], self.config.norm_epsilon, self.config.norm_offset)

    def _add_bias(self, name, out):
        bias = getattr(self, f"{name}_bias", None)
        return out if bias is None else out + bias[...][None]
