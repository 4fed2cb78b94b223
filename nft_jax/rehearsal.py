"""Before a run with `model.bitwise`: does the sampler's log-prob of each token equal the trainer's in every bit, here?

Both are formulated alike (`models/bitwise.py`), but only the compiler decides what is computed. So the first prompts
are answered, their answers packed into rows as an update packs them, and the trainer's forward pass reads the rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from nft_jax.config import Config
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import shard_count
from nft_jax.randomness import stream
from nft_jax.rollout.state import Requests
from nft_jax.rounding import round_up
from nft_jax.state import State
from nft_jax.step import Step
from nft_jax.types import Array, Groups, Prompts
from nft_jax.update.groups import append_groups, empty_groups
from nft_jax.update.packing import Rows


class Scores(NamedTuple):
    """Two log-probs of each place of packed rows; arrays `[updates, X, B, T]`.

    Attributes:
      sampler, trainer: float32, by the decode loop and by the trainer's forward pass.
      answer: int32, the answer of the row whose token the place predicts; −1 elsewhere.
      token: int32, the token.
      position: int32, position of the place in its sequence.
    """

    sampler: Array
    trainer: Array
    answer: Array
    token: Array
    position: Array


def rehearse(step: Step, state: State, prompts: Prompts) -> str:
    """Compares the log-probs of sampler and trainer; returns how many agree.

    Raises:
      ValueError: When two differ in a bit, with the first place where they do, and both values.
    """
    whole = NamedSharding(step.mesh, PartitionSpec())
    scores = jax.device_get(jax.jit(lambda *given: score(step, *given), out_shardings=whole)(state, prompts))
    return compare(scores)


def score(step: Step, state: State, prompts: Prompts) -> Scores:
    """Answers the prompts of the first round, and scores the answers by the trainer's forward pass."""
    with jax.default_matmul_precision(step.config.model.precision):
        weights = step.engine.sampling_weights(state.model_weights)
        requests = _shorten(jax.tree.map(lambda x: x[0], step.next_requests(prompts, state.cursor)))
        done = step.engine(weights, requests, stream(step.config.seed, "rollout"))
        packed, _ = step.pack(*_fill_buffer(step, requests, done.rollout), prompts, state.step)
        updater = step.updater.freeze(state.frozen)
        logp_OXBT = jax.lax.map(lambda minibatch: updater.logp(state.weights, minibatch), packed)
    rows: Rows = packed.rows
    return Scores(rows.sampler_logp_BT, logp_OXBT, rows.batch.answer_BT, rows.target_BT, rows.tokens.position_BT)


def _shorten(requests: Requests) -> Requests:
    """Halves the limit from one answer of a group to the next, so that few are long, and rows hold all lengths."""
    halvings_K = np.minimum(np.arange(requests.limit_QK.shape[1]), 30)
    return requests._replace(limit_QK=jnp.maximum(requests.limit_QK >> halvings_K[None], 1))


def _fill_buffer(step, requests, rollout):
    """Returns the groups of a training buffer, as if every other answer were correct, and their number."""
    Q, K = requests.request_QK.shape
    reward_QK = jnp.broadcast_to((jnp.arange(K) % 2 == 0)[None], (Q, K)).astype(jnp.float32)
    by_group = jax.tree.map(lambda x: x.reshape(Q, K, *x.shape[1:]), rollout)
    groups = Groups(
        prompt_Q=requests.problem_Q,
        token_QKT=by_group.token_BT,
        logp_QKT=by_group.logp_BT,
        length_QK=by_group.length_B,
        truncated_QK=by_group.truncated_B,
        verdict_QK=jnp.zeros((Q, K), jnp.int32),
        reward_QK=reward_QK,
        rate_Q=jnp.mean(reward_QK, axis=1),
    )
    places = step.config.prompts_per_step
    room = empty_groups(round_up(places + Q, shard_count(step.mesh)), K, rollout.token_BT.shape[1])
    pool, count = append_groups(layout.split_rows(room, step.mesh), jnp.int32(0), groups, jnp.ones(Q, bool))
    return jax.tree.map(lambda x: x[:places], pool), jnp.minimum(count, places)


def compare(scores: Scores) -> str:
    """Compares the bits of the log-probs; returns how many agree. Arguments and errors as `rehearse`."""
    is_compared = scores.answer >= 0
    sampler, trainer = (np.asarray(x, np.float32) for x in scores[:2])
    differs = is_compared & (sampler.view(np.int32) != trainer.view(np.int32))
    count, compared = int(differs.sum()), int(is_compared.sum())
    if not count:
        return f"bitwise   {compared:,} log-probs of the rehearsal are the trainer's in every bit"
    place = tuple(np.argwhere(differs)[0])
    update, shard, row, column = place
    raise ValueError(
        f"config.model.bitwise=true: in the rehearsal, {count:,} of {compared:,} log-probs of the sampler are not the "
        f"trainer's. The first: token {scores.token[place]} after position {scores.position[place]} of its sequence "
        f"(update {update}, data shard {shard}, row {row}, place {column}): {sampler[place]:.9g} by the sampler, "
        f"{trainer[place]:.9g} by the trainer. This compiler does not keep the two alike on these devices; use "
        f"config.model.bitwise=false"
    )


def check_gap(config: Config, step: int, metrics: dict) -> None:
    """Checks the gap between sampler and trainer in a step of a run with `model.bitwise`.

    Raises:
      FloatingPointError: When it is not exactly 0.
    """
    if config.model.bitwise and metrics["sampler_gap_max"]:
        raise FloatingPointError(
            f"config.model.bitwise=true: in step {step} a log-prob of the sampler is off the trainer's by "
            f"{metrics['sampler_gap_max']:.3g}, though all agreed in the rehearsal"
        )
