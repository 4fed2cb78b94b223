"""Weights in int8: each matrix of a layer is a matrix of integers times a scale for each output channel.

The sampler may read such weights (`rollout.weights`), and adapters may train on them (`lora.base`).

The scale of a channel is its largest |weight| / 127, so that no weight is off by more than half a scale, and 0 stays 0.
Embedding, head, norms and biases keep their format, as in weight-only schemes of other libraries. Integers and scales
have no gradient; that of x goes through them.

Libraries that quantize models (qwix, AQT) replace the products of whole modules while these are traced. Here weights
are a plain tree that the step casts, lays out and binds, and one value with its own product fits that tree.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from nft_jax.config.sections import LORA_TARGETS
from nft_jax.precision import accumulation_dtype
from nft_jax.types import Array

LARGEST = 127  # of int8; −128 is left out, so that the range is symmetric


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8Matrix:
    """A matrix `values · scale`, which stands on the right side of a product.

    Attributes:
      values: int8 `[…, inputs, outputs]`.
      scale: float32 `[…, 1, outputs]`.
    """

    values: Any
    scale: Any

    def __getitem__(self, key: Any) -> "Int8Matrix":
        """Indexes the leading axes; `[...]` is how a layer reads its weights."""
        return Int8Matrix(self.values[key], self.scale[key])

    def __rmatmul__(self, x_MD: Array) -> Array:
        """Computes `x @ (values · scale)` in the dtype of x; integers up to 127 are exact in all of them."""
        sums = accumulation_dtype(x_MD.dtype)
        out = jnp.matmul(x_MD, self.values.astype(x_MD.dtype), preferred_element_type=sums)
        return (out * self.scale).astype(x_MD.dtype)

    def astype(self, dtype: Any) -> Array:
        """Returns the matrix itself, computed in the format of the scales and rounded once."""
        return (self.values.astype(self.scale.dtype) * self.scale).astype(dtype)


def quantize_layers(weights: Any) -> Any:
    """Returns the weights with each layer's matrices as `Int8Matrix`."""
    return _replace_matrices(weights, quantize_stack)


def quantize_stack(matrices: Array) -> Int8Matrix:
    """Rounds the matrices `[L, inputs, outputs]` of all layers, one after the other."""
    return jax.lax.map(quantize_matrix, matrices)


def quantize_matrix(weight: Array) -> Int8Matrix:
    """Rounds a matrix `[inputs, outputs]` to int8; a channel of zeros has scale 0."""
    weight = weight.astype(accumulation_dtype(weight.dtype))
    # A product is rounded alike on all devices, a quotient is not; runs compare the scales (run/fingerprint.py).
    scale = jnp.max(jnp.abs(weight), axis=-2, keepdims=True) * (1 / LARGEST)
    values = jnp.round(weight / jnp.where(scale > 0, scale, 1.0))
    return Int8Matrix(values.astype(jnp.int8), scale)


def quantize_specs(specs: Any) -> Any:
    """Returns the layouts, or logical axes, of `quantize_layers(weights)`, given those of the weights."""
    return _replace_matrices(specs, lambda spec: Int8Matrix(spec, PartitionSpec(spec[0], None, spec[2])))


def cast_weights(weights: Any, dtype: str) -> Any:
    """Converts weights to the compute dtype, but for those in int8."""
    return jax.tree.map(
        lambda x: x if isinstance(x, Int8Matrix) else x.astype(dtype),
        weights,
        is_leaf=lambda x: isinstance(x, Int8Matrix),
    )


def _replace_matrices(tree, function):
    blocks = tree["blocks"]
    return tree | {"blocks": blocks | {name: function(blocks[name]) for name in LORA_TARGETS}}
