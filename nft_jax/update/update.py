"""One optimizer update from one batch of packed rows: micro-batches, one gradient, one step of optax."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from nft_jax import losses
from nft_jax.config import Config
from nft_jax.losses.kl import k3
from nft_jax.models import transformer
from nft_jax.models.logprobs import logp_and_entropy
from nft_jax.parallel import layout, scopes
from nft_jax.parallel.mesh import REPLICA
from nft_jax.types import Array, Totals
from nft_jax.update.optimizer import Optimizer
from nft_jax.update.packing import Packed, Rows
from nft_jax.update.shared_prompts import SharedPrompts, as_prompt, over_micro_batches


class Statistics(NamedTuple):
    """What one update measured, as float32 scalars: sums over answer tokens, and maxima.

    `objective`       the loss that was differentiated, KL included
    `entropy`         Σ entropy (nats)
    `gap`, `gap_max`  Σ and max |log-prob by this forward − by the sampler|
    `ratio`, `ratio_max`    Σ and max π_θ/π_old
    `clamped`         Σ wrong tokens at NFT's value clamp: (1 − r̂R)/(1 − r̂) < ε (counted for every loss, at ε = 1)
    `rate_clamped`    Σ tokens whose r̂ lies outside [0.02, 0.98] though the group is mixed
    `log_ratio_clamped`     Σ tokens with log R > 10
    `kl`              Σ k3 estimate against the reference
    """

    objective: Array
    entropy: Array
    gap: Array
    gap_max: Array
    ratio: Array
    ratio_max: Array
    clamped: Array
    rate_clamped: Array
    log_ratio_clamped: Array
    kl: Array

    def merge(self, other: "Statistics") -> "Statistics":
        """Of both: sums add, maxima compete."""
        return self._joined(jnp.add, jnp.maximum, other)

    def merged(self) -> "Statistics":
        """Of several, along the first axis of each."""
        return self._joined(functools.partial(jnp.sum, axis=0), functools.partial(jnp.max, axis=0))

    def _joined(self, total, largest, *others) -> "Statistics":
        by_field = zip(self._fields, self, *others, strict=True)
        return Statistics(*((largest if name.endswith("_max") else total)(*values) for name, *values in by_field))


NO_STATISTICS = Statistics(*[0.0] * len(Statistics._fields))


class Applied(NamedTuple):
    """What became of an update: `taken` 1 or 0, `nonfinite` 1 if its gradient was not finite, and what it measured."""

    taken: Array
    nonfinite: Array
    gradient_norm: Array
    statistics: Statistics


class Updater:
    """Optimizer updates of one model with one loss on one mesh; call it inside a jitted program."""

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
        self.specs = layout.specs(axes, layout.TRAINING)
        outer_axes = {name: spec for name, spec in axes.items() if name != "blocks"}
        self.outer_specs = layout.specs(outer_axes, layout.GENERATION)
        self.placement = layout.layer_placement(mesh, axes["blocks"], sequence_parallel=config.mesh.sequence_parallel)
        self.shared = SharedPrompts(self._model, self.placement, mesh, config.packing.rows_per_micro_batch)

    def __call__(
        self, weights, optimizer_state, packed: Packed, totals: Totals, reference, first
    ) -> tuple[Any, Any, Applied]:
        """One update; weights, optimizer state and schedule stay if nothing trains or the gradient is not finite.

        `packed` has a leading axis of data shards, `totals` are scalars, `reference` is the frozen weights of the KL
        term (or None), `first` says whether the weights are still those that sampled.
        """
        gradient, statistics = self.gradient(weights, packed, totals, reference, first)
        norm = optax.tree.norm(gradient)
        present = (totals.pairs if self.loss.unit == "pair" else totals.answers) > 0
        finite = jnp.isfinite(norm)

        def apply(operands):
            weights, state = operands
            change, state = self.optimizer.update(gradient, state, weights)
            return optax.apply_updates(weights, change), state

        operands = (weights, optimizer_state)
        with jax.named_scope(scopes.OPTIMIZER):
            weights, optimizer_state = jax.lax.cond(present & finite, apply, lambda same: same, operands)
        taken, nonfinite = (x.astype(jnp.float32) for x in (present & finite, present & ~finite))
        return weights, optimizer_state, Applied(taken, nonfinite, norm, statistics)

    def gradient(self, weights, packed: Packed, totals: Totals, reference=None, first=True) -> tuple[Any, Statistics]:
        """The gradient of the objective over one optimizer batch (float32, in the training layout), and its statistics.

        The denominators are those of the whole batch, so the cut into micro-batches can't be seen in the result. Only
        micro-batches that hold tokens are run: their number is a runtime value, equal on all data shards. Replicas sum
        their gradients once, after their last micro-batch.
        """
        of_replica = functools.partial(self._gradient, weights, totals=totals, reference=reference, first=first)
        if self.mesh.shape[REPLICA] == 1:
            return of_replica(packed)
        gradients, statistics = self._by_replica(of_replica, packed)
        gradient = jax.tree.map(lambda x: jnp.sum(x, axis=0), gradients)
        return layout.constrain(gradient, self.mesh, self.specs), statistics.merged()

    def recompute(self, weights, packed: Packed) -> Packed:
        """`packed` with `old_logp` from this forward pass instead of the sampler's."""
        of_replica, old = functools.partial(self._recompute, weights), packed.rows.batch.old_logp_BT
        if self.mesh.shape[REPLICA] == 1:
            old = of_replica(packed)
        else:
            old = self._by_replica(of_replica, packed).reshape(old.shape)
        batch = packed.rows.batch._replace(old_logp_BT=old)
        return packed._replace(rows=packed.rows._replace(batch=batch))

    def _by_replica(self, function, packed: Packed):
        """`function` of each replica's shards, with the results in a new first axis that is split over replicas."""
        replicas, (rows, used, prompts, prompts_used) = self.mesh.shape[REPLICA], packed

        def split(tree):
            return jax.tree.map(lambda x: x.reshape(replicas, -1, *x.shape[1:]), tree)

        # All run as many micro-batches as the fullest.
        most = jax.tree.map(jnp.max, (used, prompts_used))
        of_all = jax.vmap(function, in_axes=(Packed(0, None, 0, None),), spmd_axis_name=REPLICA)
        return of_all(Packed(split(rows), most[0], split(prompts), most[1]))

    def _gradient(self, weights, packed: Packed, *, totals, reference, first):
        objective = functools.partial(self._objective, reference=reference, totals=totals, first=first)
        keys = self.shared.read(weights, packed)
        reference_keys = None if reference is None else self.shared.read(reference, packed)

        def add(rows, start, carry):
            del start
            gradient, by_keys, statistics = carry
            mine, its = self.shared.of_rows(keys, rows), self.shared.of_rows(reference_keys, rows)
            differentiate = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
            (_, seen), (new, by_mine) = differentiate(weights, mine, rows, its)
            return self._add(gradient, new), self.shared.add(by_keys, by_mine, rows), statistics.merge(seen)

        zero = layout.constrain(jax.tree.map(jnp.zeros_like, weights), self.mesh, self.specs)
        none = jax.tree.map(packed.rows.batch.reward_BT.dtype.type, NO_STATISTICS)
        start = zero, self.shared.nothing(keys), none
        gradient, by_keys, statistics = self._over_rows(packed, add, start)
        return self.shared.pull(weights, packed, by_keys, self._add, gradient), statistics

    def _recompute(self, weights, packed: Packed):
        keys = self.shared.read(weights, packed)

        def fill(rows, start, old_nRT):
            logp_BT, _ = self._logp(weights, self.shared.of_rows(keys, rows), rows)
            logp_BT = jnp.where(rows.batch.answer_BT >= 0, logp_BT, 0.0)
            block = logp_BT.reshape(old_nRT.shape[0], -1, logp_BT.shape[-1])
            return jax.lax.dynamic_update_slice_in_dim(old_nRT, block, start, axis=1)

        return self._over_rows(packed, fill, packed.rows.batch.old_logp_BT)

    def _add(self, gradient, new):
        return jax.tree.map(jnp.add, gradient, layout.constrain(new, self.mesh, self.specs))

    def _over_rows(self, packed, body, carry):
        count = self.config.packing.rows_per_micro_batch
        return over_micro_batches(packed.rows, packed.used, count, self.mesh, body, carry)

    def _objective(self, weights, keys, rows: Rows, reference_keys, *, reference, totals, first):
        logp_BT, entropy_BT = self._logp(weights, keys, rows)
        answer_BT = rows.batch.answer_BT
        batch = rows.batch
        if self.old_logp == "current":
            # R is exactly 1 in any precision: the same number, without its gradient.
            batch = batch._replace(old_logp_BT=jnp.where(first, jax.lax.stop_gradient(logp_BT), batch.old_logp_BT))
        loss_BT = self.loss.function(logp_BT, batch)
        kl_BT = jnp.zeros_like(loss_BT)
        if reference is not None:
            frozen = jax.lax.stop_gradient(reference)
            kl_BT = k3(logp_BT, self._logp(frozen, reference_keys, rows)[0], answer_BT)
            loss_BT = loss_BT + self.config.loss.kl_weight * kl_BT
        objective = losses.total_loss(loss_BT, batch, totals, self.normalizer, self.constant_tokens)
        return objective, jax.lax.stop_gradient(
            _measure(objective, logp_BT, entropy_BT, kl_BT, batch, rows.sampler_logp_BT)
        )

    def _logp(self, weights, keys, rows: Rows):
        return logp_and_entropy(
            self._model(weights),
            rows.tokens,
            rows.target_BT,
            self.config.rollout.temperature,
            self.config.packing.logp_chunk_tokens,
            self.placement,
            as_prompt(keys, rows),
        )

    def _model(self, weights):
        # Embedding and head are gathered once a micro-batch, as float32 masters; layers one at a time, by `placement`.
        outer = {name: weights[name] for name in self.outer_specs}
        return transformer.bind(self.graph, weights | layout.constrain(outer, self.mesh, self.outer_specs))


def _measure(objective, logp_BT, entropy_BT, kl_BT, batch, sampler_logp_BT) -> Statistics:
    answer_BT = batch.answer_BT >= 0
    seen = losses.ratio_statistics(logp_BT, batch)
    gap_BT = jnp.where(answer_BT, jnp.abs(logp_BT - sampler_logp_BT), 0.0)
    return Statistics(
        objective=objective,
        entropy=jnp.sum(jnp.where(answer_BT, entropy_BT, 0.0)),
        gap=jnp.sum(gap_BT),
        gap_max=jnp.max(gap_BT),
        ratio=jnp.sum(seen["ratio"]),
        ratio_max=jnp.max(seen["ratio"]),
        clamped=jnp.sum(seen["value_clamped"]),
        rate_clamped=jnp.sum(seen["rate_clamped"]),
        log_ratio_clamped=jnp.sum(seen["log_ratio_clamped"]),
        kl=jnp.sum(kl_BT),
    )
