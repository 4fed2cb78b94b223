"""One optimizer update from one minibatch of packed rows: micro-batches, one gradient, one step of optax."""

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from nft_jax import losses
from nft_jax.config import Config
from nft_jax.models import transformer
from nft_jax.models.logprobs import logp_and_entropy
from nft_jax.models.lora import join_weights, split_weights
from nft_jax.parallel import layout, scopes
from nft_jax.parallel.mesh import REPLICA
from nft_jax.randomness import stream
from nft_jax.types import Array, LossBatch, Totals
from nft_jax.update.optimizer import Optimizer, update_if
from nft_jax.update.packing import PackedRows, Rows
from nft_jax.update.shared_prompts import SharedPrompts, loop_micro_batches, make_prompt_keys
from nft_jax.update.statistics import UpdateStatistics, measure, no_statistics
from nft_jax.update.watch import see, see_nothing


class UpdateRecord(NamedTuple):
    """The outcome of one update.

    Attributes:
      taken: float32, 1 if the update was taken, else 0.
      nonfinite: float32, 1 if it was not taken because its gradient was not finite.
      gradient_norm: float32, global norm before clipping.
      rejected: float32, answer tokens that the loss's `prepare` took out of the minibatch; None for a loss without one.
    """

    taken: Array
    nonfinite: Array
    gradient_norm: Array
    statistics: UpdateStatistics
    rejected: Array | None = None


class UpdateOutcome(NamedTuple):
    """The weights and the optimizer's state after an update, and its record."""

    weights: Any
    optimizer_state: Any
    applied: UpdateRecord


class _Accumulated(NamedTuple):
    """Sums over the micro-batches so far: the gradients of weights and of shared prompts' keys, and statistics."""

    gradient: Any
    by_keys: Any
    statistics: UpdateStatistics


