"""What one device holds, by item: exact sizes of what the program keeps, from shapes and layouts."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from nft_jax.experiment import Experiment, with_sharding
from nft_jax.models.cache import block_columns
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import TENSOR, shard_count
from nft_jax.update.optimizer import Optimizer


def bytes_a_device(experiment: Experiment, optimizer: Optimizer) -> dict[str, int]:
    """Bytes of one device.

    `weights`  float32 masters (and the KL term's reference)     `moments`  of the optimizer; 0 where they are offloaded
    `sampling_weights` the weights as the sampler reads them             `cache`    keys and values of all slots of a shard
    `prompts`  the prompt table, and the keys of the prompts that were read last
    """
    config = experiment.config
    state = experiment.abstract_state(optimizer)
    sampling_weights = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, config.model.dtype), experiment.abstract)
    sampling_weights = jax.tree.map(
        with_sharding, sampling_weights, layout.shardings(experiment.mesh, experiment.engine.specs)
    )
    table = experiment.dataset.tables["train"]
    slots = slots_a_shard(experiment)
    read = -(-slots // config.answers_per_prompt)
    limit = config.data.max_prompt_tokens
    return {
        "weights": _held((state.weights, state.reference)),
        "moments": _held(state.optimizer_state),
        "sampling_weights": _held(sampling_weights),
        "cache": slots * slot_bytes(experiment),
        "prompts": read * slot_bytes(experiment, limit) + 4 * table.token_NP.size,
    }


def slots_a_shard(experiment: Experiment) -> int:
    """Answers that a data shard decodes at a time."""
    config = experiment.config
    return experiment.engine.slots(
        config.candidates_per_round * config.answers_per_prompt // shard_count(experiment.mesh)
    )


def slot_bytes(experiment: Experiment, tokens: int = 0) -> int:
    """Bytes that one slot's keys and values take of one device: of a whole sequence, or of so many tokens."""
    config, model = experiment.config, experiment.config.model
    whole = config.data.max_prompt_tokens + config.rollout.max_answer_tokens
    columns = block_columns(whole)
    blocks = math.ceil((tokens or whole) / columns)
    heads = model.kv_heads // experiment.mesh.shape[TENSOR]
    return 2 * model.layers * heads * model.head_size * blocks * columns * jnp.dtype(model.dtype).itemsize


def _held(tree: Any) -> int:
    """Bytes of one device, of all arrays that lie in its own memory."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if leaf.sharding.memory_kind != layout.HOST_MEMORY
    )
