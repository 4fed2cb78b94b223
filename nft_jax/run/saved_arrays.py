"""The arrays of saved weights: their names and sizes are those of the model, and their dtype may be another."""

from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from nft_jax.run.damage import say_damage


def as_saved(weights: Any) -> Any:
    """Returns shapes in the dtype of weights that train: a digest is of their bits before they are cast."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding), weights)


def cast(weights: Any, like: Any) -> Any:
    """Returns weights in the dtypes of `like`."""
    return jax.tree.map(lambda x, other: x.astype(other.dtype), weights, like)


def check_shapes(path: epath.Path, weights: Any) -> None:
    """Checks that the arrays of saved weights have the names and sizes of `weights`.

    Orbax would begin to read others, and print a page before its error.

    Raises:
      ValueError: with the first that has not.
      DamagedWeights: if their names and sizes can't be read.
    """
    with say_damage(path):
        there = ocp.StandardCheckpointHandler().metadata(path).tree
    saved, given = _shapes(there), _shapes(weights)
    for name in sorted(saved | given, key=lambda name: (name not in saved, name)):
        if saved.get(name) != given.get(name):
            sizes = [shapes.get(name) or "missing" for shapes in (saved, given)]
            raise ValueError(f"{path} is of another model: {name} is {sizes[0]} there, and {sizes[1]} by config.model")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape) for path, leaf in leaves}
