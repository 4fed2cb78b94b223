"""The log-probs of answers' tokens by the weights after a step, for a person to look at."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from nft_jax.models.logprobs import logp_and_entropy
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import DATA
from nft_jax.rounding import round_up
from nft_jax.types import Array, Groups, Prompts, Tokens
from nft_jax.update.update import Updater


def score_tokens(
    updater: Updater, weights: Any, frozen: Any, prompts: Prompts, groups: Groups, place_Q: Array
) -> Array:
    """Returns the log-probs of the answers of the groups at these places, `[Q, K, T]`, by a forward pass.

    They are 0 after an answer's end. `weights` are those that train; `frozen` ones, or None, are joined with them.
    """
    groups = layout.replicate(groups, updater.mesh)
    groups = jax.tree.map(lambda x: x[place_Q], groups)
    Q, K, T = groups.token_QKT.shape
    config, mesh = updater.config, updater.mesh
    rows = mesh.shape[DATA] * config.packing.rows_per_micro_batch
    tokens, target_BC = _join(prompts, groups)
    batches = jax.tree.map(lambda x: _split(x, rows), (tokens, target_BC))
    model = updater.freeze(frozen).model(weights)

    def score(batch):
        tokens, target_BC = layout.split_rows(batch, mesh, over=DATA)
        temperature, chunk = config.rollout.temperature, config.packing.logp_chunk_tokens
        return logp_and_entropy(model, tokens, target_BC, temperature, chunk, updater.placement)[0]

    logp_BC = jax.lax.map(score, batches).reshape(-1, target_BC.shape[1])[: Q * K]
    # The value of an answer's token is at the place before it.
    first_Q = prompts.length_Q[groups.prompt_Q] - 1
    place_BT = jnp.repeat(first_Q, K)[:, None] + jnp.arange(T)[None]
    logp_QKT = jnp.take_along_axis(logp_BC, place_BT, axis=1).reshape(Q, K, T)
    inside_QKT = jnp.arange(T)[None, None] < groups.length_QK[..., None]
    return layout.replicate(jnp.where(inside_QKT, logp_QKT, 0), mesh)


def _join(prompts: Prompts, groups: Groups) -> tuple[Tokens, Array]:
    """Returns a row for each answer, its prompt first, and the token that follows each place."""
    Q, K, T = groups.token_QKT.shape
    prompt_BP = jnp.repeat(prompts.token_QP[groups.prompt_Q], K, axis=0)
    start_B = jnp.repeat(prompts.length_Q[groups.prompt_Q], K)
    length_B = start_B + groups.length_QK.reshape(-1)
    padded_BC = jnp.pad(prompt_BP, ((0, 0), (0, T)))
    place_1C = jnp.arange(padded_BC.shape[1])[None]
    answer_BC = jnp.take_along_axis(
        groups.token_QKT.reshape(Q * K, T), jnp.clip(place_1C - start_B[:, None], 0, T - 1), axis=1
    )
    inside_BC = place_1C < length_B[:, None]
    token_BC = jnp.where(place_1C < start_B[:, None], padded_BC, jnp.where(inside_BC, answer_BC, 0))
    position_BC = jnp.broadcast_to(place_1C, token_BC.shape).astype(jnp.int32)
    tokens = Tokens(token_BC, jnp.where(inside_BC, 0, -1).astype(jnp.int32), position_BC)
    return tokens, jnp.pad(token_BC[:, 1:], ((0, 0), (0, 1)))


def _split(x: Array, rows: int) -> Array:
    """Pads the first axis with zeros, and splits it into batches of `rows`."""
    whole = round_up(x.shape[0], rows)
    return jnp.pad(x, ((0, whole - x.shape[0]), (0, 0))).reshape(-1, rows, x.shape[1])


def compile_scores(
    updater: Updater, program: jax.stages.Compiled, state: Any, prompts: Prompts
) -> jax.stages.Compiled | None:
    """Compiles `score_tokens` for the rollouts of a compiled step, so that nothing is compiled later; None for none."""
    info, shardings = program.out_info[1], program.output_shardings[1]
    if info.watched is None:
        return None

    def shape(x, where):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    groups = jax.tree.map(shape, info.last, shardings.last)
    place_Q = shape(info.watched.place_Q, shardings.watched.place_Q)
    function = functools.partial(score_tokens, updater)
    return jax.jit(function).lower(state.weights, state.frozen, prompts, groups, place_Q).compile()
