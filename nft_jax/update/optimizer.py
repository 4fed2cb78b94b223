"""The optimizer: an optax chain from the configuration, and the layout of its state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from nft_jax.config import OptimizerConfig
from nft_jax.parallel.layout import HOST_MEMORY
from nft_jax.types import Array


class Optimizer(NamedTuple):
    """An optax transformation.

    Attributes:
      init: `weights -> state`.
      update: `(gradient, state, weights) -> (change, state)`.
      offload: Whether the moments are in the host's memory between updates.
    """

    init: Callable
    update: Callable
    offload: bool = False


def learning_rate(config: OptimizerConfig, updates: int) -> optax.Schedule:
    """Makes a schedule: linear warm-up from 0, then constant, or linear or cosine decay to 0 at `updates` updates.

    With a `warmup_stair` of n updates, update u of the warm-up (from 0) has the rate peak · n ⌊u/n⌋ / warmup: 0 in the
    first stair.
    """
    peak, warmup, stair = config.learning_rate, config.warmup_updates, config.warmup_stair
    rest = max(updates - warmup, 1)
    after = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(peak, rest),
    }[config.schedule]
    if warmup == 0:
        return after
    # The first update has the rate peak / warmup; torch's warm-up schedulers begin at 0 and have it in the second.
    rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([_climb_stairs(peak / warmup, stair) if stair else rise, after], [warmup])


def _climb_stairs(slope, stair):
    def rate(update):
        return slope * (update // stair * stair)

    return rate


def make_optimizer(config: OptimizerConfig, updates: int, axes: Any) -> Optimizer:
    """Makes the optimizer: it clips by global norm, then applies AdamW or Muon.

    Muon is for the layers' matrices; the embedding, the head, norms and biases then get AdamW with Nesterov momentum.
    `axes` is the tree of logical axes of the weights: Muon treats the stacked axes `layers` and `experts` as a batch.
    """
    rate = learning_rate(config, updates)
    adam = {"b1": config.beta1, "b2": config.beta2, "eps": config.epsilon, "weight_decay": config.weight_decay}
    if config.name == "adamw":
        rule = optax.adamw(rate, **adam)
    else:
        rule = optax.contrib.muon(
            rate,
            weight_decay=config.weight_decay,
            adam_b1=config.beta1,
            adam_b2=config.beta2,
            adam_weight_decay=config.weight_decay,
            eps=config.epsilon,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=jax.tree.map(_muon_axes, axes, is_leaf=_is_spec),
        )
    optimizer = _allow_promotion(optax.chain(optax.clip_by_global_norm(config.clip_norm), rule))
    return _offload(optimizer) if config.offload else optimizer


def update_if(taken: Array, optimizer: Optimizer, gradient: Any, state: Any, weights: Any) -> tuple[Any, Any]:
    """Returns weights and state after an update, or as they are where `taken`, a bool, is false."""

    def update(before):
        weights, state = before
        change, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, change), state

    before = weights, state
    if optimizer.offload:
        # Moments move to the device only if they change, and not before the gradient is complete: with the select
        # below, a TPU would hold more of them beside the activations.
        return jax.lax.cond(taken, update, lambda same: same, before)
    # Not by `cond`, for which XLA copies weights and moments on GPUs.
    return jax.tree.map(lambda new, old: jnp.where(taken, new, old), update(before), before)


def state_specs(optimizer: Optimizer, abstract: Any, weight_specs: Any) -> Any:
    """Returns PartitionSpecs of the optimizer's state: those of the weight that an array mirrors, else replicated.

    A leaf mirrors a weight if its path ends in the weight's path and its shape is the weight's. (optax's own
    `tree_map_params` does not support Muon's dimension numbers.)
    """
    weights = {
        jax.tree_util.keystr(path): (leaf.shape, spec)
        for (path, leaf), spec in zip(
            jax.tree_util.tree_leaves_with_path(abstract), jax.tree.leaves(weight_specs, is_leaf=_is_spec), strict=True
        )
    }

    def spec_of(path, leaf):
        for start in range(len(path)):
            shape, spec = weights.get(jax.tree_util.keystr(path[start:]), (None, None))
            if shape == leaf.shape:
                return spec
        return PartitionSpec()

    return jax.tree_util.tree_map_with_path(spec_of, jax.eval_shape(optimizer.init, abstract))


def is_offloaded(leaf: Any) -> bool:
    """Returns whether an offloaded state keeps this array in the host's memory: true for moments of matrices."""
    return leaf.ndim > 1


def offload_shardings(shardings: Any, state: Any) -> Any:
    """Returns the shardings, in the host's memory for the arrays of `state` that are offloaded."""
    return jax.tree.map(
        lambda sharding, leaf: sharding.with_memory_kind(HOST_MEMORY) if is_offloaded(leaf) else sharding,
        shardings,
        state,
    )


def _allow_promotion(optimizer):
    """Allows type promotion inside optax, which raises floats to integer powers, where JAX's strict promotion is on."""

    def update(gradient, state, weights=None):
        with jax.numpy_dtype_promotion("standard"):
            return optimizer.update(gradient, state, weights)

    return Optimizer(optimizer.init, update)


def _offload(optimizer):
    """Keeps the state in the host's memory between updates."""

    def update(gradient, state, weights=None):
        change, state = optimizer.update(gradient, _move(state, jax.memory.Space.Device), weights)
        return change, _move(state, jax.memory.Space.Host)

    return Optimizer(optimizer.init, update, offload=True)


def _move(state, space):
    return jax.tree.map(lambda x: jax.device_put(x, space) if is_offloaded(x) else x, state)


def _muon_axes(names):
    # Axes before the last two are a batch: of layers, and of a layer's experts.
    is_layer_matrix = len(names) >= 3 and names[0] == "layers"
    return optax.contrib.MuonDimensionNumbers(len(names) - 2, len(names) - 1) if is_layer_matrix else None


def _is_spec(leaf):
    return isinstance(leaf, PartitionSpec)
