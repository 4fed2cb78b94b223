"""Minibatches: whole groups split evenly over the updates of a step, and each update's units over the data shards."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from nft_jax.config import Config
from nft_jax.config.sizes import row_tokens, row_tokens_needed, row_units
from nft_jax.losses import UNITS, Loss, TokenReward, sum_to_end
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import shard_count
from nft_jax.rounding import round_up
from nft_jax.types import Array, Groups, Prompts, Totals
from nft_jax.update.packing import PackedRows, Sequences, pack, rows_needed
from nft_jax.update.shared_prompts import prompts_at_once


class _Units(NamedTuple):
    """Units of each group: the indices of their J answers in the group, and which units are present."""

    answer_QUJ: Array
    present_QU: Array


class _Places(NamedTuple):
    """For each place of each shard: the index of its unit in the minibatch, and whether the place is taken."""

    index_OXu: Array
    present_OXu: Array


def units_per_group(unit: str, K: int) -> int:
    """Returns the most units of a group of K answers: its answers, or pairs of a correct and an incorrect one."""
    return K if unit == "answer" else K // 2


def find_recomputed(config: Config, loss: Loss) -> range:
    """Returns the minibatches of a step whose log π_old takes a forward pass of its own, before the updates.

    The first update has the weights that sampled, so its own forward pass gives it; but a loss's `prepare` comes before
    that pass, unless it has one too.
    """
    if config.old_logp != "recompute":
        return range(0)
    is_early = loss.prepare is not None and not loss.forward
    return range(0 if is_early else 1, config.updates_per_step)


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
    token_reward: TokenReward | None = None,
    watched_Q: Array | None = None,
) -> tuple[Sequences, Totals]:
    """Splits the first `count` of Q groups over updates and data shards.

    Group i goes to update i mod `updates`, so that a buffer that is not full is spread evenly too. Each update's
    units are split into equal consecutive parts, one a data shard, so that few groups are on several shards. For losses
    of unit "pair" the key draws min(correct, incorrect) pairs of each group. `token_reward` gives each token a reward.
    `watched_Q` numbers the groups whose tokens are recorded, with −1 for others.

    Returns:
      Sequences with leading axes `[updates, data shards]`, and the counts of each update.
    """
    Q, K, _ = groups.token_QKT.shape
    answer_QUJ, present_QU = _make_units(groups, jnp.arange(Q) < count, loss.unit, key)
    shards = shard_count(mesh)
    index_OXu, present_OXu = _split_over_shards(_group_by_update(present_QU, updates), shards)
    advantage_QK = loss.advantage(groups.earned_QK, groups.length_QK, max_answer_tokens)

    def arrange(value_QUJ):
        """Arranges `[Q, U, J, …]` as `[updates, shards, sequences, …]`."""
        by_update = _group_by_update(value_QUJ, updates)
        index = index_OXu.reshape(updates, -1, *([1] * (by_update.ndim - 2)))
        by_shard = jnp.take_along_axis(by_update, index, axis=1)
        return layout.split_rows(by_shard.reshape(updates, shards, -1, *value_QUJ.shape[3:]), mesh, axis=1)

    def arrange_answers(value_QK):
        index = answer_QUJ.reshape(Q, -1, *([1] * (value_QK.ndim - 2)))
        return arrange(jnp.take_along_axis(value_QK, index, axis=1).reshape(*answer_QUJ.shape, *value_QK.shape[2:]))

    def arrange_groups(value_Q):
        shape = (*answer_QUJ.shape, *value_Q.shape[1:])
        return arrange(jnp.broadcast_to(value_Q[:, None, None], shape))

    present = layout.split_rows(jnp.repeat(present_OXu, answer_QUJ.shape[2], axis=2), mesh, axis=1)
    sequences = Sequences(
        prompt_IP=arrange_groups(prompts.token_QP[groups.prompt_Q]),
        answer_IT=arrange_answers(groups.token_QKT),
        group_I=arrange_groups(jnp.arange(Q, dtype=jnp.int32)),
        prompt_length_I=arrange_groups(prompts.length_Q[groups.prompt_Q]),
        answer_length_I=jnp.where(present, arrange_answers(groups.length_QK), 0),
        logp_IT=arrange_answers(groups.logp_QKT),
        reward_I=arrange_answers(groups.reward_QK),
        rate_I=arrange_groups(groups.rate_Q),
        advantage_I=arrange_answers(advantage_QK),
        present_I=present,
    )
    optional = _optional_values(groups, loss.reads, token_reward)
    if groups.age_QK is not None:
        optional["fresh_I"] = groups.age_QK == 0
    if watched_Q is not None:
        watched_Q1 = watched_Q[:, None]
        optional["watched_I"] = jnp.where(watched_Q1 < 0, -1, watched_Q1 * K + jnp.arange(K, dtype=jnp.int32)[None])
    arranged = {name: arrange_answers(value) for name, value in optional.items()}
    return sequences._replace(**arranged), count_totals(sequences, loss.unit)


def _optional_values(groups: Groups, reads: tuple[str, ...], token_reward: TokenReward | None) -> dict[str, Array]:
    """Returns the optional fields of `Sequences`: `[Q, K]` each, or `[Q, K, T]`."""
    Q, K = groups.reward_QK.shape
    rewards = {}
    if token_reward is not None:
        reward_QKT = token_reward(groups.token_QKT, groups.length_QK)
        rewards["return_IT"] = sum_to_end(reward_QKT)
    elif "token_reward" in reads:
        reward_QKT = jnp.zeros_like(groups.logp_QKT)
    dtype, truncated_QK = groups.reward_QK.dtype, groups.truncated_QK
    values = {
        "truncated": ("truncated_I", lambda: truncated_QK.astype(dtype)),
        "length": ("length_I", lambda: groups.length_QK.astype(dtype)),
        "complete": ("complete_I", lambda: jnp.repeat(~jnp.any(truncated_QK, axis=1), K).reshape(Q, K).astype(dtype)),
        "graded": ("graded_I", lambda: groups.earned_QK),
        "token_reward": ("token_reward_IT", lambda: reward_QKT),
        "key": ("number_I", lambda: jnp.arange(Q * K, dtype=jnp.int32).reshape(Q, K)),
    }
    # Only what is read is computed, so that the programs of other losses stay as they are.
    return rewards | {field: compute() for name, (field, compute) in values.items() if name in reads}


def _group_by_update(value_QU, updates):
    """Rearranges `[Q, U, …]` as `[updates, units of an update, …]`: group i goes to update i mod `updates`."""
    _, units, *rest = value_QU.shape
    return jnp.swapaxes(value_QU.reshape(-1, updates, units, *rest), 0, 1).reshape(updates, -1, *rest)


def _split_over_shards(present_OU: Array, shards: int) -> _Places:
    """Splits each update's present units over the data shards, in parts that differ by at most one unit."""
    present_first_OU = jnp.argsort(~present_OU, axis=1, stable=True)
    count_O1 = jnp.sum(present_OU, axis=1, keepdims=True)
    border_OX = count_O1 * jnp.arange(shards + 1)[None] // shards
    place_OXu = border_OX[:, :-1, None] + jnp.arange(present_OU.shape[1] // shards)[None, None]
    taken_OXu = place_OXu < border_OX[:, 1:, None]
    place_OU = jnp.where(taken_OXu, place_OXu, 0).reshape(present_OU.shape)
    index_OU = jnp.take_along_axis(present_first_OU, place_OU, axis=1)
    return _Places(index_OU.reshape(taken_OXu.shape), taken_OXu)


def count_totals(sequences: Sequences, unit: str) -> Totals:
    """Counts each update's answers, tokens and pairs over all shards: float32 `[updates]` each."""
    dtype = sequences.reward_I.dtype
    answers = jnp.sum(sequences.present_I, axis=(1, 2)).astype(dtype)
    tokens = jnp.sum(sequences.answer_length_I, axis=(1, 2)).astype(dtype)
    return Totals(answers=answers, tokens=tokens, pairs=answers / 2 if unit == "pair" else jnp.zeros_like(answers))


def _make_units(groups: Groups, present_Q: Array, unit: str, key: Array) -> _Units:
    """Makes each group's units: single answers, or random pairs of a correct and an incorrect one."""
    Q, K = groups.reward_QK.shape
    if unit == "answer":
        index = jnp.broadcast_to(jnp.arange(K, dtype=jnp.int32)[None, :, None], (Q, K, 1))
        return _Units(index, jnp.broadcast_to(present_Q[:, None], (Q, K)))
    correct_QK = groups.reward_QK > 0.5
    order = jax.random.uniform(key, (Q, K))
    # Correct answers in random order, then the others; incorrect answers in random order, then the others.
    correct_QU = jnp.argsort(jnp.where(correct_QK, order, 2.0), axis=1).astype(jnp.int32)[:, : K // 2]
    incorrect_QU = jnp.argsort(jnp.where(correct_QK, 2.0, order), axis=1).astype(jnp.int32)[:, : K // 2]
    correct_Q = jnp.sum(correct_QK, axis=1)
    pairs_Q = jnp.minimum(correct_Q, K - correct_Q)
    present_QU = present_Q[:, None] & (jnp.arange(K // 2)[None] < pairs_Q[:, None])
    return _Units(jnp.stack([correct_QU, incorrect_QU], axis=-1), present_QU)


def pack_shards(sequences: Sequences, config: Config, unit: str, *, shared: bool = False) -> PackedRows:
    """Packs the sequences of each update and data shard: leading axes `[updates, shards]` stay.

    Where prompts are `shared`, rows hold answers alone, and prompts are read once for all answers of a shard.
    """
    J = UNITS[unit]
    I, P, T = *sequences.prompt_IP.shape[-2:], sequences.answer_IT.shape[-1]
    units, unit_tokens, length = I // J, row_tokens_needed(P, T, J, shared), row_tokens(config, unit, shared)
    count, most = config.packing.rows_per_micro_batch, row_units(config, unit)
    prompts = None
    if shared:
        distinct = min(units, config.prompts_per_step // config.updates_per_step)
        prompts = round_up(distinct, prompts_at_once(distinct, P, count, length))
    row_count = round_up(rows_needed(units, unit_tokens, length, prompts or 1, most), count)

    def pack_shard(sequences):
        return pack(sequences, unit=J, row_count=row_count, row_tokens=length, shared_prompts=prompts, most=most)

    return jax.vmap(jax.vmap(pack_shard))(sequences)
