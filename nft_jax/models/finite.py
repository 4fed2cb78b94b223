"""Numbers in weights that are NaN or inf: no model computes with them, so they are refused by name."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nft_jax.parallel.layout import HOST_MEMORY
from nft_jax.types import Array

_MOST_NAMES = 4


class NonFiniteWeights(ValueError):
    """Weights that were loaded hold NaN or inf."""


class NonFinite(NamedTuple):
    """An array with numbers that are NaN or inf.

    Attributes:
      path: Its place in the tree, such as ("blocks", "query").
      layer: The first layer with such numbers; None for an array that has no layers.
      count: How many of the array's, or of this layer's, `size` numbers are NaN or inf.
    """

    path: tuple[str, ...]
    layer: int | None
    count: int
    size: int

    @property
    def name(self) -> str:
        """Its place in words."""
        return ".".join(self.path) + ("" if self.layer is None else f" of layer {self.layer}")


def find_nonfinite(tree: Any) -> list[NonFinite]:
    """Returns the arrays of a tree that have numbers that are NaN or inf, found on their devices."""
    leaves = [
        (tuple(_key(part) for part in path), jnp.asarray(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    leaves = [(path, leaf) for path, leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.size]
    if not leaves:
        return []
    layered = tuple("blocks" in path for path, _ in leaves)
    arrays = [leaf for _, leaf in leaves]
    waiting = tuple(leaf.sharding.memory_kind == HOST_MEMORY for leaf in arrays)
    found = []
    counts = jax.device_get(_examine(arrays, layered, waiting))
    for (path, leaf), is_layered, (count, layer) in zip(leaves, layered, counts, strict=True):
        if count and is_layered:
            found.append(NonFinite(path, int(layer), int(count), leaf.size // leaf.shape[0]))
        elif count:
            found.append(NonFinite(path, None, int(count), leaf.size))
    return found


def check_finite(
    weights: Any, where: Any, remedy: str, name: Callable[[NonFinite], str] = lambda found: found.name
) -> None:
    """Checks that weights that were loaded are numbers.

    Args:
      where: What they were loaded from.
      remedy: What to do otherwise.
      name: Names an array as `where` does.

    Raises:
      NonFiniteWeights: With the names of those that hold NaN or inf.
    """
    if found := find_nonfinite(weights):
        raise NonFiniteWeights(f"{where}: {describe_nonfinite(found, name)}; {remedy}")


def describe_nonfinite(found: list[NonFinite], name: Callable[[NonFinite], str] = lambda found: found.name) -> str:
    """Returns the names of the first arrays, with their numbers of NaN or inf."""
    parts = [f"{name(one)} ({one.count:,} of {one.size:,} numbers)" for one in found[:_MOST_NAMES]]
    more = f" and {len(found) - len(parts)} more" if len(found) > len(parts) else ""
    return f"NaN or inf in {', '.join(parts)}{more}"


@functools.partial(jax.jit, static_argnums=(1, 2))
def _examine(
    arrays: list[Array], layered: tuple[bool, ...], waiting: tuple[bool, ...]
) -> list[tuple[Array, Array | int]]:
    """Returns the count of each array and 0, or of its first layer with NaN or inf and the layer, where it has layers.

    These are scalars, which every process can read. Arrays that are `waiting` in the host's memory are moved first.
    """
    moved = (jax.device_put(x, jax.memory.Space.Device) if it else x for x, it in zip(arrays, waiting, strict=True))
    return [_examine_one(~jnp.isfinite(x), has_layers) for x, has_layers in zip(moved, layered, strict=True)]


def _examine_one(bad: Array, has_layers: bool) -> tuple[Array, Array | int]:
    if not has_layers:
        return jnp.sum(bad, dtype=jnp.uint32), 0
    by_layer = jnp.sum(bad, axis=tuple(range(1, bad.ndim)), dtype=jnp.uint32)
    first = jnp.argmax(by_layer > 0)
    return by_layer[first], first


def _key(part: Any) -> str:
    """Returns the key, index or name of a step into a tree."""
    return str(next(getattr(part, kind) for kind in ("key", "name", "idx") if hasattr(part, kind)))
