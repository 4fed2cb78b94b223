"""The rollout: prompts in, answers out, in one `while_loop` that each data shard runs at its own pace.

Callers depend on `Engine.__call__` alone: requests in, a `Rollout` in the same order out, each answer a function of
(weights, prompt, seed, request number) only. How answers are scheduled is this file's own business.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from nft_jax.compat import shard_map
from nft_jax.config import RolloutConfig
from nft_jax.models import transformer
from nft_jax.models.cache import Cache, make_cache
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import DATA
from nft_jax.rollout.sampling import draw, request_keys
from nft_jax.types import Array, Prompts, Rollout


class Requests(NamedTuple):
    """What is asked of the engine: K answers to each of Q prompts.

    `prompts`     Q rows of the prompt table           `request_QK`  uint32 numbers, global and never reused
    `greedy_QK`   bool: the likeliest tokens instead of a draw
    """

    prompts: Prompts
    request_QK: Array
    greedy_QK: Array


class Progress(NamedTuple):
    """State of the decode loop: `column` tokens of each answer are drawn, `running_B` have not ended."""

    column: Array
    running_B: Array
    rollout: Rollout
    cache: Cache
    shard_running: Array


class Engine:
    """Samples answers with one set of weights; call it inside a jitted program on `mesh`."""

    def __init__(
        self, graph: nnx.GraphDef, axes: Any, mesh: Mesh, config: RolloutConfig, eos_ids: tuple[int, ...], dtype: str
    ):
        self.graph, self.mesh, self.config, self.dtype = graph, mesh, config, dtype
        self.eos_ids = eos_ids
        self.specs = layout.specs(axes, layout.GENERATION)
        self.lockstep = config.lockstep == "yes" or (
            config.lockstep == "auto" and mesh.devices.flat[0].platform == "tpu"
        )

    def view(self, weights: Any) -> Any:
        """The generation view: weights in the compute dtype, split over `tensor` only; dead after the rollout."""
        return layout.constrain(jax.tree.map(lambda x: x.astype(self.dtype), weights), self.mesh, self.specs)

    def __call__(self, view: Any, requests: Requests, key: Array) -> Rollout:
        """Answers `[B = Q·K]`, a prompt's K answers adjacent; Q must be a multiple of the `data` axis.

        Manual over `data`, automatic over `tensor`: no shard waits for another's longest answer (unless `lockstep`).
        """
        by_rows, whole = PartitionSpec(DATA), PartitionSpec()
        return shard_map(
            self._shard,
            mesh=self.mesh,
            axis_names={DATA},
            in_specs=(whole, by_rows, whole),
            out_specs=by_rows,
            check_vma=False,
        )(view, requests, key)

    def _shard(self, view, requests, key):
        model = transformer.bind(self.graph, view)
        K, T = requests.request_QK.shape[1], self.config.answer_limit
        key_B = request_keys(key, requests.request_QK.reshape(-1))
        greedy_B = requests.greedy_QK.reshape(-1)
        hidden_QD, prompt_key, prompt_value = model.prefill(*requests.prompts)
        first = Progress(
            column=jnp.int32(0),
            running_B=jnp.ones(key_B.shape[0], bool),
            rollout=_empty(key_B.shape[0], T),
            cache=make_cache(prompt_key, prompt_value, requests.prompts.length_N, K, T),
            shard_running=jnp.bool_(True),
        )

        truncation = self.config.temperature, self.config.top_p, self.config.top_k

        def sample(progress, logits_BV):
            token_B, logp_B = draw(logits_BV, key_B, progress.column, greedy_B, *truncation)
            return self._append(progress, token_B, logp_B)

        def decode(progress):
            last_B = progress.rollout.token_BT[:, progress.column - 1]
            hidden_BD, cache = model.decode(last_B, progress.column - 1, progress.cache)
            return sample(progress._replace(cache=cache), model.logits(hidden_BD))

        progress = sample(first, jnp.repeat(model.logits(hidden_QD), K, axis=0))
        progress = jax.lax.while_loop(lambda p: (p.column < T) & p.shard_running, decode, progress)
        return progress.rollout._replace(truncated_B=progress.running_B)

    def _append(self, progress, token_B, logp_B):
        """Writes one token to every answer that still runs."""
        running, rollout, column = progress.running_B, progress.rollout, progress.column
        ended = jnp.isin(token_B, jnp.asarray(self.eos_ids, jnp.int32))
        still = running & ~ended
        some = jnp.any(still)
        if self.lockstep:
            some = jax.lax.pmax(some.astype(jnp.int32), DATA) > 0
        return progress._replace(
            column=column + 1,
            running_B=still,
            rollout=rollout._replace(
                token_BT=rollout.token_BT.at[:, column].set(jnp.where(running, token_B, 0)),
                logp_BT=rollout.logp_BT.at[:, column].set(jnp.where(running, logp_B, 0.0)),
                length_B=rollout.length_B + running.astype(jnp.int32),
            ),
            shard_running=some,
        )


def _empty(B: int, T: int) -> Rollout:
    return Rollout(
        token_BT=jnp.zeros((B, T), jnp.int32),
        logp_BT=jnp.zeros((B, T), jnp.float32),
        length_B=jnp.zeros(B, jnp.int32),
        truncated_B=jnp.zeros(B, bool),
    )
