"""The page: one jitted, donated program that samples, verifies, selects, packs and learns.

    state, prompts → rollout → verify → groups → select → deal → pack → updates → state

`Step` binds the parts of an experiment; calling it is the program. Nothing runs on the host between its parts, but the
verifier that it calls.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nft_jax.config import Config
from nft_jax.data.order import prompt_order
from nft_jax.losses import UNITS, Loss
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import TENSOR, shard_count
from nft_jax.randomness import stream
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.shard import Progress, Requests
from nft_jax.training.deal import deal, units_per_group
from nft_jax.training.groups import Tally, empty_groups, empty_tally, in_band, insert, make_groups, tally
from nft_jax.training.packing import Packed, pack, row_tokens_needed, rows_needed
from nft_jax.training.shared_prompts import prompts_at_once
from nft_jax.training.update import Applied, Updater
from nft_jax.types import Array, Groups, Prompts, Totals
from nft_jax.verify.callback import Grader, Host, Submitter, verify


class State(NamedTuple):
    """Everything that a step changes: donated to the next step, and checkpointed.

    `weights`          nested dict of float32 arrays, in the training layout
    `optimizer_state`  optax's, laid out as the weights
    `step`             int32, steps done
    `cursor`           int32, prompts drawn so far, over all rounds; it numbers the requests
    `carried`          surplus good groups of the last step and how many there are, or None (`selection.carry`)
    `reference`        frozen weights of the KL term, or None (`loss.kl_weight = 0`)
    """

    weights: Any
    optimizer_state: Any
    step: Array
    cursor: Array
    carried: tuple[Groups, Array] | None
    reference: Any


class Record(NamedTuple):
    """What a step tells the host.

    `tally`    everything that was sampled             `rounds`   rounds of dynamic sampling
    `applied`  `[updates]`: what became of each        `totals`   `[updates]`: what each held
    `trained`  groups trained on   `from_carry`  of which carried from the step before    `wasted`  good groups lost
    `last`     the last round's groups, for the rollout log (None where a step is not in it)
    """

    tally: Tally
    rounds: Array
    applied: Applied
    totals: Totals
    trained: Array
    from_carry: Array
    wasted: Array
    last: Groups | None


class Sampling(NamedTuple):
    """State of the rounds: `pool` holds `count` good groups, those of the training buffer first.

    `progress`  what the engine has under way: nothing, or answers of the round to come
    """

    pool: Groups
    count: Array
    cursor: Array
    rounds: Array
    tally: Tally
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
        record = Record(sampled.tally, sampled.rounds, applied, totals, trained, from_carry, wasted, sampled.last)
        return State(weights, optimizer_state, state.step + 1, sampled.cursor, carried, state.reference), record

    def sample(self, state: State, prompts: Prompts) -> tuple[Sampling, Array]:
        """Rounds of rollout → verify → groups → selection, until the buffer is full or the rounds are used up."""
        config = self.config
        Q, K, T = config.prompts_per_step, config.answers_per_prompt, config.rollout.answer_limit
        C = config.candidates_per_round
        view = self.engine.view(state.weights)
        pool, count = layout.rows(empty_groups(self._padded(Q + C), K, T), self.mesh), jnp.int32(0)
        if state.carried is not None:
            carried, many = state.carried
            pool, count = insert(pool, count, carried, jnp.arange(carried.prompt_Q.shape[0]) < many)
        from_carry = count

        def round_(sampling: Sampling) -> Sampling:
            # A round begins early where the one before it may not be enough; it can't be known yet whether it is.
            ahead = unfilled(sampling) & (sampling.rounds + 1 < config.selection.max_rounds)
            progress, groups, *effort = self.roll(view, prompts, sampling.cursor, sampling.progress, ahead)
            kept_C = in_band(groups, self.loss.groups, config.selection.low, config.selection.high)
            pool, count = insert(sampling.pool, sampling.count, groups, kept_C)
            return Sampling(
                pool=layout.rows(pool, self.mesh),
                count=count,
                cursor=sampling.cursor + C,
                rounds=sampling.rounds + 1,
                tally=tally(sampling.tally, groups, kept_C, *effort),
                last=groups,
                progress=progress,
            )

        def unfilled(sampling: Sampling) -> Array:
            return (sampling.count < Q) & (sampling.rounds < config.selection.max_rounds)

        def unfinished(sampling: Sampling) -> Array:
            if config.selection.ahead != "finish":
                return unfilled(sampling)
            return unfilled(sampling) | jnp.any(sampling.progress.queue > 0)

        none = layout.rows(empty_groups(C, K, T), self.mesh)
        progress = self.engine.begin(view, self.window(prompts, state.cursor))
        start = Sampling(pool, count, state.cursor, jnp.int32(0), empty_tally(), none, progress)
        return jax.lax.while_loop(unfinished, round_, start), from_carry

    def roll(
        self, view: Any, prompts: Prompts, cursor: Array, progress: Progress, ahead: Array
    ) -> tuple[Progress, Groups, Host, Array]:
        """One round: the next candidates, K answers to each, graded; what the host says, and the slots' capacity."""
        window = self.window(prompts, cursor)
        key = stream(self.config.seed, "rollout")
        progress, (rollout, capacity_n, ticket_n) = self.engine.round(
            view, progress, window, key, ahead, self.submitter
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
        groups = layout.rows(make_groups(problem_C, rollout, verdict_B), self.mesh)
        return progress, groups, host, capacity_n

    def window(self, prompts: Prompts, cursor: Array) -> Requests:
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
        return layout.rows(window, self.mesh, axis=1)

    @property
    def submitter(self) -> Submitter | None:
        """What hands ended answers to the verifier while others are decoded; None: all go at the end of a round."""
        answers = self.config.verify.submit
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
        return buffer, trained, (layout.replicated(carried, self.mesh), many), surplus - many

    def pack(self, buffer: Groups, trained: Array, prompts: Prompts, step: Array) -> tuple[Packed, Totals]:
        """Deals the groups over updates and data shards, and packs each shard's units into rows."""
        key = jax.random.fold_in(stream(self.config.seed, "pairs"), step)
        config, mesh = self.config, self.mesh
        sequences, totals = deal(
            buffer,
            trained,
            prompts,
            self.loss,
            updates=config.updates_per_step,
            answer_limit=config.rollout.answer_limit,
            key=key,
            mesh=mesh,
        )
        packed = pack_shards(sequences, config, self.loss.unit, shared=config.prompts_are_shared)
        return layout.rows(packed, mesh, axis=1), totals

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


def row_tokens(config: Config, unit: str, shared: bool) -> int:
    """Places of a packed row: as many as the config says, and enough for any unit."""
    limits = config.data.prompt_limit, config.rollout.answer_limit
    return max(config.packing.row_tokens, row_tokens_needed(*limits, UNITS[unit], shared))


def _split_tokens(config: Config, unit: str) -> dict[str, int]:
    """How long rows are where their tokens are split, by the setting that says it."""
    if not config.mesh.sequence_parallel:
        return {}
    shared = config.prompts_are_shared
    rows = {"config.packing.row_tokens": row_tokens(config, unit, shared)}
    return rows | ({"config.data.prompt_limit": config.data.prompt_limit} if shared else {})


def _multiple(size: int, of: int) -> int:
    return -(-size // of) * of


def check_sizes(config: Config, loss: Loss, mesh: Mesh) -> None:
    """Checks that answers and units divide over the mesh.

    Raises:
      ValueError: with the sizes that would work.
    """
    shards, faults = shard_count(mesh), []
    Q, K, U = config.prompts_per_step, config.answers_per_prompt, config.updates_per_step
    C = config.candidates_per_round
    if C % shards:
        near = f"{C - C % shards} or {C - C % shards + shards}" if shards < C else f"{shards}"
        faults.append(f"{C} candidate prompts a round are not divisible by {shards} data shards; use {near}")
    if C * K % mesh.size:
        faults.append(
            f"{C} prompts × {K} answers = {C * K} answers are not divisible by {mesh.size} devices, which grade them"
        )
    each = units_per_group(loss.unit, K)
    units = Q // U * each
    if units % shards or not units:
        faults.append(
            f"an update's {Q // U} prompts × {each} {loss.unit}s = {units} units are not divisible by {shards} data "
            f"shards; change prompts_per_step={Q}, answers_per_prompt={K} or updates_per_step={U}"
        )
    T, parts = mesh.shape[TENSOR], _split_tokens(config, loss.unit)
    faults += [
        f"config.mesh.sequence_parallel=true splits rows of {setting}={tokens} tokens over mesh.tensor={T}, which does "
        f"not divide them; use {tokens + -tokens % T}, or sequence_parallel=false"
        for setting, tokens in parts.items()
        if tokens % T
    ]
    if config.model.kv_heads % T:
        faults.append(
            f"{config.model.kv_heads} key-value heads are not divisible by mesh.tensor={T}; "
            f"use a tensor axis that divides them"
        )
    if faults:
        raise ValueError("the step does not divide over the mesh:\n  " + "\n  ".join(faults))


def compile_step(step: Step, state: State, prompts: Prompts, state_shardings: State):
    """The jitted, donated program, compiled ahead of its first call."""
    whole = NamedSharding(step.mesh, PartitionSpec())
    # Every process reads the numbers; the groups stay in parts, which only a step that writes them brings together.
    record = Record(**{name: whole for name in Record._fields} | {"last": None})

    def train_step(state, prompts):
        return step(state, prompts)

    jitted = jax.jit(
        train_step, in_shardings=(state_shardings, whole), out_shardings=(state_shardings, record), donate_argnums=0
    )
    return jitted.lower(state, prompts).compile()