class Updater:
    """Optimizer updates of one model with one loss on one mesh; call it inside a jitted program.

    `graph` and `axes` are those of the model with its adapters, if it has some.
    """

    def __init__(
        self,
        config: Config,
        loss: losses.Loss,
        optimizer: Optimizer,
        graph: nnx.GraphDef,
        axes: Any,
        mesh: Mesh,
        *,
        old_logp: str,
        normalizer: str,
    ):
        self.config, self.loss, self.optimizer, self.graph, self.mesh = config, loss, optimizer, graph, mesh
        self.old_logp, self.normalizer = old_logp, normalizer
        self.constant_tokens = config.loss.constant_tokens or config.rollout.max_answer_tokens
        self.specs = layout.specs(split_weights(axes)[0], layout.TRAINING)
        outer_axes = {name: spec for name, spec in axes.items() if name != "blocks"}
        self.outer_specs = layout.specs(outer_axes, layout.GENERATION)
        self.placement = layout.layer_placement(mesh, axes["blocks"], sequence_parallel=config.mesh.sequence_parallel)
        self.frozen = None

    @property
    def shared(self) -> SharedPrompts:
        """The prompts that rows share."""
        return SharedPrompts(self.model, self.placement, self.mesh, self.config.packing.rows_per_micro_batch)

    def freeze(self, frozen: Any) -> "Updater":
        """Returns the updater of adapters on these frozen weights; None: all weights train."""
        updater = copy.copy(self)
        updater.frozen = frozen
        return updater

    def __call__(
        self, weights, optimizer_state, packed: PackedRows, totals: Totals, reference, first, key=None
    ) -> UpdateOutcome:
        """Takes one update, or changes nothing (also not the schedule) if nothing trains or the gradient is not finite.

        Args:
          weights, optimizer_state: Those that train, in the training layout.
          packed: The minibatch, with a leading axis of data shards.
          totals: The minibatch's counts, scalars.
          reference: What the KL term compares `weights` with, or None.
          first: Whether the weights are still those that sampled.
          key: The update's random key, for a loss that reads one; None: the same in every update.
        """
        packed, counted = self.prepare(weights, packed, totals, first, key)
        rejected = None if self.loss.prepare is None else totals.tokens - counted.tokens
        totals = counted
        gradient, statistics = self._gradient(weights, packed, totals, reference, first, key)
        norm = optax.tree.norm(gradient)
        present = (totals.pairs if self.loss.unit == "pair" else totals.answers) > 0
        finite = jnp.isfinite(norm)
        is_taken = present & finite
        with jax.named_scope(scopes.OPTIMIZER):
            weights, optimizer_state = update_if(is_taken, self.optimizer, gradient, optimizer_state, weights)
        taken, nonfinite = (x.astype(jnp.float32) for x in (is_taken, present & ~finite))
        return UpdateOutcome(weights, optimizer_state, UpdateRecord(taken, nonfinite, norm, statistics, rejected))

    def prepare(self, weights, packed: PackedRows, totals: Totals, first=True, key=None) -> tuple[PackedRows, Totals]:
        """Lets the loss change the batch of the whole minibatch, over micro-batches and data shards; counts it anew."""
        if self.loss.prepare is None:
            return packed, totals
        rows, logp_XBT = packed.rows, None
        batch = self._fill(rows.batch, rows, key)
        if self.loss.forward:
            logp_XBT = self.logp(weights, packed)
            batch = self._take_old(batch, logp_XBT, first)
        # The rows of all shards are one axis, so that a sum over it is one over the minibatch.
        flat = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), (logp_XBT, batch))
        prepared = self.loss.prepare(*flat)._replace(key_BT=None, sampler_logp_BT=None)
        by_shard = jax.tree.map(lambda x: x.reshape(rows.target_BT.shape), prepared)
        packed = packed._replace(rows=rows._replace(batch=layout.split_rows(by_shard, self.mesh)))
        return packed, losses.count_rows(prepared)

    def gradient(
        self, weights, packed: PackedRows, totals: Totals, reference=None, first=True, key=None
    ) -> tuple[Any, UpdateStatistics]:
        """Computes the gradient of the objective over one minibatch, float32 in the training layout, and statistics.

        The denominators are those of the whole minibatch, so that the cut into micro-batches does not change the
        result. Only micro-batches that hold tokens are run: their number is a runtime value, equal on all data shards.
        Replicas sum their gradients once, after their last micro-batch.
        """
        packed, totals = self.prepare(weights, packed, totals, first, key)
        return self._gradient(weights, packed, totals, reference, first, key)

    def _gradient(self, weights, packed, totals, reference, first, key):
        one_replica = functools.partial(
            self._gradient_of_replica, weights, totals=totals, reference=reference, first=first, key=key
        )
        if self.mesh.shape[REPLICA] == 1:
            return one_replica(packed)
        gradients, statistics = self._map_replicas(one_replica, packed)
        gradient = jax.tree.map(lambda x: jnp.sum(x, axis=0), gradients)
        return layout.constrain(gradient, self.mesh, self.specs), statistics.merge_axis()

    def logp(self, weights, packed: PackedRows) -> Array:
        """Computes the log-probs of the answers' tokens by a forward pass with these weights: `[X, B, T]`."""
        one_replica = functools.partial(self._logp_of_replica, weights)
        if self.mesh.shape[REPLICA] == 1:
            return one_replica(packed)
        return self._map_replicas(one_replica, packed).reshape(packed.rows.target_BT.shape)

    def _map_replicas(self, function: Callable, packed: PackedRows) -> Any:
        """Maps `function` over the replicas; results have a new first axis, which is split over replicas."""
        replicas, (rows, used, prompts, prompts_used) = self.mesh.shape[REPLICA], packed

        def split(tree):
            return jax.tree.map(lambda x: x.reshape(replicas, -1, *x.shape[1:]), tree)

        # All replicas run as many micro-batches as the fullest one.
        most = jax.tree.map(jnp.max, (used, prompts_used))
        over_replicas = jax.vmap(function, in_axes=(PackedRows(0, None, 0, None),), spmd_axis_name=REPLICA)
        return over_replicas(PackedRows(split(rows), most[0], split(prompts), most[1]))

    def _gradient_of_replica(self, weights, packed: PackedRows, *, totals, reference, first, key):
        objective = functools.partial(self._objective, reference=reference, totals=totals, first=first, key=key)
        keys = self.shared.read(weights, packed)
        reference_keys = None if reference is None else self.shared.read(reference, packed)

        def add_micro_batch(rows: Rows, start: Array, so_far: _Accumulated) -> _Accumulated:
            del start
            row_keys, row_reference_keys = (
                self.shared.take_rows(keys, rows),
                self.shared.take_rows(reference_keys, rows),
            )
            differentiate = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
            (_, measured), (new, by_row_keys) = differentiate(weights, row_keys, rows, row_reference_keys)
            by_keys = self.shared.add(so_far.by_keys, by_row_keys, rows)
            return _Accumulated(self._add(so_far.gradient, new), by_keys, so_far.statistics.merge(measured))

        zero = layout.constrain(jax.tree.map(jnp.zeros_like, weights), self.mesh, self.specs)
        nothing = no_statistics(self.loss.metrics, partial=packed.rows.fresh_BT is not None)
        none = jax.tree.map(packed.rows.batch.reward_BT.dtype.type, nothing)
        if packed.rows.watched_BT is not None:
            none = none._replace(seen=see_nothing(self.config, packed.rows.target_BT.shape[0], none.entropy.dtype))
        start = _Accumulated(zero, self.shared.zero_gradient(keys), none)
        gradient, by_keys, statistics = self._loop_rows(packed, add_micro_batch, start)
        return self.shared.pull(weights, packed, by_keys, self._add, gradient), statistics

    def _logp_of_replica(self, weights, packed: PackedRows):
        keys = self.shared.read(weights, packed)

        def fill(rows, start, old_XBT):
            logp_BT, _ = self._logp(weights, self.shared.take_rows(keys, rows), rows)
            logp_BT = jnp.where(rows.batch.answer_BT >= 0, logp_BT, 0.0)
            block = logp_BT.reshape(old_XBT.shape[0], -1, logp_BT.shape[-1])
            return jax.lax.dynamic_update_slice_in_dim(old_XBT, block, start, axis=1)

        return self._loop_rows(packed, fill, packed.rows.batch.old_logp_BT)

    def _add(self, gradient, new):
        return jax.tree.map(jnp.add, gradient, layout.constrain(new, self.mesh, self.specs))

    def _loop_rows(self, packed, body, carry):
        count = self.config.packing.rows_per_micro_batch
        return loop_micro_batches(packed.rows, packed.used, count, self.mesh, body, carry)

    def _objective(self, weights, keys, rows: Rows, reference_keys, *, reference, totals, first, key):
        logp_BT, entropy_BT = self._logp(weights, keys, rows)
        answer_BT = rows.batch.answer_BT
        batch = self._fill(rows.batch, rows, key)
        if "entropy" in self.loss.reads:
            batch = batch._replace(entropy_BT=jnp.where(answer_BT >= 0, entropy_BT, 0.0))
        batch = self._take_old(batch, logp_BT, first)
        reference_BT = None
        if reference is not None:
            reference_BT = self._logp(jax.lax.stop_gradient(reference), reference_keys, rows)[0]

        def evaluate(logp_BT):
            loss_BT, own = self.loss.evaluate(logp_BT, batch)
            if reference_BT is None:
                return loss_BT, (own, jnp.zeros_like(loss_BT))
            kl_BT = losses.KLS[self.config.loss.kl](logp_BT, reference_BT, answer_BT)
            return loss_BT + self.config.loss.kl_weight * kl_BT, (own, kl_BT)

        loss_BT, pull_back, (own, kl_BT) = jax.vjp(evaluate, logp_BT, has_aux=True)
        objective = losses.total_loss(loss_BT, batch, totals, self.normalizer, self.constant_tokens)
        measured = measure(objective, logp_BT, entropy_BT, kl_BT, batch, rows.sampler_logp_BT, own, rows.fresh_BT)
        if rows.watched_BT is not None:
            multiplier_BT = -pull_back(jnp.ones_like(loss_BT))[0]
            tokens = {"old": batch.old_logp_BT, "new": logp_BT, "entropy": entropy_BT, "multiplier": multiplier_BT}
            none = see_nothing(
                self.config, rows.target_BT.shape[0] // self.config.packing.rows_per_micro_batch, logp_BT.dtype
            )
            measured = measured._replace(seen=see(rows.watched_BT, none, **tokens))
        return objective, jax.lax.stop_gradient(measured)

    def _take_old(self, batch: LossBatch, logp_BT, first) -> LossBatch:
        """Takes log π_old from this forward pass if its weights are those that sampled, unless it is the sampler's."""
        if self.old_logp == "sampler":
            return batch
        # The same log-prob without its gradient, so that R is exactly 1 in any precision.
        return batch._replace(old_logp_BT=jnp.where(first, jax.lax.stop_gradient(logp_BT), batch.old_logp_BT))

    def _fill(self, batch: LossBatch, rows: Rows, key) -> LossBatch:
        """Adds the optional fields that the loss reads and that the rows do not hold in this form."""
        if "sampler_logp" in self.loss.reads:
            batch = batch._replace(sampler_logp_BT=rows.sampler_logp_BT)
        if "choice" in self.loss.reads and batch.choice_BT is None:
            batch = batch._replace(choice_BT=jnp.zeros_like(batch.reward_BT))
        if "key" in self.loss.reads:
            key = stream(self.config.seed, "loss") if key is None else key
            key_M = jax.vmap(functools.partial(jax.random.fold_in, key))(rows.number_BT.reshape(-1))
            batch = batch._replace(key_BT=key_M.reshape(rows.number_BT.shape))
        return batch

    def _logp(self, weights, keys, rows: Rows):
        return logp_and_entropy(
            self.model(weights),
            rows.tokens,
            rows.target_BT,
            self.config.rollout.temperature,
            self.config.packing.logp_chunk_tokens,
            self.placement,
            make_prompt_keys(keys, rows),
        )

    def model(self, weights):
        """Returns the model with these weights, the frozen ones joined, as an update runs it."""
        # Embedding and head are gathered once a micro-batch, as float32 masters; layers one at a time, by `placement`.
        weights = join_weights(weights, self.frozen)
        outer = {name: weights[name] for name in self.outer_specs}
        return transformer.bind(self.graph, weights | layout.constrain(outer, self.mesh, self.outer_specs))
