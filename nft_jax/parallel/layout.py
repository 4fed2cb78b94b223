"""Layouts: a table from the logical axes of a weight to mesh axes for training, and one for generation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nft_jax.compat import shard_map
from nft_jax.parallel.mesh import DATA, SHARDS, TENSOR, shard_axes

HOST_MEMORY = "pinned_host"


class Placement(NamedTuple):
    """Layout constraints that the body of a layer applies.

    Attributes:
      weights: Constrains the (already cast) weights of one layer.
      tokens: Constrains the layer's input and its residual stream, `[M, D]`.
      map_rows: Takes `function(whole, *rows)`; returns one that each data shard computes for its own rows.
    """

    weights: Callable[[Any], Any]
    tokens: Callable[[Any], Any]
    map_rows: Callable[[Callable], Callable]


UNCONSTRAINED = Placement(lambda weights: weights, lambda x_MD: x_MD, lambda function: function)

# Training shards every matrix over both axes (FSDP and tensor parallelism). Projections back to the width are split
# over (tensor, data) on their INPUT: a split width would leave each device rows too narrow for TPU tiles of (8, 128).
TRAINING = {
    "layers": None,
    "vocab": (TENSOR, DATA),
    "embed": DATA,
    "embed_out": None,
    "heads": TENSOR,
    "kv_heads": TENSOR,
    "mlp": TENSOR,
    "heads_in": (TENSOR, DATA),
    "mlp_in": (TENSOR, DATA),
    "norm": None,
    "rank": None,
    "experts": None,
}
# Generation reads every weight once a token, so it gathers none: split over `tensor` only, whole along `data`.
GENERATION = TRAINING | {"vocab": TENSOR, "embed": None, "heads_in": TENSOR, "mlp_in": TENSOR}


def specs(axes: Any, rules: dict) -> Any:
    """Returns the mesh axes of each weight; `axes` is a tree of PartitionSpecs of logical names, or None for size 1."""
    return jax.tree.map(
        lambda names: PartitionSpec(*(None if name is None else rules[name] for name in names)),
        axes,
        is_leaf=lambda leaf: isinstance(leaf, PartitionSpec),
    )


def shardings(mesh: Mesh, tree: Any) -> Any:
    """Returns a tree of NamedShardings for a tree of PartitionSpecs."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), tree, is_leaf=lambda x: isinstance(x, PartitionSpec))


def constrain(tree: Any, mesh: Mesh, spec_tree: Any) -> Any:
    """Constrains each array of `tree` to its PartitionSpec."""
    return jax.tree.map(jax.lax.with_sharding_constraint, tree, shardings(mesh, spec_tree))


def split_rows(tree: Any, mesh: Mesh, axis: int = 0, over: Any = SHARDS) -> Any:
    """Splits axis `axis` of every array over the data shards: those of all replicas, or `over` DATA of one."""
    sharding = NamedSharding(mesh, PartitionSpec(*([None] * axis), over))
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), tree)


def split_keys(tree: Any, mesh: Mesh) -> Any:
    """Splits keys or values `[L, X, Q, P, G, H]` over a replica's data shards, and over `tensor` by heads."""
    sharding = NamedSharding(mesh, PartitionSpec(None, DATA, None, None, TENSOR))
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), tree)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts every array whole on each device."""
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec())), tree)


def layer_placement(mesh: Mesh, axes: Any, *, sequence_parallel: bool = False) -> Placement:
    """Returns the placement of layers and their inputs while a replica's micro-batch goes through them.

    A layer's weights get the layout of training, then that of generation: naming both inside the scanned body makes
    XLA gather one layer at a time, in the compute dtype, and scatter its gradient inside the loop. `axes` holds the
    logical axes of the stacked layers. `sequence_parallel` splits tokens over `tensor` between the products: each
    device has a part of norms, residuals and what a layer keeps for the backward pass (Korthikanti et al. 2022, arXiv
    2205.05198, section 4.2.2). XLA gathers before a product and scatters the sums after it.
    """
    one_layer = jax.tree.map(
        lambda names: PartitionSpec(*names[1:]), axes, is_leaf=lambda x: isinstance(x, PartitionSpec)
    )
    training, generation = specs(one_layer, TRAINING), specs(one_layer, GENERATION)
    tokens = NamedSharding(mesh, PartitionSpec((DATA, TENSOR) if sequence_parallel else DATA))

    def of_shards(function):
        def call(whole, *rows):
            specs = PartitionSpec(), *[PartitionSpec(DATA)] * len(rows)
            mapped = shard_map(
                function,
                mesh=mesh,
                axis_names=shard_axes(mesh),
                in_specs=specs,
                out_specs=PartitionSpec(DATA),
                check_vma=False,
            )
            return mapped(whole, *rows)

        return call

    return Placement(
        weights=lambda weights: constrain(constrain(weights, mesh, training), mesh, generation),
        tokens=lambda x_MD: jax.lax.with_sharding_constraint(x_MD, tokens),
        map_rows=of_shards,
    )


def check_host_memory(mesh: Mesh, wanted: dict[str, bool]) -> None:
    """Checks that the mesh's devices can read the host's memory, if any of these settings is wanted.

    Raises:
      ValueError: with the settings that need it, and the kinds of memory that the devices have.
    """
    needing, device = [setting for setting, wants in wanted.items() if wants], mesh.devices.flat[0]
    kinds = sorted(memory.kind for memory in device.addressable_memories())
    if needing and not kinds:
        raise ValueError(
            f"{', '.join(needing)}: JAX knows no host memory of GPUs that are not present, so it can't plan this; "
            f"leave it out, and the plan has that much more on the device"
        )
    if needing and HOST_MEMORY not in kinds:
        raise ValueError(
            f"{', '.join(needing)}: needs memory of the kind {HOST_MEMORY!r}, but the mesh's devices "
            f"({device.platform}) have only {', '.join(kinds)}; leave it out"
        )


def check_divisible(abstract: Any, axes: Any, mesh: Mesh) -> None:
    """Checks that each weight's dimensions divide over the mesh.

    Raises:
      ValueError: all offending weights at once, with the sizes that would work.
    """
    faults = []

    def check(path, leaf, names):
        for size, name in zip(leaf.shape, names, strict=True):
            rule = TRAINING[name]
            mesh_axes = (rule,) if isinstance(rule, str) else (rule or ())
            parts = 1
            for axis in mesh_axes:
                parts *= mesh.shape[axis]
            below = size - size % parts
            if size % parts:
                label = "/".join(str(key.key) for key in path)
                faults.append(
                    f"{label}: its axis '{name}' of size {size} is split into {parts} parts by the mesh "
                    f"{dict(mesh.shape)}; use {f'{below} or ' if below else ''}{below + parts}"
                )

    jax.tree_util.tree_map_with_path(check, abstract, axes)
    if faults:
        raise ValueError("the model does not divide over the mesh:\n  " + "\n  ".join(faults))
