"""What one device holds, by item: the exact sizes of what the program keeps, from shapes and layouts."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from nft_jax.experiment import Experiment
from nft_jax.models.cache import block_columns
from nft_jax.models.lora import split_weights
from nft_jax.models.sharded import with_sharding
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import TENSOR, shard_count
from nft_jax.rounding import ceil_div
from nft_jax.state import UNSAVED


def device_bytes(experiment: Experiment) -> dict[str, int]:
    """Returns the bytes of one device's memory that each item takes.

    Returns:
      `weights`: The float32 weights that train, and the reference policy of the KL term.
      `frozen`, `teacher`: The weights beside adapters, but for those that the sampler reads as they are, and those of a
        distillation; only where there are some.
      `moments`: The optimizer's state; 0 if it is offloaded.
      `sampling_weights`: The weights as the sampler reads them.
      `cache`: Keys and values of all slots of a shard; with `rollout.partial` they stay between two steps.
      `prompts`: The prompt table, and the keys and values of the prompts that were read last.
    """
    config, model = experiment.config, experiment.model
    state = experiment.abstract_state(experiment.make_optimizer())
    layouts = layout.shardings(model.mesh, experiment.engine.specs)
    sampling_weights = jax.eval_shape(experiment.engine.sampling_weights, model.shapes)
    sampling_weights = jax.tree.map(with_sharding, sampling_weights, layouts)
    if model.lora.base == "int8":
        state = state._replace(frozen=_differing(state.frozen, split_weights(sampling_weights)[1]))
    slots = slots_per_shard(experiment)
    prompts, tokens = ceil_div(slots, config.answers_per_prompt), config.data.max_prompt_tokens
    return {
        "weights": _held_bytes((state.weights, state.reference)),
        **{name: _held_bytes(part) for name in UNSAVED if (part := getattr(state, name)) is not None},
        "moments": _held_bytes(state.optimizer_state),
        "sampling_weights": _held_bytes(sampling_weights),
        "cache": slots * slot_bytes(experiment),
        "prompts": prompts * slot_bytes(experiment, tokens) + 4 * experiment.dataset.tables["train"].token_QP.size,
    }


def slots_per_shard(experiment: Experiment) -> int:
    """Returns the number of answers that a data shard decodes at a time."""
    config = experiment.config
    answers = config.candidates_per_round * config.answers_per_prompt
    return experiment.engine.slots(answers // shard_count(experiment.model.mesh))


def slot_bytes(experiment: Experiment, tokens: int = 0) -> int:
    """Returns the bytes of one device that a slot's keys and values take, of `tokens` tokens or a whole sequence."""
    config, model = experiment.config, experiment.config.model
    whole = config.data.max_prompt_tokens + config.rollout.max_answer_tokens
    # As `cache.cache_from_keys`: fewer tokens than a block has columns make a smaller block.
    columns = min(block_columns(whole, token_major=experiment.model.attention.token_major), tokens or whole)
    blocks = ceil_div(tokens or whole, columns)
    heads = model.kv_heads // experiment.model.mesh.shape[TENSOR]
    return 2 * model.layers * heads * model.head_size * blocks * columns * jnp.dtype(model.dtype).itemsize


def _differing(tree: Any, other: Any) -> list[Any]:
    """Returns the arrays of a tree whose format or layout differs from that in another tree of its structure."""
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return [x for x, y in pairs if x.dtype != y.dtype or not x.sharding.is_equivalent_to(y.sharding, x.ndim)]


def _held_bytes(tree: Any) -> int:
    """Returns the bytes of one device that arrays in its own memory take."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if leaf.sharding.memory_kind != layout.HOST_MEMORY
    )
