"""The decoder of the Qwen2 family: RMSNorm, rotary positions, grouped queries, SwiGLU, biases on query, key and value.

Layers are stacked along a leading axis and scanned, so compile time doesn't grow with depth. Every weight names its
logical axes (`parallel/layout.py` maps them to the mesh). Weights are float32; the compute dtype is the config's.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from nft_jax.config import ModelConfig
from nft_jax.models.attention import MASKED, PromptKeys
from nft_jax.models.attention_backends import XLA, AttentionBackend
from nft_jax.models.attention_kernels import KEPT
from nft_jax.models.cache import Cache, cache_from_keys, write_token
from nft_jax.models.head import head_logits
from nft_jax.models.swiglu import swiglu_down
from nft_jax.parallel.layout import HOST_MEMORY, UNCONSTRAINED, Placement
from nft_jax.precision import accumulation_dtype
from nft_jax.types import Array, Prompts, Tokens

LAYER_INPUT = "layer_input"
# What a layer keeps for the backward pass, besides its input; "none" keeps everything.
REMAT = {
    "dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
    "attention": jax.checkpoint_policies.save_only_these_names(KEPT),
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[LAYER_INPUT],
        offload_src="device",
        offload_dst=HOST_MEMORY,
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Block(nnx.Module):
    """One layer, on a flat list of M tokens: projections of two-dimensional activations are what matmul units like."""

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
        self, x_MD: Array, position_M: Array, attend: Callable, lay: Callable = UNCONSTRAINED.tokens
    ) -> tuple[Array, tuple[Array, Array]]:
        """Applies the layer; `attend(query_MNH, key_MGH, value_MGH) -> [M, N, H]`. Also returns the keys and values.

        `lay` lays out the residual stream.
        """
        config = self.config
        h_MD = rms_norm(x_MD, self.attention_norm[...], config.norm_epsilon)
        query, key, value = h_MD @ self.query[...], h_MD @ self.key[...], h_MD @ self.value[...]
        if config.qkv_bias:
            query = query + self.query_bias[...][None]
            key = key + self.key_bias[...][None]
            value = value + self.value_bias[...][None]
        query, key, value = (x.reshape(x.shape[0], -1, config.head_size) for x in (query, key, value))
        query, key = (rotate(x, position_M, config.rope_theta) for x in (query, key))
        attended = attend(query, key, value)
        x_MD = lay(x_MD + attended.reshape(attended.shape[0], -1) @ self.output[...])
        h_MD = rms_norm(x_MD, self.mlp_norm[...], config.norm_epsilon)
        x_MD = lay(x_MD + swiglu_down(h_MD @ self.gate[...], h_MD @ self.up[...], self.down[...]))
        return x_MD, (key, value)


class Transformer(nnx.Module):
    """The decoder. The embedding has `config.vocab` rows, of which the first `vocabulary` are real token ids."""

    def __init__(self, config: ModelConfig, vocabulary: int, attention: AttentionBackend = XLA, *, rngs: nnx.Rngs):
        def table():
            value = jax.random.normal(rngs.params(), (config.vocab, config.width)) * 0.02
            return nnx.Param(value, out_sharding=("vocab", "embed_out"))

        @nnx.split_rngs(splits=config.layers)
        @nnx.vmap(in_axes=0, out_axes=0, transform_metadata={nnx.PARTITION_NAME: "layers"})
        def stack(rngs):
            return Block(config, rngs)

        self.embedding = table()
        self.blocks = stack(rngs)
        self.norm = nnx.Param(jnp.ones(config.width), out_sharding=("norm",))
        if not config.tied_embedding:
            self.head = table()
        self.config, self.vocabulary, self.attention = config, vocabulary, attention

    def __call__(
        self,
        tokens: Tokens,
        placement: Placement = UNCONSTRAINED,
        prompt: PromptKeys | None = None,
    ) -> Array:
        """Final hidden states `[B, T, D]` of packed rows.

        `placement` lays out each layer (`layer_placement`); `prompt` holds the keys of each row's prompt, of all
        layers, where the rows go on after a prompt that they don't hold.
        """
        hidden_BTD, _ = self._rows(tokens, self.attention.rows, placement, prompt, keep_keys=False)
        return hidden_BTD

    @property
    def stacks(self) -> int:
        """How many layers the decode loop's body holds, each with weights and a cache of its own."""
        return math.gcd(self.config.unrolled_layers, self.config.layers)

    def prompt_keys(self, prompts: Prompts, placement: Placement) -> tuple[Array, Array]:
        """Reads whole prompts; their keys and values `[L, Q, P, G, H]`."""
        return self._keys(prompts, self.attention.rows, placement)

    def prefill(self, prompts: Prompts, columns: int) -> Cache:
        """Reads whole prompts; their keys and values as a cache of Q slots, with blocks of `columns` columns.

        Called inside the rollout's `shard_map`.
        """
        keys = self._keys(prompts, self.attention.prompts, UNCONSTRAINED)
        return cache_from_keys(*keys, self.stacks, columns)

    def decode_weights(self) -> tuple[Any, ...]:
        """The layers' weights as `decode` wants them: cut into stacks before the loop, not at every token."""
        _, stacked = self._layers()
        return tuple(jax.tree.map(lambda x, u=u: x[u :: self.stacks], self._cast(stacked)) for u in range(self.stacks))

    def decode(self, layers: tuple[Any, ...], token_S: Array, column_S: Array, cache: Cache) -> tuple[Array, Cache]:
        """Reads one token of every slot, at its own column; its hidden state `[S, D]`, and the cache with it."""
        graph, _ = self._layers()

        def body(carry, inputs):
            x_SD, cache = carry
            weights_U, index = inputs
            for stack, weights in enumerate(weights_U):
                written = []

                def attend(query, key, value, stack=stack, cache=cache, written=written):
                    # First written, then read: a read of the older array would make XLA copy it.
                    written.append(write_token(cache, stack, index, key, value, column_S))
                    return self.attention.decode(query, column_S, written[0], stack, index)

                x_SD, _ = bind(graph, weights)(x_SD, column_S, attend)
                cache = written[0]
            return (x_SD, cache), None

        carry = self._embed(token_S), cache
        inputs = layers, jnp.arange(self.config.layers // self.stacks, dtype=jnp.int32)
        (hidden_SD, cache), _ = jax.lax.scan(body, carry, inputs)
        return self._final_norm(hidden_SD), cache

    def logits(self, hidden_MD: Array) -> Array:
        """Float32 logits `[M, V]`; columns of padded vocabulary rows are out of reach of sampler and trainer alike."""
        table = self.embedding if self.config.tied_embedding else self.head
        weights = table[...].astype(self.config.dtype)
        logits_MV = head_logits(hidden_MD, weights)
        real_V = jnp.arange(self.config.vocab) < self.vocabulary
        return jnp.where(real_V[None], logits_MV, MASKED)

    def _keys(self, prompts, attention, placement):
        Q, P = prompts.token_NP.shape
        column_QP = jnp.broadcast_to(jnp.arange(P, dtype=jnp.int32), (Q, P))
        segment_QP = jnp.where(column_QP < prompts.length_N[:, None], 0, -1)
        tokens = Tokens(prompts.token_NP, segment_QP, column_QP)
        _, keys = self._rows(tokens, attention, placement, None, keep_keys=True)
        return keys

    def _rows(self, tokens, attention, placement, prompt, *, keep_keys):
        B, T = tokens.token_BT.shape
        graph, stacked = self._layers()
        position_M = tokens.position_BT.reshape(-1)

        def attend(query, key, value, prompt):
            query, key, value = (x.reshape(B, T, *x.shape[1:]) for x in (query, key, value))
            operands = query, key, value, tokens.segment_BT
            attended = attention(*operands) if prompt is None else attention(*operands, prompt)
            return attended.reshape(B * T, *query.shape[2:])

        def layer(x_MD, inputs):
            weights, keys = inputs
            of_layer = None if prompt is None else PromptKeys(*keys, prompt.length_B)
            block = bind(graph, placement.weights(self._cast(weights)))
            attend_here = functools.partial(attend, prompt=of_layer)
            x_MD, (key, value) = block(checkpoint_name(x_MD, LAYER_INPUT), position_M, attend_here, placement.tokens)
            return x_MD, tuple(x.reshape(B, T, *x.shape[1:]) for x in (key, value)) if keep_keys else None

        if self.config.remat != "none":
            layer = jax.checkpoint(layer, policy=REMAT[self.config.remat])
        x_MD = placement.tokens(self._embed(tokens.token_BT.reshape(-1)))
        keys = None if prompt is None else (prompt.key_BPGH, prompt.value_BPGH)
        hidden_MD, kept = jax.lax.scan(layer, x_MD, (stacked, keys), unroll=self.config.unrolled_layers)
        return self._final_norm(hidden_MD).reshape(B, T, -1), kept

    def _layers(self):
        graph, stacked = nnx.split(self.blocks)
        return graph, nnx.to_pure_dict(stacked)

    def _embed(self, token_M):
        return self.embedding[...].astype(self.config.dtype)[token_M]

    def _final_norm(self, x_MD):
        return rms_norm(x_MD, self.norm[...].astype(self.config.dtype), self.config.norm_epsilon)

    def _cast(self, weights):
        return jax.tree.map(lambda x: x.astype(self.config.dtype), weights)


def rms_norm(x_MD: Array, scale_D: Array, epsilon: float) -> Array:
    """`x / sqrt(mean(x²) + epsilon) · scale`, the mean in float32."""
    wide_MD = x_MD.astype(accumulation_dtype(x_MD.dtype))
    inverse = jax.lax.rsqrt(jnp.mean(wide_MD * wide_MD, axis=-1, keepdims=True) + epsilon)
    return (wide_MD * inverse).astype(x_MD.dtype) * scale_D[None]


def rotate(x_MNH: Array, position_M: Array, theta: float) -> Array:
    """Rotary positions: pairs (i, i + H/2) turn by `position · theta^(−2i/H)`; angles in float32."""
    half, dtype = x_MNH.shape[-1] // 2, accumulation_dtype(x_MNH.dtype)
    frequency = theta ** (-jnp.arange(half, dtype=dtype) / half)
    angle = position_M.astype(dtype)[:, None, None] * frequency[None, None]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = jnp.split(x_MNH.astype(dtype), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x_MNH.dtype)


def abstract_model(
    config: ModelConfig, vocabulary: int, attention: AttentionBackend = XLA
) -> tuple[nnx.GraphDef, Any, Any]:
    """The model without weights: graph, tree of shapes, and tree of logical axes (PartitionSpecs of their names).

    The graph carries `attention`: whatever binds weights to it runs that one.
    """
    with nnx.use_eager_sharding(False):
        graph, state = nnx.split(nnx.eval_shape(lambda: Transformer(config, vocabulary, attention, rngs=nnx.Rngs(0))))
    return graph, nnx.to_pure_dict(state), nnx.to_pure_dict(nnx.get_partition_spec(state))


def initial_weights(config: ModelConfig, vocabulary: int, key: Array) -> Any:
    """Random float32 weights, as a nested dict."""
    with nnx.use_eager_sharding(False):
        model = Transformer(config, vocabulary, rngs=nnx.Rngs(params=key))
        return nnx.to_pure_dict(nnx.state(model))


def bind(graph: nnx.GraphDef, weights: Any) -> Any:
    """The module of `graph` with these weights (a nested dict, or tracers)."""
    return nnx.merge(graph, nnx.State(weights))
