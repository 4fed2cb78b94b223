"""The decoder: embedding, a scan over stacked layers (`block.py`), final norm and head; forward, prefill, decode.

Layers are stacked along a leading axis and scanned, so compile time does not grow with depth. Weights are float32; the
compute dtype is the config's. Every weight names its logical axes (`parallel/layout.py` maps them to the mesh).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from nft_jax.config import LoraConfig, ModelConfig
from nft_jax.models import bitwise
from nft_jax.models.attention import MASK_VALUE, PromptKeys, Window
from nft_jax.models.attention_backends import XLA, AttentionBackend
from nft_jax.models.attention_kernels import CHECKPOINT_NAME
from nft_jax.models.block import Block
from nft_jax.models.cache import Cache, block_columns, cache_from_keys, write_token
from nft_jax.models.head import head_logits
from nft_jax.models.int8 import cast_weights
from nft_jax.models.lora import NO_ADAPTERS, add_adapters
from nft_jax.models.norms import rms_norm
from nft_jax.models.rope import make_rope
from nft_jax.models.scan import scan_in_place
from nft_jax.models.windows import first_position
from nft_jax.parallel.layout import HOST_MEMORY, UNCONSTRAINED, Placement
from nft_jax.types import Array, Prompts, Tokens

LAYER_INPUT = "layer_input"
# What a layer keeps for the backward pass besides its input; "none" keeps everything.
REMAT = {
    "dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
    "attention": jax.checkpoint_policies.save_only_these_names(CHECKPOINT_NAME),
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[LAYER_INPUT],
        offload_src="device",
        offload_dst=HOST_MEMORY,
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Transformer(nnx.Module):
    """The decoder. The embedding has `config.vocab` rows; the first `vocabulary` of them are real token ids."""

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
        self.norm = nnx.Param(jnp.full(config.width, 1.0 - config.norm_offset), out_sharding=("norm",))
        if not config.tied_embedding:
            self.head = table()
        self.config, self.vocabulary, self.attention = config, vocabulary, attention

    def __call__(
        self,
        tokens: Tokens,
        placement: Placement = UNCONSTRAINED,
        prompt: PromptKeys | None = None,
    ) -> Array:
        """Returns the final hidden states `[B, T, D]` of packed rows.

        Args:
          placement: Lays out each layer's weights and the residual stream (`layout.layer_placement`).
          prompt: The keys and values of each row's prompt, for all layers, if the rows continue prompts that they do
            not contain.
        """
        tokens = tokens._replace(segment_BT=self.attention.describe(tokens.segment_BT))
        hidden_BTD, _ = self._forward(tokens, self.attention.rows, placement, prompt, keep_keys=False)
        return hidden_BTD

    @property
    def stacks(self) -> int:
        """How many layers the body of the decode loop contains, each with its own weights and cache."""
        return math.gcd(self.config.unrolled_layers, self.config.layers)

    def block_columns(self, tokens: int) -> int:
        """Returns the columns of a block of the cache for sequences of up to `tokens` tokens."""
        if self.config.bitwise:
            return bitwise.BLOCK_COLUMNS
        return block_columns(tokens, token_major=self.attention.token_major)

    def prompt_keys(self, prompts: Prompts, placement: Placement) -> tuple[Array, Array]:
        """Reads whole prompts and returns their keys and values `[L, Q, P, G, H]`."""
        return self._read_prompts(prompts, self.attention.rows, placement, describe=self.attention.describe)

    def prefill(self, prompts: Prompts, columns: int) -> Cache:
        """Reads whole prompts into a cache of Q slots with blocks of `columns` columns.

        Called inside the rollout's `shard_map`.
        """
        keys = self._read_prompts(prompts, self.attention.prompts, UNCONSTRAINED, scan=scan_in_place)
        return cache_from_keys(*keys, self.stacks, columns)

    def decode_weights(self) -> tuple[Any, ...]:
        """Returns the layers' weights for `decode`, cut into stacks once before the loop instead of at every token."""
        _, stacked = self._split_layers()
        return tuple(jax.tree.map(lambda x, u=u: x[u :: self.stacks], self._cast(stacked)) for u in range(self.stacks))

    def decode(self, layers: tuple[Any, ...], token_S: Array, column_S: Array, cache: Cache) -> tuple[Array, Cache]:
        """Reads one token of every slot at its own column.

        Args:
          layers: The weights as `decode_weights` returns them.
          token_S: int32, the token of each slot.
          column_S: int32, the cache column that it gets, which is also its position.
          cache: The keys and values of the tokens before.

        Returns:
          The hidden states `[S, D]`, and the cache with the token's keys and values.
        """
        graph, _ = self._split_layers()
        attention = bitwise.attend_cache if self.config.bitwise else self.attention.decode
        rope = self._rope(column_S)

        def body(carry, inputs):
            x_SD, cache = carry
            weights_Z, index = inputs
            for stack, weights in enumerate(weights_Z):
                number = index * self.stacks + stack
                first_S = first_position(self.config, number, column_S)
                options = () if first_S is None else (first_S,)

                def attend(query, key, value, stack=stack, cache=cache, options=options):
                    # Writing first lets XLA update in place: a later read of the older array would force a copy.
                    cache = write_token(cache, stack, index, key, value, column_S)
                    return attention(query, column_S, cache, stack, index, *options), cache

                x_SD, cache = self._apply(graph, weights, x_SD, rope, number, attend, UNCONSTRAINED)
            return (x_SD, cache), None

        carry = self._embed(token_S), cache
        inputs = layers, jnp.arange(self.config.layers // self.stacks, dtype=jnp.int32)
        (hidden_SD, cache), _ = jax.lax.scan(body, carry, inputs)
        return self._final_norm(hidden_SD), cache

    def logits(self, hidden_MD: Array, placement: Placement = UNCONSTRAINED) -> Array:
        """Returns float32 logits `[M, V]`; padded vocabulary rows get `MASK_VALUE`, so they have probability 0."""
        table = self.embedding if self.config.tied_embedding else self.head

        def compute(weights, hidden_MD):
            logits_MV = head_logits(hidden_MD, weights)
            real_V = jnp.arange(self.config.vocab) < self.vocabulary
            return jnp.where(real_V[None], logits_MV, MASK_VALUE)

        return self.map_rows(compute, placement)(table[...].astype(self.config.dtype), hidden_MD)

    def map_rows(self, function: Callable, placement: Placement = UNCONSTRAINED) -> Callable:
        """Returns `function(whole, *rows)`, by blocks of rows if sampler and trainer must agree in every bit."""
        return bitwise.map_rows(function, placement) if self.config.bitwise else function

    def _apply(self, graph, weights, x_MD, rope, number, attend, placement):
        """Applies layer number `number`; returns what `Block.__call__` does."""
        if not self.config.bitwise:
            return bind(graph, weights)(x_MD, rope, number, attend, placement)

        def read(whole, x_MD, rope):
            weights, number = whole
            return bind(graph, weights).read(x_MD, rope, number)

        def add(weights, x_MD, out_MNH):
            return bind(graph, weights).add(x_MD, out_MNH)

        query, key, value = self.map_rows(read, placement)((weights, number), x_MD, rope)
        out_MNH, state = attend(query, key, value)
        return self.map_rows(add, placement)(weights, x_MD, out_MNH), state

    def _read_prompts(self, prompts, attention, placement, *, describe=XLA.describe, scan=jax.lax.scan):
        """Returns the keys and values `[L, Q, P, G, H]` of prompts, one prompt a row."""
        Q, P = prompts.token_QP.shape
        column_QP = jnp.broadcast_to(jnp.arange(P, dtype=jnp.int32), (Q, P))
        segment_QP = jnp.where(column_QP < prompts.length_Q[:, None], 0, -1)
        tokens = Tokens(prompts.token_QP, describe(segment_QP), column_QP)
        _, keys = self._forward(tokens, attention, placement, None, keep_keys=True, scan=scan)
        return keys

    def _forward(self, tokens, attention, placement, prompt, *, keep_keys, scan=jax.lax.scan):
        """Returns the final hidden states `[B, T, D]`, and keys and values `[L, B, T, G, H]` if `keep_keys`."""
        B, T = tokens.token_BT.shape
        graph, stacked = self._split_layers()
        attention = bitwise.attend_rows(placement) if self.config.bitwise else attention
        rope = self._rope(tokens.position_BT.reshape(-1), placement)

        def attend(query, key, value, prompt, first_BT):
            query, key, value = (x.reshape(B, T, *x.shape[1:]) for x in (query, key, value))
            window = None if first_BT is None else Window(tokens.position_BT, first_BT)
            # Kernels take no window, and most of them no prompt.
            options = () if prompt is None and window is None else (prompt, window)
            out = attention(query, key, value, tokens.segment_BT, *options)
            return out.reshape(B * T, *query.shape[2:]), (key, value) if keep_keys else None

        def layer(x_MD, inputs):
            weights, keys, number = inputs
            of_layer = None if prompt is None else PromptKeys(*keys, prompt.length_B)
            weights = placement.weights(self._cast(weights))
            x_MD = checkpoint_name(x_MD, LAYER_INPUT)
            first_BT = first_position(self.config, number, tokens.position_BT)
            attend_layer = functools.partial(attend, prompt=of_layer, first_BT=first_BT)
            return self._apply(graph, weights, x_MD, rope, number, attend_layer, placement)

        if self.config.remat != "none":
            layer = jax.checkpoint(layer, policy=REMAT[self.config.remat])
        x_MD = placement.tokens(self._embed(tokens.token_BT.reshape(-1)))
        keys = None if prompt is None else (prompt.key_BPGH, prompt.value_BPGH)
        inputs = stacked, keys, jnp.arange(self.config.layers, dtype=jnp.int32)
        hidden_MD, kept = scan(layer, x_MD, inputs, unroll=self.config.unrolled_layers)
        return self._final_norm(hidden_MD, placement).reshape(B, T, -1), kept

    def _split_layers(self):
        """Returns the graph of one layer and the stacked weights of all layers."""
        graph, stacked = nnx.split(self.blocks)
        return graph, nnx.to_pure_dict(stacked)

    def _embed(self, token_M):
        x_MD = self.embedding[...].astype(self.config.dtype)[token_M]
        return x_MD * jnp.asarray(self.config.width**0.5, x_MD.dtype) if self.config.embedding_scaled else x_MD

    def _rope(self, position_M, placement=UNCONSTRAINED):
        return self.map_rows(lambda _, position_M: make_rope(self.config, position_M), placement)(None, position_M)

    def _final_norm(self, x_MD, placement=UNCONSTRAINED):
        def compute(scale_D, x_MD):
            return rms_norm(x_MD, scale_D, self.config.norm_epsilon, self.config.norm_offset)

        return self.map_rows(compute, placement)(self.norm[...].astype(self.config.dtype), x_MD)

    def _cast(self, weights):
        return cast_weights(weights, self.config.dtype)


class AbstractModel(NamedTuple):
    """A model without weights.

    Attributes:
      graph: The module's graph, which carries its attention backend; `bind` adds weights.
      shapes: Nested dict of `ShapeDtypeStruct`s.
      axes: Nested dict of the logical axes of each weight, as PartitionSpecs of their names.
    """

    graph: nnx.GraphDef
    shapes: Any
    axes: Any


def abstract_model(
    config: ModelConfig, vocabulary: int, attention: AttentionBackend = XLA, lora: LoraConfig = NO_ADAPTERS
) -> AbstractModel:
    """Builds the model without weights; with adapters, if `lora` has a rank."""

    def build():
        model = Transformer(config, vocabulary, attention, rngs=nnx.Rngs(0))
        add_adapters(model.blocks, lora)
        return model

    with nnx.use_eager_sharding(False):
        graph, state = nnx.split(nnx.eval_shape(build))
    return AbstractModel(graph, nnx.to_pure_dict(state), nnx.to_pure_dict(nnx.get_partition_spec(state)))


def initial_weights(config: ModelConfig, vocabulary: int, key: Array) -> Any:
    """Returns random float32 weights as a nested dict."""
    with nnx.use_eager_sharding(False):
        model = Transformer(config, vocabulary, rngs=nnx.Rngs(params=key))
        return nnx.to_pure_dict(nnx.state(model))


def bind(graph: nnx.GraphDef, weights: Any) -> Any:
    """Returns the module of `graph` with these weights, a nested dict of arrays or tracers."""
    return nnx.merge(graph, nnx.State(weights))
