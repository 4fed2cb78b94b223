"""The rollout over the mesh: requests in, answers out. Each data shard runs the decode loop of `decode_loop.py`.

An answer is a function of (weights, prompt, seed, request number) only: it depends on no slot, shard or other answer.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from nft_jax.compat import shard_map
from nft_jax.config import Config, RolloutConfig
from nft_jax.models import transformer
from nft_jax.models.cache import axis_orders
from nft_jax.models.int8 import cast_weights, quantize_layers, quantize_specs
from nft_jax.models.lora import merge_adapters
from nft_jax.parallel import layout, scopes
from nft_jax.parallel.mesh import SHARDS, TENSOR, shard_axes
from nft_jax.rollout.decode_loop import DecodeLoop, Decoding
from nft_jax.rollout.state import Progress, PromptBatch, Requests, Round, Slots, Submit
from nft_jax.types import Array, Prompts

DEFAULT_SLOTS = 64  # most slots of a data shard if `config.slots` is 0

# A shard's part of each array: the third axis of a cache is slots, the first axis of everything else is rows.
_ROWS, _CACHE = PartitionSpec(SHARDS), PartitionSpec(None, None, SHARDS)
_SLOTS, _PROMPTS = Slots(_ROWS, _ROWS, _ROWS, _ROWS, _CACHE), PromptBatch(_CACHE, _ROWS, _ROWS)
_PROGRESS = Progress(_SLOTS, _ROWS, _ROWS, _PROMPTS, _ROWS, _ROWS, _ROWS)
_ROUND = Round(_ROWS, _ROWS, _ROWS, _ROWS, _ROWS)
_HEADS = PartitionSpec(None, None, SHARDS, TENSOR)  # of a cache between two rounds


def count_slots(config: RolloutConfig, answers: int) -> int:
    """Returns the slots of a data shard that gives this many answers a round."""
    return min(config.slots or DEFAULT_SLOTS, answers * (1 + config.rounds_ahead))


@dataclasses.dataclass(frozen=True)
class Engine:
    """Samples answers with one set of weights; call it inside a jitted program on `mesh`.

    Attributes:
      graph: The model's structure, with adapters where they are not merged.
      axes: Logical axes of its weights.
      config: Temperature, truncation, limits, slots and format of the weights.
      eos_ids: Token ids that end an answer.
      dtype: Compute dtype.
      lockstep: Whether the data shards of a replica run the same number of loop trips; with `config.partial` all do.
      stop_table: The automaton of texts that end an answer too (nft_jax/data/stops.py), or None.
      adapter_scale: Factor of the adapters' terms, where the weights have adapters that are merged; None: they stay.
    """

    graph: nnx.GraphDef
    axes: Any
    mesh: Mesh
    config: RolloutConfig
    eos_ids: tuple[int, ...]
    dtype: str
    lockstep: bool
    stop_table: np.ndarray | None = None
    adapter_scale: float | None = 1.0

    @property
    def specs(self) -> Any:
        """PartitionSpecs of the sampling weights."""
        specs = layout.specs(self.axes, layout.GENERATION)
        return quantize_specs(specs) if self.config.weights == "int8" else specs

    def slots(self, answers: int) -> int:
        """Returns the slots of a data shard that gives this many answers a round."""
        return count_slots(self.config, answers)

    @jax.named_scope(scopes.SAMPLING_WEIGHTS)
    def sampling_weights(self, weights: Any) -> Any:
        """Merges adapters into the weights, converts them to their format and splits them over `tensor` only."""
        if self.adapter_scale is not None:
            weights = merge_adapters(weights, self.adapter_scale, self.dtype)
        if self.config.weights == "int8":
            # Before the layout changes, so that integers move between devices.
            weights = quantize_layers(weights)
        return layout.constrain(cast_weights(weights, self.dtype), self.mesh, self.specs)

    def __call__(self, sampling_weights: Any, requests: Requests, key: Array, submit: Submit | None = None) -> Round:
        """Samples the answers of one round; arguments as in `finish_round`."""
        rounds = jax.tree.map(lambda x: x[None], requests)
        progress = self.start(sampling_weights, rounds)
        return self.finish_round(sampling_weights, progress, rounds, key, submit=submit)[1]

    def start(self, sampling_weights: Any, requests: Requests) -> Progress:
        """Returns the progress before the first round: all slots are free."""

        def start(loop: DecodeLoop, progress: None) -> Progress:
            return loop.start()

        whole = jax.random.key(0), jnp.bool_(False)
        return self._constrain(self._on_shards(start, _PROGRESS, sampling_weights, requests, None, *whole))

    def first_in_flight(self, config: Config) -> Callable[[Any], Progress] | None:
        """Returns what makes, from weights, of which only shapes count, `State.in_flight` before the first step.

        All slots are free in it. None without `partial`.
        """
        return functools.partial(self._nothing_in_flight, config) if self.config.partial else None

    def _nothing_in_flight(self, config: Config, weights: Any) -> Progress:
        Q, K, P = config.candidates_per_round, config.answers_per_prompt, config.data.max_prompt_tokens
        rounds = 1 + self.config.rounds_ahead
        none_Q, none_QK = jnp.zeros((rounds, Q), jnp.int32), jnp.zeros((rounds, Q, K), jnp.int32)
        prompts = Prompts(jnp.zeros((rounds, Q, P), jnp.int32), none_Q)
        request_QK = jnp.arange(none_QK.size, dtype=jnp.uint32).reshape(none_QK.shape)
        requests = Requests(prompts, none_Q, request_QK, none_QK, none_QK > 0)
        return self.keep(self.start(self.sampling_weights(weights), requests))

    def resume(self, sampling_weights: Any, requests: Requests, kept: Progress) -> Progress:
        """Returns the progress with which a step begins that goes on with what the step before `kept`."""
        whole = jax.random.key(0), jnp.bool_(True)
        return self._constrain(self._on_shards(DecodeLoop.resume, _PROGRESS, sampling_weights, requests, kept, *whole))

    @staticmethod
    def keep(progress: Progress) -> Progress:
        """Returns what a step keeps of its progress for the next step."""
        return progress._replace(prompts=None)

    @staticmethod
    def kept_specs(kept: Progress) -> Any:
        """Returns the PartitionSpecs of what a step keeps, or of its shapes."""
        specs = jax.tree.map(lambda _: _ROWS, kept)
        return specs._replace(slots=specs.slots._replace(cache=jax.tree.map(lambda _: _HEADS, kept.slots.cache)))

    def finish_round(
        self,
        sampling_weights: Any,
        progress: Progress,
        requests: Requests,
        key: Array,
        begins_next: Array | bool = False,
        submit: Submit | None = None,
    ) -> tuple[Progress, Round]:
        """Finishes the first round of `requests`; with `partial`, as many groups of any round (`rounds.may_end`).

        The `shard_map` is manual over data shards and automatic over `tensor`. No shard waits for another's longest
        answer, except in `lockstep`, where the shards of a replica wait for each other.

        Args:
          sampling_weights: The result of the method `sampling_weights`.
          progress: From `start`, or from the previous round.
          requests: One round or several, arrays `[rounds, Q, …]`, Q a multiple of the data shards. The second round is
            the first of the next call; with `partial`, the next call's are those of `Progress.draws`.
          key: Key of the stream of random numbers; request numbers are folded in.
          begins_next: Whether slots that this round leaves free begin with the others.
          submit: Submits answers that have ended while others are decoded; None: nothing is submitted.

        Returns:
          The progress of the other groups, and the answers of those that are finished.
        """
        given = sampling_weights, requests, progress, key, jnp.asarray(begins_next)
        progress, finished = self._on_shards(DecodeLoop.finish_round, (_PROGRESS, _ROUND), *given, submit)
        return self._constrain(progress), layout.split_rows(finished, self.mesh)

    def _on_shards(
        self,
        run: Callable[[DecodeLoop, Progress | None], Any],
        out_specs: Any,
        sampling_weights: Any,
        requests: Requests,
        progress: Progress | None,
        key: Array,
        begins_next: Array,
        submit: Submit | None = None,
    ) -> Any:
        """Calls `run(loop, progress)` on each data shard."""
        platform, tensor = self.mesh.devices.flat[0].platform, self.mesh.shape[TENSOR]

        def body(sampling_weights, requests, progress, key, begins_next):
            model = transformer.bind(self.graph, sampling_weights)
            slots = self.slots(requests.request_QK[0].size)
            heads, token_major = model.config.kv_heads // tensor, model.attention.token_major
            orders = axis_orders(platform, heads, model.config.head_size, token_major=token_major)
            lockstep = self.lockstep or self.config.partial
            decoding = Decoding(self.config, self.eos_ids, slots, lockstep, orders, self.stop_table)
            return run(DecodeLoop(model, requests, key, decoding, begins_next, submit), progress)

        whole, by_prompt = PartitionSpec(), PartitionSpec(None, SHARDS)
        in_progress = None
        if progress is not None:
            in_progress = _PROGRESS if progress.prompts is not None else self.keep(_PROGRESS)
        return shard_map(
            body,
            mesh=self.mesh,
            axis_names=shard_axes(self.mesh),
            in_specs=(whole, by_prompt, in_progress, whole, whole),
            out_specs=out_specs,
            check_vma=False,
        )(sampling_weights, requests, progress, key, begins_next)

    def _constrain(self, progress: Progress) -> Progress:
        """Splits caches over `tensor` by heads, and keeps all else whole along `tensor`, between two rounds.

        Otherwise XLA also splits the answers over `tensor`, with collectives at every token of loops of different
        lengths.
        """
        caches = progress.slots.cache, progress.prompts.cache
        caches = layout.constrain(caches, self.mesh, jax.tree.map(lambda _: _HEADS, caches))
        return _replace_caches(layout.split_rows(_replace_caches(progress, ((), ())), self.mesh), caches)


def _replace_caches(progress: Progress, caches: tuple[Any, Any]) -> Progress:
    of_slots, of_prompts = caches
    return progress._replace(
        slots=progress.slots._replace(cache=of_slots), prompts=progress.prompts._replace(cache=of_prompts)
    )
