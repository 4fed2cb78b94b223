"""The training step: one jitted, donated program that samples, verifies, selects, packs and learns.

    state, prompts → rollout → verify → groups → selection → minibatches → packing → updates → state

`Step` holds the parts of an experiment; its `__call__` is the program. Only the verifier runs on the host.

A prompt passes through nine files on its way to an update:

| file | what happens there |
| --- | --- |
| `step.py` | The whole step: rounds of sampling until enough groups train, then minibatches, then updates. |
| `data/order.py` | The cursor and the seed choose the next prompts; each prompt comes once an epoch. |
| `rollout/engine.py` | Requests are spread over the mesh; slots that a round leaves free begin with the next. |
| `rollout/decode_loop.py` | The decode slots of a data shard answer its prompts; `sampling.py` draws each token. |
| `verify/callback.py` | Answers leave the device as tokens and come back as verdicts. |
| `update/groups.py` | A prompt's answers and verdicts become a group with its success rate; mixed groups are kept. |
| `update/minibatches.py` | Groups are split over the optimizer updates of the step and over the data shards. |
| `update/packing.py` | Answers of all lengths are packed into rows of tokens. |
| `update/update.py` | Micro-batches of rows give the gradient of a loss (`losses/`); optax makes an update of it. |
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from nft_jax.config import Config
from nft_jax.data.order import prompt_order
from nft_jax.losses import Loss, TokenReward
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import shard_count, tensor_groups_are_local
from nft_jax.randomness import stream
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.state import Progress, Requests
from nft_jax.rounding import round_up
from nft_jax.state import GradedRound, Record, SamplingState, State, record_partial
from nft_jax.types import Array, Groups, Prompts, Totals
from nft_jax.update.groups import (
    add_statistics,
    add_step,
    append_groups,
    empty_groups,
    empty_statistics,
    make_groups,
    measure_ages,
    select_groups,
    split_pool,
)
from nft_jax.update.minibatches import find_recomputed, make_minibatches, pack_shards
from nft_jax.update.packing import PackedRows, replace_values
from nft_jax.update.update import UpdateOutcome, Updater
from nft_jax.update.watch import describe_watched, number_watched
from nft_jax.verify.callback import Grader, Submitter, verify


@dataclass(frozen=True)
class Step:
    """The parts of one experiment's step, bound together; `__call__` is the program to jit.

    Attributes:
      token_reward: A reward for each token, from a function of the user's own; None without one.
      teacher: Reads answers with the weights of `State.teacher`; None without a teacher.
    """

    config: Config
    mesh: Mesh
    engine: Engine
    grader: Grader
    loss: Loss
    updater: Updater
    token_reward: TokenReward | None = None
    teacher: Updater | None = None

    def __call__(self, state: State, prompts: Prompts) -> tuple[State, Record]:
        """Takes one step: fills the training buffer, then takes `updates_per_step` optimizer updates on it."""
        config, carried, in_flight, partial = self.config, None, None, None
        with jax.default_matmul_precision(config.model.precision):
            sampled, from_carry = self.sample(state, prompts)
            split = split_pool(sampled.pool, sampled.count, config.prompts_per_step, config.carry_capacity)
            buffer = self._tell_age(split.buffer, from_carry)
            kept_Q = self._select(sampled.last)
            before = sampled.count - jnp.sum(kept_Q, dtype=jnp.int32)
            watched_Q = number_watched(config, before, split.trained)
            packed, totals = self.pack(buffer, split.trained, prompts, state.step, watched_Q)
            weights, optimizer_state, applied = self.update(state, packed, totals)
        watched = describe_watched(config, kept_Q, before, split.trained, applied.statistics.seen)
        applied = applied._replace(statistics=applied.statistics._replace(seen=None))
        if config.carry_capacity:
            # Fewer groups are carried than the next step trains on, so it trains on all: none is older than a step.
            carried = layout.replicate(add_step(split.surplus), self.mesh), split.carried
        if config.rollout.partial:
            in_flight = self.engine.keep(sampled.progress)
            ages = measure_ages(buffer, split.trained)
            partial = record_partial(state.in_flight, in_flight, sampled.draw_RQ, ages, self.mesh)
        finished, counts = (sampled.statistics, sampled.rounds), (split.trained, from_carry, split.wasted)
        record = Record(*finished, applied, totals, *counts, sampled.last, sampled.length_RQK, partial, watched)
        state = state._replace(
            weights=weights,
            optimizer_state=optimizer_state,
            step=state.step + 1,
            cursor=sampled.cursor,
            carried=carried,
            in_flight=in_flight,
        )
        return state, record

    def sample(self, state: State, prompts: Prompts) -> tuple[SamplingState, Array]:
        """Samples rounds until the pool holds enough groups or `max_rounds` is reached.

        Returns:
          The sampling state, and how many groups of the pool were carried from the previous step.
        """
        config, selection = self.config, self.config.selection
        Q, candidates, partial = config.prompts_per_step, config.candidates_per_round, config.rollout.partial
        shape = config.answers_per_prompt, config.rollout.max_answer_tokens, config.verify.graded, partial
        sampling_weights = self.engine.sampling_weights(state.model_weights)
        sample_round = functools.partial(self.sample_round, sampling_weights, prompts)
        # The pool is padded so that it divides over the data shards.
        pool = layout.split_rows(empty_groups(round_up(Q + candidates, shard_count(self.mesh)), *shape), self.mesh)
        from_carry = jnp.int32(0)
        if state.carried is not None:
            carried, many = state.carried
            pool, from_carry = append_groups(pool, from_carry, carried, jnp.arange(carried.prompt_Q.shape[0]) < many)

        def unfilled(sampled: SamplingState) -> Array:
            return (sampled.count < Q) & (sampled.rounds < selection.max_rounds)

        def take_round(sampled: SamplingState) -> SamplingState:
            begins_next = jnp.bool_(True) if partial else sampled.rounds + 1 < selection.max_rounds
            progress, graded = sample_round(sampled.cursor, sampled.progress, begins_next)
            length_RQK = sampled.length_RQK.at[sampled.rounds].set(graded.groups.length_QK)
            draw_RQ = jax.tree.map(lambda x: x.at[sampled.rounds].set(graded.draw_Q), sampled.draw_RQ)
            kept_Q, seen = self._select(graded.groups), (graded.groups, graded.host, graded.capacity_X)
            pool, count = append_groups(sampled.pool, sampled.count, graded.groups, kept_Q)
            return SamplingState(
                pool=layout.split_rows(pool, self.mesh),
                count=count,
                cursor=sampled.cursor + candidates,
                rounds=sampled.rounds + 1,
                statistics=add_statistics(sampled.statistics, *seen, kept_Q=kept_Q),
                last=graded.groups,
                length_RQK=layout.split_rows(length_RQK, self.mesh, axis=1),
                draw_RQ=draw_RQ,
                progress=progress,
            )

        no_groups = layout.split_rows(empty_groups(candidates, *shape), self.mesh)
        no_lengths = jnp.zeros((selection.max_rounds, candidates, shape[0]), jnp.int32)
        no_lengths = layout.split_rows(no_lengths, self.mesh, axis=1)
        requests, no_draws = self._ask(prompts, state.cursor, state.in_flight), None
        if state.in_flight is None:
            progress = self.engine.start(sampling_weights, requests)
        else:
            progress = self.engine.resume(sampling_weights, requests, state.in_flight)
            no_draws = jnp.zeros((selection.max_rounds, candidates), jnp.int32)
        nothing = empty_statistics(), no_groups, no_lengths, no_draws
        start = SamplingState(pool, from_carry, state.cursor, jnp.int32(0), *nothing, progress)
        return jax.lax.while_loop(unfilled, take_round, start), from_carry

    def _select(self, groups: Groups) -> Array:
        """Returns which groups may train, bool `[Q]`."""
        bounds = self.config.selection.rate_above, self.config.selection.rate_below
        return select_groups(groups, self.loss.groups, *bounds, by_verdicts=self.loss.by_verdicts)

    def sample_round(
        self, sampling_weights: Any, prompts: Prompts, cursor: Array, progress: Progress, begins_next: Array
    ) -> tuple[Progress, GradedRound]:
        """Samples one round: K answers to each of the next candidate prompts, graded."""
        requests = self._ask(prompts, cursor, progress)
        progress, (rollout, capacity_X, ticket_X, age_B, draw_Q) = self.engine.finish_round(
            sampling_weights,
            progress,
            requests,
            stream(self.config.seed, "rollout"),
            begins_next,
            self._submitter(),
        )
        problem_Q, request_QK = requests.problem_Q[0], requests.request_QK[0]
        if draw_Q is not None:
            problem_Q, request_QK = self._number(prompts, draw_Q)
        verdict_B, host = verify(
            self.grader,
            self.mesh,
            jnp.repeat(problem_Q, request_QK.shape[1]),
            rollout.token_BT,
            rollout.length_B,
            ~rollout.truncated_B,
            request_QK.reshape(-1),
            ticket_X,
            rewards=self.config.verify.graded,
        )
        groups = layout.split_rows(make_groups(problem_Q, rollout, verdict_B, host.reward_B, age_B), self.mesh)
        return progress, GradedRound(groups, host, capacity_X, draw_Q)

    def _ask(self, prompts: Prompts, cursor: Array, progress: Progress | None) -> Requests:
        """Returns the requests of the next round, and of those that `progress` may begin."""
        rounds, shards = 1 + self.config.rollout.rounds_ahead, shard_count(self.mesh)
        return self.next_requests(prompts, cursor, progress.draws(rounds, shards) if rounds > 1 else None)

    def next_requests(self, prompts: Prompts, cursor: Array, draw_RQ: Array | None = None) -> Requests:
        """Returns the requests of these draws, `[rounds, Q, …]`.

        Without draws: of the round at the cursor, and of the next one if free slots may begin with it.
        """
        config, selection = self.config, self.config.selection
        if draw_RQ is None:
            rounds, Q = 2 if selection.begin_next_round and selection.max_rounds > 1 else 1, config.candidates_per_round
            draw_RQ = cursor + jnp.arange(rounds * Q, dtype=jnp.int32).reshape(rounds, Q)
        problem_Q, request_QK = self._number(prompts, draw_RQ.reshape(-1))
        requests = Requests(
            prompts=Prompts(prompts.token_QP[problem_Q], prompts.length_Q[problem_Q]),
            problem_Q=problem_Q,
            request_QK=request_QK,
            limit_QK=jnp.full(request_QK.shape, config.rollout.max_answer_tokens, jnp.int32),
            greedy_QK=jnp.zeros(request_QK.shape, bool),
        )
        by_round = jax.tree.map(lambda x: x.reshape(*draw_RQ.shape, *x.shape[1:]), requests)
        return layout.split_rows(by_round, self.mesh, axis=1)

    def _submitter(self) -> Submitter | None:
        """Returns what submits answers while others are decoded; None: all are submitted after the round."""
        answers = self.config.verify.answers_per_submission
        # A partial round decides at its end which device collects an answer: any, so it must be of the same process.
        known = not self.config.rollout.partial or tensor_groups_are_local(self.mesh)
        return Submitter(self.grader, self.mesh, answers) if answers and known else None

    def _number(self, prompts: Prompts, draw_Q: Array) -> tuple[Array, Array]:
        """Returns the problems of these draws `[Q]`, and the numbers of the requests `[Q, K]` for them."""
        K = self.config.answers_per_prompt
        problem_Q = prompt_order(stream(self.config.seed, "order"), prompts.length_Q.shape[0], draw_Q)
        first_Q = draw_Q.astype(jnp.uint32) * jnp.uint32(K)
        return problem_Q, first_Q[:, None] + jnp.arange(K, dtype=jnp.uint32)[None]

    def pack(
        self, buffer: Groups, trained: Array, prompts: Prompts, step: Array, watched_Q: Array | None = None
    ) -> tuple[PackedRows, Totals]:
        """Splits the groups over updates and data shards, and packs each shard's answers into rows.

        The tokens of groups with a number in `watched_Q`, not −1, are recorded.
        """
        config = self.config
        sequences, totals = make_minibatches(
            buffer,
            trained,
            prompts,
            self.loss,
            updates=config.updates_per_step,
            max_answer_tokens=config.rollout.max_answer_tokens,
            key=jax.random.fold_in(stream(config.seed, "pairs"), step),
            mesh=self.mesh,
            token_reward=self.token_reward,
            watched_Q=watched_Q,
        )
        packed = pack_shards(sequences, config, self.loss.unit, shared=config.prompts_are_shared)
        return layout.split_rows(packed, self.mesh, axis=1), totals

    def _tell_age(self, buffer: Groups, from_carry: Array) -> Groups:
        """Returns the groups with their ages, if there may be older ones: the first `from_carry` were carried."""
        if buffer.age_QK is not None or not self.config.carry_capacity:
            return buffer
        Q, K = buffer.reward_QK.shape
        is_carried_Q = jnp.arange(Q) < from_carry
        return buffer._replace(age_QK=jnp.repeat(is_carried_Q.astype(jnp.int32), K).reshape(Q, K))

    def update(self, state: State, packed: PackedRows, totals: Totals) -> UpdateOutcome:
        """Takes `updates_per_step` optimizer updates, one after the other; `applied` has a leading axis `[updates]`."""
        updater = self.updater.freeze(state.frozen)
        packed = _recompute(updater, state.weights, packed, find_recomputed(self.config, self.loss))
        if self.teacher is not None:
            taught = jax.lax.map(lambda minibatch: self.teacher.logp(state.teacher, minibatch), packed)
            packed = replace_values(packed, teacher_logp_BT=taught)

        def take_update(carry, inputs):
            packed, totals, index, key = inputs
            weights, optimizer_state, applied = updater(*carry, packed, totals, state.reference, index == 0, key)
            return (weights, optimizer_state), applied

        count, key_O = self.config.updates_per_step, None
        if "key" in self.loss.reads:
            key_O = jax.random.split(jax.random.fold_in(stream(self.config.seed, "loss"), state.step), count)
        inputs = packed, totals, jnp.arange(count), key_O
        (weights, optimizer_state), applied = jax.lax.scan(take_update, (state.weights, state.optimizer_state), inputs)
        return UpdateOutcome(weights, optimizer_state, applied)


def _recompute(updater: Updater, weights: Any, packed: PackedRows, minibatches: range) -> PackedRows:
    """Replaces the sampler's `old_logp` of these minibatches by log-probs of a forward pass with the weights."""
    if not minibatches:
        return packed

    def fill(old_OXBT, index):
        logp_XBT = updater.logp(weights, jax.tree.map(lambda x: x[index], packed))
        return old_OXBT.at[index].set(logp_XBT), None

    old_OXBT, _ = jax.lax.scan(fill, packed.rows.batch.old_logp_BT, jnp.asarray(minibatches))
    return replace_values(packed, old_logp_BT=old_OXBT)
