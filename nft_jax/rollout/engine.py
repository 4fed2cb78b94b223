"""The rollout: prompts in, answers out, in rounds. The engine spreads them over the mesh; `shard.py` is its loop.

Callers depend on `Engine` alone: requests in, a `Rollout` in the same order out, each answer a function of (weights,
prompt, seed, request number) only. How answers are scheduled is this package's own business.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from nft_jax.compat import shard_map
from nft_jax.config import RolloutConfig
from nft_jax.models import transformer
from nft_jax.parallel import layout, scopes
from nft_jax.parallel.mesh import SHARDS, TENSOR, shard_axes
from nft_jax.rollout.shard import Shard
from nft_jax.rollout.state import Progress, Requests, Slots, Submit
from nft_jax.run import hardware_notes
from nft_jax.types import Array, Rollout

MOST_SLOTS = 64  # of a data shard, where the config leaves the number open

# Each shard's part of a `Progress`: slots are the third axis of a cache, and rows the first of everything else.
_ROWS, _CACHE = PartitionSpec(SHARDS), PartitionSpec(None, None, SHARDS)
_SPECS = Progress(Slots(_ROWS, _ROWS, _ROWS, _CACHE), _ROWS, _ROWS, _CACHE, _ROWS, _ROWS, _ROWS)


class Round(NamedTuple):
    """A finished round.

    `rollout`     its answers `[B = Q·K]`, a prompt's K answers adjacent
    `capacity_n`  int32 `[shards]`: tokens that the slots of each shard had time for
    `ticket_n`    int32 `[shards]`: what collects verdicts takes it, and so comes after all that was submitted
    """

    rollout: Rollout
    capacity_n: Array
    ticket_n: Array


class Engine:
    """Samples answers with one set of weights; call it inside a jitted program on `mesh`."""

    def __init__(
        self, graph: nnx.GraphDef, axes: Any, mesh: Mesh, config: RolloutConfig, eos_ids: tuple[int, ...], dtype: str
    ):
        self.graph, self.mesh, self.config, self.dtype = graph, mesh, config, dtype
        self.eos_ids = eos_ids
        self.specs = layout.specs(axes, layout.GENERATION)
        self.lockstep = config.lockstep == "yes" or (config.lockstep == "auto" and hardware_notes.keeps_step(mesh))

    def slots(self, answers: int) -> int:
        """Slots of a shard that has this many answers to give in a round."""
        return min(self.config.slots or MOST_SLOTS, answers)

    def limit(self, request_B: Array) -> Array:
        """The most tokens of the answers with these request numbers; a benchmark has answers end at shorter ones."""
        return jnp.full(request_B.shape, self.config.max_answer_tokens, jnp.int32)

    @jax.named_scope(scopes.SAMPLING_WEIGHTS)
    def sampling_weights(self, weights: Any) -> Any:
        """The generation view: weights in the compute dtype, split over `tensor` only; dead after the rollout."""
        return layout.constrain(jax.tree.map(lambda x: x.astype(self.dtype), weights), self.mesh, self.specs)

    def __call__(self, sampling_weights: Any, requests: Requests, key: Array) -> tuple[Rollout, Array]:
        """The answers to one round of requests `[Q, …]`, and `Round.capacity_n`."""
        window = jax.tree.map(lambda x: x[None], requests)
        _, round_ = self.round(sampling_weights, self.begin(sampling_weights, window), window, key)
        return round_.rollout, round_.capacity_n

    def begin(self, sampling_weights: Any, window: Requests) -> Progress:
        """Before the first round: all slots free. Of `window`, as for `round`, only the shapes count."""
        return self._place(self._on_shards(Shard.start, None, sampling_weights, window, jax.random.key(0)))

    def round(
        self,
        sampling_weights: Any,
        progress: Progress,
        window: Requests,
        key: Array,
        ahead: Array | bool = False,
        submit: Submit | None = None,
    ) -> tuple[Progress, Round]:
        """Finishes the first round of `window`; where `ahead`, slots that it leaves free begin with the second.

        `window` holds one round or two, `[rounds, Q, …]`, Q a multiple of the data shards; what comes second is the
        first round of the next call. Answers that have ended go to `submit` while others are decoded.
        Manual over data shards, automatic over `tensor`: no shard waits for another's longest answer; in `lockstep`
        those of a replica do.
        """
        ahead = jnp.asarray(ahead)
        progress, *round_ = self._on_shards(Shard.run, submit, sampling_weights, window, key, progress, ahead)
        return self._place(progress), layout.split_rows(Round(*round_), self.mesh)

    def _on_shards(self, run: Callable, submit: Submit | None, sampling_weights, window, key, *given):
        """`run(shard, *given)` on each data shard."""

        def body(sampling_weights, window, key, *given):
            shard = Shard(self, transformer.bind(self.graph, sampling_weights), window, key, submit)
            return run(shard, *given)

        whole = PartitionSpec()
        given_specs, out_specs = ((_SPECS, whole), (_SPECS, _ROWS, _ROWS, _ROWS)) if given else ((), _SPECS)
        return shard_map(
            body,
            mesh=self.mesh,
            axis_names=shard_axes(self.mesh),
            in_specs=(whole, PartitionSpec(None, SHARDS), whole, *given_specs),
            out_specs=out_specs,
            check_vma=False,
        )(sampling_weights, window, key, *given)

    def _place(self, progress: Progress) -> Progress:
        """Between two rounds the cache stays where it is, its heads over `tensor`; all else is whole along `tensor`.

        Left to itself XLA splits the answers over `tensor` too, with collectives at every token of loops that differ.
        """
        slots = progress.slots
        heads = jax.tree.map(lambda _: PartitionSpec(None, None, SHARDS, TENSOR), (slots.cache, progress.read))
        cache, read = layout.constrain((slots.cache, progress.read), self.mesh, heads)
        progress = layout.split_rows(progress._replace(slots=slots._replace(cache=()), read=()), self.mesh)
        return progress._replace(slots=progress.slots._replace(cache=cache), read=read)
