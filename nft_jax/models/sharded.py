"""A decoder on a mesh: its structure, and the shapes and layouts of its weights."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nft_jax.config import ModelConfig
from nft_jax.models import transformer
from nft_jax.models.attention_backends import AttentionBackend, select_attention
from nft_jax.parallel import layout
from nft_jax.randomness import stream


@dataclass(frozen=True)
class ShardedModel:
    """A decoder on a mesh, without values for its weights.

    Attributes:
      config: Shape and numerics, every size filled in.
      vocabulary: Number of ids that can be sampled, at most `config.vocab`.
      attention: Attention over rows of tokens on these devices.
      graph: The structure that `transformer.bind` joins with weights.
      shapes: Tree of the weights' shapes and dtypes (float32).
      axes: Tree of PartitionSpecs with the logical name of each axis of each weight.
    """

    config: ModelConfig
    vocabulary: int
    mesh: Mesh
    attention: AttentionBackend
    graph: nnx.GraphDef
    shapes: Any
    axes: Any

    @property
    def weight_specs(self) -> Any:
        """Tree of PartitionSpecs: the training layout of the weights."""
        return layout.specs(self.axes, layout.TRAINING)

    @property
    def whole(self) -> NamedSharding:
        """The layout of an array that is whole on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self.shapes))

    def abstract_weights(self) -> Any:
        """Returns shapes and layouts of the weights: what a checkpoint is read into."""
        return jax.tree.map(with_sharding, self.shapes, layout.shardings(self.mesh, self.weight_specs))

    def random_weights(self, seed: int) -> Any:
        """Draws weights from a seed, each directly in the training layout."""

        def init():
            return transformer.initial_weights(self.config, self.vocabulary, stream(seed, "weights"))

        return jax.jit(init, out_shardings=layout.shardings(self.mesh, self.weight_specs))()


def build_model(config: ModelConfig, vocabulary: int, mesh: Mesh) -> ShardedModel:
    """Builds the model's structure on a mesh; reads and allocates no weights.

    Raises:
      ValueError: When the mesh cannot run the chosen attention, or does not divide the weights.
    """
    attention = select_attention(config, mesh)
    graph, shapes, axes = transformer.abstract_model(config, vocabulary, attention)
    layout.check_divisible(shapes, axes, mesh)
    return ShardedModel(config, vocabulary, mesh, attention, graph, shapes, axes)


def with_sharding(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    """Returns the shape of an array with a layout."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
