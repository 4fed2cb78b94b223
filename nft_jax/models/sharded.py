"""A decoder on a mesh: its structure, and the shapes and layouts of its weights."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nft_jax.config import LoraConfig, ModelConfig
from nft_jax.config.sections import LORA_TARGETS
from nft_jax.models import transformer
from nft_jax.models.attention_backends import AttentionBackend, select_attention
from nft_jax.models.int8 import quantize_layers, quantize_specs, quantize_stack
from nft_jax.models.lora import NO_ADAPTERS, initial_adapters, join_weights, split_weights
from nft_jax.models.transformer import AbstractModel
from nft_jax.parallel import layout
from nft_jax.randomness import stream
from nft_jax.types import Array


@dataclass(frozen=True)
class ShardedModel:
    """A decoder on a mesh, without values for its weights.

    Attributes:
      config: Shape and numerics, every size filled in.
      vocabulary: Number of ids that can be sampled, at most `config.vocab`.
      attention: Attention over rows of tokens on these devices.
      lora: The adapters that the weights include, if their rank is not 0.
      graph: The structure that `transformer.bind` joins with weights.
      shapes: Tree of the weights' shapes and dtypes: float32, but the format of frozen ones beside adapters.
      axes: Tree of PartitionSpecs with the logical name of each axis of each weight.
      base: The model without adapters, which the sampler runs unless the frozen weights are in int8.
    """

    config: ModelConfig
    vocabulary: int
    mesh: Mesh
    attention: AttentionBackend
    lora: LoraConfig
    graph: nnx.GraphDef
    shapes: Any
    axes: Any
    base: AbstractModel

    @property
    def weight_specs(self) -> Any:
        """Tree of PartitionSpecs: the training layout of the weights."""
        return layout.specs(self.axes, layout.TRAINING)

    @property
    def trained_axes(self) -> Any:
        """The logical axes of the weights that train."""
        return split_weights(self.axes)[0]

    def abstract_trained(self) -> Any:
        """Returns shapes and layouts of the weights that train: what a checkpoint's are read into."""
        return split_weights(self.abstract_weights())[0]

    @property
    def whole(self) -> NamedSharding:
        """The layout of an array that is whole on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def parameters(self) -> int:
        """Number of weights, without adapters."""
        return count_weights(self.base.shapes)

    @property
    def adapters(self) -> int:
        """Number of weights of the adapters; 0 without."""
        return count_weights(self.trained_shapes) if self.lora.rank else 0

    @property
    def trained_shapes(self) -> Any:
        """The shapes of the weights that train."""
        return split_weights(self.shapes)[0]

    @property
    def sampled(self) -> tuple[nnx.GraphDef, Any]:
        """Structure and logical axes of the model that the sampler runs: with adapters only if they are not merged."""
        of_model = self if self.merge_scale is None else self.base
        return of_model.graph, of_model.axes

    @property
    def merge_scale(self) -> float | None:
        """Factor of the adapters' terms in the sampler's weights; None if they are not merged into these."""
        return None if self.lora.base == "int8" else self.lora.scale

    def abstract_weights(self) -> Any:
        """Returns shapes and layouts of all weights."""
        return jax.tree.map(with_sharding, self.shapes, layout.shardings(self.mesh, self.weight_specs))

    def abstract_base(self) -> Any:
        """Returns shapes and layouts of the weights without adapters."""
        return jax.tree.map(with_sharding, self.base.shapes, self._shardings(self.base.axes))

    def random_weights(self, seed: int) -> Any:
        """Draws weights from a seed; adapters begin as `start_adapters` says."""
        return self.start_adapters(self.freeze_all(self.random_base(seed)), seed)

    def freeze(self, name: str, weight: Array) -> Any:
        """Returns a weight of the model without adapters in the format in which it is frozen beside adapters."""
        if self.lora.base != "int8" or name not in LORA_TARGETS:
            return weight
        spec = layout.specs(self.axes["blocks"][name], layout.TRAINING)
        return jax.jit(quantize_stack, out_shardings=layout.shardings(self.mesh, spec))(weight)

    def freeze_all(self, base: Any) -> Any:
        """Returns the weights of the model without adapters as `freeze` does."""
        return base | {"blocks": {name: self.freeze(name, weight) for name, weight in base["blocks"].items()}}

    def random_base(self, seed: int) -> Any:
        """Draws weights without adapters from a seed, each directly in the training layout."""

        def init():
            weights = transformer.initial_weights(self.config, self.vocabulary, stream(seed, "weights"))
            return jax.tree.map(lambda x, like: x.astype(like.dtype), weights, self.base.shapes)

        return jax.jit(init, out_shardings=self._shardings(self.base.axes))()

    def start_adapters(self, base: Any, seed: int) -> Any:
        """Returns frozen weights together with adapters that change nothing yet."""
        trained, frozen = split_weights(self.shapes)
        if frozen is None:
            return base

        def init():
            return initial_adapters(trained, stream(seed, "adapters"))

        return join_weights(jax.jit(init, out_shardings=self._shardings(self.trained_axes))(), base)

    def _shardings(self, axes):
        return layout.shardings(self.mesh, layout.specs(axes, layout.TRAINING))


def build_model(config: ModelConfig, vocabulary: int, mesh: Mesh, lora: LoraConfig = NO_ADAPTERS) -> ShardedModel:
    """Builds the model's structure on a mesh; reads and allocates no weights.

    Raises:
      ValueError: When the mesh cannot run the chosen attention, or does not divide the weights.
    """
    attention = select_attention(config, mesh)
    base = model = transformer.abstract_model(config, vocabulary, attention)
    layout.check_divisible(base.shapes, base.axes, mesh)
    if lora.rank:
        frozen = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, config.dtype), base.shapes)
        model = transformer.abstract_model(config, vocabulary, attention, lora)
        base = base._replace(shapes=frozen)
        axes = model.axes
        if lora.base == "int8":
            frozen, axes = jax.eval_shape(quantize_layers, frozen), quantize_specs(axes)
        model = model._replace(shapes=join_weights(split_weights(model.shapes)[0], frozen), axes=axes)
    return ShardedModel(config, vocabulary, mesh, attention, lora, *model, base)


def count_weights(tree: Any) -> int:
    """Returns the number of weights in a tree of arrays or shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def with_sharding(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    """Returns the shape of an array with a layout."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
