"""Low-rank adapters: `x W + scale · (x A) B` with frozen W: Hu et al. 2021 (arXiv 2106.09685).

A model with adapters has one tree of weights. Beside a layer's weight `query` there is `query_adapter` with A and B.
`split_weights` cuts the tree into what trains and what is frozen, `join_weights` undoes it, and `merge_adapters` gives
the weights W + scale · A B of a model without adapters. On a tree without adapters all three change nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from nft_jax.config import LoraConfig
from nft_jax.models.int8 import Int8Matrix
from nft_jax.names import unknown
from nft_jax.types import Array

SUFFIX = "_adapter"
NO_ADAPTERS = LoraConfig()


class Adapter(nnx.Module):
    """The low-rank term of one weight, `scale · (x A) B`.

    Args:
      weight: The weight `[L, inputs, outputs]` of all layers; A follows its input axis on the mesh, B its output axis.
      rank: Columns of A and rows of B.
      scale: Factor of the term.
    """

    def __init__(self, weight: nnx.Param, rank: int, scale: float):
        (layers, inputs, outputs), names = weight.shape, weight.get_metadata("out_sharding")
        self.a = nnx.Param(jnp.zeros((layers, inputs, rank)), out_sharding=(*names[:2], "rank"))
        self.b = nnx.Param(jnp.zeros((layers, rank, outputs)), out_sharding=(names[0], "rank", names[2]))
        self.scale = scale

    def __call__(self, x_MD: Array) -> Array:
        """Computes the term of one layer: `[M, inputs]` to `[M, outputs]`."""
        return (x_MD @ self.a[...]) @ self.b[...] * self.scale


def add_adapters(blocks: nnx.Module, config: LoraConfig) -> None:
    """Gives each target among the stacked layers' weights an adapter, all zeros.

    Raises:
      ValueError: When the layers have no matrix of such a name.
    """
    matrices = [name for name, leaf in nnx.to_pure_dict(nnx.state(blocks)).items() if getattr(leaf, "ndim", 0) == 3]
    for name in config.target_names:
        if name not in matrices:
            raise ValueError(f"config.lora.targets: {unknown('matrix', name, matrices, 'a layer')}")
        setattr(blocks, name + SUFFIX, Adapter(getattr(blocks, name), config.rank, config.scale))


def initial_adapters(shapes: Any, key: Array) -> Any:
    """Draws adapters of these shapes: A uniform in ±inputs^−½, which is PEFT's default, and B = 0."""
    blocks = {}
    for number, (name, adapter) in enumerate(shapes["blocks"].items()):
        bound = adapter["a"].shape[1] ** -0.5
        a = jax.random.uniform(jax.random.fold_in(key, number), adapter["a"].shape, minval=-bound, maxval=bound)
        blocks[name] = {"a": a, "b": jnp.zeros(adapter["b"].shape)}
    return {"blocks": blocks}


def split_weights(weights: Any) -> tuple[Any, Any]:
    """Returns what trains of a tree of weights, shapes or axes, and what is frozen: None without adapters."""
    adapters = {name: leaf for name, leaf in weights["blocks"].items() if name.endswith(SUFFIX)}
    if not adapters:
        return weights, None
    rest = {name: leaf for name, leaf in weights["blocks"].items() if name not in adapters}
    return {"blocks": adapters}, weights | {"blocks": rest}


def join_weights(trained: Any, frozen: Any) -> Any:
    """Undoes `split_weights`."""
    return trained if frozen is None else frozen | {"blocks": frozen["blocks"] | trained["blocks"]}


def merge_adapters(weights: Any, scale: float, dtype: str) -> Any:
    """Returns weights without adapters: W + scale · A B, summed in float32 and rounded once to `dtype`.

    Frozen matrices in int8 become matrices of `dtype` too.
    """
    adapters, frozen = split_weights(weights)
    if frozen is None:
        return weights

    def merge_layer(matrices):
        weight, adapter = matrices
        a, b = adapter["a"], adapter["b"]
        change = jnp.matmul(a, b, precision="highest") * scale
        return (weight.astype(change.dtype) + change).astype(dtype)

    def dense(weight):
        is_int8 = isinstance(weight, Int8Matrix)
        return jax.lax.map(lambda matrix: matrix.astype(dtype), weight) if is_int8 else weight

    # One layer at a time, so that float32 sums of all layers are never in memory together.
    merged = {
        name.removesuffix(SUFFIX): jax.lax.map(merge_layer, (frozen["blocks"][name.removesuffix(SUFFIX)], adapter))
        for name, adapter in adapters["blocks"].items()
    }
    rest = {name: dense(weight) for name, weight in frozen["blocks"].items() if name not in merged}
    return frozen | {"blocks": merged | rest}
