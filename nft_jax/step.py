"""The page: one jitted, donated program that samples, verifies, selects, packs and learns.

    state, prompts → rollout → verify → groups → select → deal → pack → updates → state

`Step` binds the parts of an experiment; calling it is the program. Nothing runs on the host between its parts, but the
verifier that it calls.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from nft_jax.config import Config
from nft_jax.data.order import prompt_order
from nft_jax.losses import Loss
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import shard_count
from nft_jax.randomness import stream
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.state import Progress, Requests
from nft_jax.state import Record, State
from nft_jax.types import Array, Groups, Prompts, Totals
from nft_jax.update.groups import (
    RolloutStatistics,
    add_statistics,
    append_groups,
    empty_groups,
    empty_statistics,
    make_groups,
    select_groups,
)
from nft_jax.update.minibatches import make_minibatches, pack_shards
from nft_jax.update.packing import Packed
from nft_jax.update.update import Applied, Updater
from nft_jax.verify.callback import Grader, HostReport, Submitter, verify


class Sampling(NamedTuple):
    """State of the rounds: `pool` holds `count` good groups, those of the training buffer first.

    `progress`  what the engine has under way: nothing, or answers of the round to come
    """

    pool: Groups
    count: Array
    cursor: Array
    rounds: Array
    statistics: RolloutStatistics
    last: Groups
    progress: Progress


@dataclass(frozen=True)
class Step:
    """The parts of one experiment's step, bound together; `__call__` is the program to jit."""

    config: Config
    mesh: Mesh
    engine: Engine
    grader: Grader
    loss: Loss
    updater: Updater

    def __call__(self, state: State, prompts: Prompts) -> tuple[State, Record]:
        """One step: fills the training buffer, then takes `updates_per_step` optimizer updates on it."""
        with jax.default_matmul_precision(self.config.model.precision):
            sampled, from_carry = self.sample(state, prompts)
            buffer, trained, carried, wasted = self.split_pool(sampled, from_carry)
            packed, totals = self.pack(buffer, trained, prompts, state.step)
            weights, optimizer_state, applied = self.update(state, packed, totals)
        record = Record(sampled.statistics, sampled.rounds, applied, totals, trained, from_carry, wasted, sampled.last)
        return State(weights, optimizer_state, state.step + 1, sampled.cursor, carried, state.reference), record

    def sample(self, state: State, prompts: Prompts) -> tuple[Sampling, Array]:
        """Rounds of rollout → verify → groups → selection, until the buffer is full or the rounds are used up."""
        config = self.config
        Q, K, T = config.prompts_per_step, config.answers_per_prompt, config.rollout.max_answer_tokens
        C = config.candidates_per_round
        sampling_weights = self.engine.sampling_weights(state.weights)
        pool, count = layout.split_rows(empty_groups(self._padded(Q + C), K, T), self.mesh), jnp.int32(0)
        if state.carried is not None:
            carried, many = state.carried
            pool, count = append_groups(pool, count, carried, jnp.arange(carried.prompt_Q.shape[0]) < many)
        from_carry = count

        def round_(sampling: Sampling) -> Sampling:
            # A round begins early where the one before it may not be enough; it can't be known yet whether it is.
            ahead = unfilled(sampling) & (sampling.rounds + 1 < config.selection.max_rounds)
            progress, groups, *effort = self.sample_round(
                sampling_weights, prompts, sampling.cursor, sampling.progress, ahead
            )
            kept_C = select_groups(groups, self.loss.groups, config.selection.rate_above, config.selection.rate_below)
            pool, count = append_groups(sampling.pool, sampling.count, groups, kept_C)
            return Sampling(
                pool=layout.split_rows(pool, self.mesh),
                count=count,
                cursor=sampling.cursor + C,
                rounds=sampling.rounds + 1,
                statistics=add_statistics(sampling.statistics, groups, kept_C, *effort),
                last=groups,
                progress=progress,
            )

        def unfilled(sampling: Sampling) -> Array:
            return (sampling.count < Q) & (sampling.rounds < config.selection.max_rounds)

        def unfinished(sampling: Sampling) -> Array:
            if config.selection.ahead != "finish":
                return unfilled(sampling)
            return unfilled(sampling) | jnp.any(sampling.progress.queue > 0)

        none = layout.split_rows(empty_groups(C, K, T), self.mesh)
        progress = self.engine.begin(sampling_weights, self.next_requests(prompts, state.cursor))
        start = Sampling(pool, count, state.cursor, jnp.int32(0), empty_statistics(), none, progress)
        return jax.lax.while_loop(unfinished, round_, start), from_carry

    def sample_round(
        self, sampling_weights: Any, prompts: Prompts, cursor: Array, progress: Progress, ahead: Array
    ) -> tuple[Progress, Groups, HostReport, Array]:
        """One round: the next candidates, K answers to each, graded; what the host says, and the slots' capacity."""
        window = self.next_requests(prompts, cursor)
        key = stream(self.config.seed, "rollout")
        progress, (rollout, capacity_n, ticket_n) = self.engine.round(
            sampling_weights, progress, window, key, ahead, self.submitter
        )
        problem_C, request_CK = window.problem_Q[0], window.request_QK[0]
        verdict_B, host = verify(
            self.grader,
            self.mesh,
            jnp.repeat(problem_C, request_CK.shape[1]),
            rollout.token_BT,
            rollout.length_B,
            ~rollout.truncated_B,
            request_CK.reshape(-1),
            ticket_n,
        )
        groups = layout.split_rows(make_groups(problem_C, rollout, verdict_B), self.mesh)
        return progress, groups, host, capacity_n

    def next_requests(self, prompts: Prompts, cursor: Array) -> Requests:
        """The candidates of the round that begins at the cursor and, where it may begin early, of the one after it."""
        C, K = self.config.candidates_per_round, self.config.answers_per_prompt
        rounds = 1 if self.config.selection.ahead == "no" or self.config.selection.max_rounds == 1 else 2
        order = stream(self.config.seed, "order")
        problem_C = prompt_order(order, prompts.length_N.shape[0], cursor, rounds * C)
        draw_C = (cursor + jnp.arange(rounds * C, dtype=jnp.int32)).astype(jnp.uint32) * jnp.uint32(K)
        requests = Requests(
            prompts=Prompts(prompts.token_NP[problem_C], prompts.length_N[problem_C]),
            problem_Q=problem_C,
            request_QK=draw_C[:, None] + jnp.arange(K, dtype=jnp.uint32)[None],
            greedy_QK=jnp.zeros((rounds * C, K), bool),
        )
        window = jax.tree.map(lambda x: x.reshape(rounds, C, *x.shape[1:]), requests)
        return layout.split_rows(window, self.mesh, axis=1)

    @property
    def submitter(self) -> Submitter | None:
        """What hands ended answers to the verifier while others are decoded; None: all go at the end of a round."""
        answers = self.config.verify.answers_per_submission
        return Submitter(self.grader, self.mesh, answers) if answers else None

    def split_pool(self, sampled: Sampling, from_carry: Array):
        """The training buffer and its count, the surplus that is carried (only this step's), and how many are lost."""
        Q, capacity = self.config.prompts_per_step, self.config.carry_capacity
        buffer, trained = jax.tree.map(lambda x: x[:Q], sampled.pool), jnp.minimum(sampled.count, Q)
        surplus = sampled.count - trained
        if not self.config.selection.carry:
            return buffer, trained, None, surplus
        # Fewer than Q are ever carried, so all of them went into the buffer: the surplus is at most one step old.
        many = jnp.minimum(surplus, capacity)
        carried = jax.tree.map(lambda x: x[Q : Q + capacity], sampled.pool)
        return buffer, trained, (layout.replicate(carried, self.mesh), many), surplus - many

    def pack(self, buffer: Groups, trained: Array, prompts: Prompts, step: Array) -> tuple[Packed, Totals]:
        """Deals the groups over updates and data shards, and packs each shard's units into rows."""
        key = jax.random.fold_in(stream(self.config.seed, "pairs"), step)
        config, mesh = self.config, self.mesh
        sequences, totals = make_minibatches(
            buffer,
            trained,
            prompts,
            self.loss,
            updates=config.updates_per_step,
            max_answer_tokens=config.rollout.max_answer_tokens,
            key=key,
            mesh=mesh,
        )
        packed = pack_shards(sequences, config, self.loss.unit, shared=config.prompts_are_shared)
        return layout.split_rows(packed, mesh, axis=1), totals

    def update(self, state: State, packed: Packed, totals: Totals) -> tuple[Any, Any, Applied]:
        """`updates_per_step` optimizer updates, one after the other."""
        if self.config.old_logp == "recompute":
            packed = jax.lax.map(lambda one: self.updater.recompute(state.weights, one), packed)

        def one(carry, inputs):
            weights, optimizer_state = carry
            packed, totals, index = inputs
            weights, optimizer_state, applied = self.updater(
                weights, optimizer_state, packed, totals, state.reference, index == 0
            )
            return (weights, optimizer_state), applied

        inputs = (packed, totals, jnp.arange(self.config.updates_per_step))
        (weights, optimizer_state), applied = jax.lax.scan(one, (state.weights, state.optimizer_state), inputs)
        return weights, optimizer_state, applied

    def _padded(self, groups: int) -> int:
        """The next multiple of the data shards, so that the pool divides over them."""
        shards = shard_count(self.mesh)
        return -(-groups // shards) * shards
