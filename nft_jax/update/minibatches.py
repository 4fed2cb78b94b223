"""Whole groups dealt evenly over the updates of a step, and each update's units over the data shards."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from nft_jax.config import Config
from nft_jax.config.sizes import row_tokens, row_tokens_needed
from nft_jax.losses import UNITS, Loss
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import shard_count
from nft_jax.types import Array, Groups, Prompts, Totals
from nft_jax.update.packing import Packed, Sequences, pack, rows_needed
from nft_jax.update.shared_prompts import prompts_at_once


def units_per_group(unit: str, K: int) -> int:
    """Units that a group of K answers gives at most: its answers, or pairs of a right and a wrong one."""
    return K if unit == "answer" else K // 2


def make_minibatches(
    groups: Groups,
    count: Array,
    prompts: Prompts,
    loss: Loss,
    *,
    updates: int,
    max_answer_tokens: int,
    key: Array,
    mesh: Mesh,
):
    """The first `count` of Q groups as `Sequences` with leading axes `[updates, data shards]`, and their `Totals`.

    Group i goes to update i mod `updates`; an update's units are cut into as many equal parts as there are data shards,
    so that few groups lie on more than one. So a buffer that is not full is still spread evenly. For losses of unit
    "pair" the key draws min(right, wrong) pairs of each group.
    """
    Q, K, _ = groups.token_QKT.shape
    answer_QUJ, present_QU = _units(groups, jnp.arange(Q) < count, loss.unit, key)
    shards = shard_count(mesh)
    index_USu, present_USu = _shares(_by_update(present_QU, updates), shards)
    advantage_QK = loss.advantage(groups.reward_QK, groups.length_QK, max_answer_tokens)

    def dealt(value_QUJ):
        """`[Q, units, J, …]` to `[updates, shards, units·J, …]`."""
        by_update = _by_update(value_QUJ, updates)
        index = index_USu.reshape(updates, -1, *([1] * (by_update.ndim - 2)))
        by_shard = jnp.take_along_axis(by_update, index, axis=1)
        return layout.split_rows(by_shard.reshape(updates, shards, -1, *value_QUJ.shape[3:]), mesh, axis=1)

    def of_answer(value_QK):
        index = answer_QUJ.reshape(Q, -1, *([1] * (value_QK.ndim - 2)))
        return dealt(jnp.take_along_axis(value_QK, index, axis=1).reshape(*answer_QUJ.shape, *value_QK.shape[2:]))

    def of_group(value_Q):
        shape = (*answer_QUJ.shape, *value_Q.shape[1:])
        return dealt(jnp.broadcast_to(value_Q[:, None, None], shape))

    present = layout.split_rows(jnp.repeat(present_USu, answer_QUJ.shape[2], axis=2), mesh, axis=1)
    length = jnp.where(present, of_answer(groups.length_QK), 0)
    sequences = Sequences(
        prompt_MP=of_group(prompts.token_NP[groups.prompt_Q]),
        answer_MT=of_answer(groups.token_QKT),
        group_M=of_group(jnp.arange(Q, dtype=jnp.int32)),
        prompt_length_M=of_group(prompts.length_N[groups.prompt_Q]),
        answer_length_M=length,
        logp_MT=of_answer(groups.logp_QKT),
        reward_M=of_answer(groups.reward_QK),
        rate_M=of_group(groups.rate_Q),
        advantage_M=of_answer(advantage_QK),
        present_M=present,
    )
    return sequences, count_totals(sequences, loss.unit)


def _by_update(value_QU, updates):
    """`[Q, units, …]` to `[updates, units of an update, …]`: group i goes to update i mod `updates`."""
    _, units, *rest = value_QU.shape
    return jnp.swapaxes(value_QU.reshape(-1, updates, units, *rest), 0, 1).reshape(updates, -1, *rest)


def _shares(present_UN, shards):
    """Which unit of its update lies at each place of each shard `[updates, shards, N / shards]`, and if one does."""
    first_present_UN = jnp.argsort(~present_UN, axis=1, stable=True)
    count_U1 = jnp.sum(present_UN, axis=1, keepdims=True)
    # Equal parts, to one unit, of those that are there.
    border_US = count_U1 * jnp.arange(shards + 1)[None] // shards
    place_USu = border_US[:, :-1, None] + jnp.arange(present_UN.shape[1] // shards)[None, None]
    there_USu = place_USu < border_US[:, 1:, None]
    place_UN = jnp.where(there_USu, place_USu, 0).reshape(present_UN.shape)
    return jnp.take_along_axis(first_present_UN, place_UN, axis=1).reshape(there_USu.shape), there_USu


def count_totals(sequences: Sequences, unit: str) -> Totals:
    """What each update holds, over all shards: `[updates]` float32 each."""
    answers = jnp.sum(sequences.present_M, axis=(1, 2)).astype(sequences.reward_M.dtype)
    tokens = jnp.sum(sequences.answer_length_M, axis=(1, 2)).astype(sequences.reward_M.dtype)
    return Totals(answers=answers, tokens=tokens, pairs=answers / 2 if unit == "pair" else jnp.zeros_like(answers))


def _units(groups, present_Q, unit, key):
    """Answer indices `[Q, units, J]` of each unit, and which units are present `[Q, units]`."""
    Q, K = groups.reward_QK.shape
    if unit == "answer":
        index = jnp.broadcast_to(jnp.arange(K, dtype=jnp.int32)[None, :, None], (Q, K, 1))
        return index, jnp.broadcast_to(present_Q[:, None], (Q, K))
    right_QK = groups.reward_QK > 0.5
    order = jax.random.uniform(key, (Q, K))
    # The right answers in random order, then the others; and the other way round.
    right_first = jnp.argsort(jnp.where(right_QK, order, 2.0), axis=1).astype(jnp.int32)[:, : K // 2]
    wrong_first = jnp.argsort(jnp.where(right_QK, 2.0, order), axis=1).astype(jnp.int32)[:, : K // 2]
    right_Q = jnp.sum(right_QK, axis=1)
    pairs_Q = jnp.minimum(right_Q, K - right_Q)
    present = present_Q[:, None] & (jnp.arange(K // 2)[None] < pairs_Q[:, None])
    return jnp.stack([right_first, wrong_first], axis=-1), present


def pack_shards(sequences, config: Config, unit: str, *, shared: bool = False) -> Packed:
    """`pack` for each update and data shard: leading axes `[updates, shards]` stay.

    `shared`: rows hold answers alone, and prompts are read once for all answers of a shard.
    """
    J = UNITS[unit]
    M, P, T = *sequences.prompt_MP.shape[-2:], sequences.answer_MT.shape[-1]
    units, unit_tokens, length = M // J, row_tokens_needed(P, T, J, shared), row_tokens(config, unit, shared)
    count = config.packing.rows_per_micro_batch
    prompts = None
    if shared:
        most = min(units, config.prompts_per_step // config.updates_per_step)
        prompts = _multiple(most, prompts_at_once(most, P, count, length))
    row_count = _multiple(rows_needed(units, unit_tokens, length, prompts or 1), count)

    def one(sequences):
        return pack(sequences, unit=J, row_count=row_count, row_tokens=length, shared_prompts=prompts)

    return jax.vmap(jax.vmap(one))(sequences)


def _multiple(size: int, of: int) -> int:
    return -(-size // of) * of
