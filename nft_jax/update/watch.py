"""Groups whose tokens a step records, and what the update that trains each token sees of it."""

from typing import Any

import jax
import jax.numpy as jnp

from nft_jax.config import Config
from nft_jax.types import Array, SeenTokens, WatchedGroups


def count_watched(config: Config) -> int:
    """Returns how many groups a step records."""
    return min(config.record.token_prompts, config.candidates_per_round, config.prompts_per_step)


def number_watched(config: Config, before: Array, trained: Array) -> Array | None:
    """Numbers the groups of the training buffer that are recorded, int32 `[Q]`, −1 for others; None if none are.

    They are the first ones of the last round: the buffer has `before` groups of earlier rounds, and `trained` of its
    groups train.
    """
    most = count_watched(config)
    if not most:
        return None
    number_Q = jnp.arange(config.prompts_per_step, dtype=jnp.int32) - before
    inside_Q = (number_Q >= 0) & (number_Q < jnp.minimum(trained - before, most))
    return jnp.where(inside_Q, number_Q, -1)


def describe_watched(
    config: Config, kept_Q: Array, before: Array, trained: Array, seen: SeenTokens | None
) -> WatchedGroups | None:
    """Returns the groups of the last round that are recorded; those that no update trains come last.

    Args:
      kept_Q: Which groups of the round may train.
      before, trained: As in `number_watched`.
      seen: Arrays `[…, M]` over updates and data shards; M counts the tokens of all recorded groups.
    """
    if seen is None:
        return None
    number_Q = jnp.arange(count_watched(config), dtype=jnp.int32)
    shape = number_Q.size, config.answers_per_prompt, config.rollout.max_answer_tokens
    update_Q = jnp.where(number_Q < trained - before, (before + number_Q) % config.updates_per_step, -1)
    place_Q = jnp.argsort(~kept_Q, stable=True)[: number_Q.size].astype(jnp.int32)
    # One update, on one shard, trains a token: the others have 0.
    whole = jax.tree.map(lambda x: jnp.sum(x, axis=range(x.ndim - 1)).reshape(shape), seen)
    return WatchedGroups(place_Q, update_Q, whole)


def see_nothing(config: Config, shards: int, dtype: Any) -> SeenTokens:
    """Returns what no update has seen yet: arrays `[shards, M]`."""
    tokens = count_watched(config) * config.answers_per_prompt * config.rollout.max_answer_tokens
    return SeenTokens(*[jnp.zeros((shards, tokens), dtype)] * len(SeenTokens._fields))


def see(watched_BT: Array, nothing: SeenTokens, **value_BT: Array) -> SeenTokens:
    """Puts the values of a micro-batch, whose rows are those of all shards, at the numbers of their tokens."""
    shards, tokens = nothing.old.shape
    # A place below 0 would count from the end.
    place_XM = jnp.where(watched_BT < 0, tokens, watched_BT).reshape(shards, -1)
    write = jax.vmap(lambda room, place, value: room.at[place].set(value, mode="drop"))
    values = SeenTokens(**value_BT)
    return jax.tree.map(
        lambda room, value: write(room, place_XM, value.astype(room.dtype).reshape(shards, -1)), nothing, values
    )
