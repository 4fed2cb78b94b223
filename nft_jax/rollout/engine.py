"""The rollout: prompts in, answers out. S decode slots of each data shard drain its queue of answers.

One `while_loop` in the jitted program: at each trip, every slot that holds an answer draws its next token; a slot whose
answer has ended takes another from the queue. So the memory is that of the slots, and nobody waits for the longest
answer.

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
from nft_jax.models.cache import Cache, block_columns, copy_slot, empty_cache
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import DATA
from nft_jax.rollout.sampling import draw, request_keys
from nft_jax.types import Array, Prompts, Rollout

MOST_SLOTS = 64  # of a data shard, where the config leaves the number open


class Requests(NamedTuple):
    """What is asked of the engine: K answers to each of Q prompts.

    `prompts`     Q rows of the prompt table           `request_QK`  uint32 numbers, global and never reused
    `greedy_QK`   bool: the likeliest tokens instead of a draw
    """

    prompts: Prompts
    request_QK: Array
    greedy_QK: Array


class Slots(NamedTuple):
    """S answers in progress.

    `answer_S`  int32  which answer of the queue (0 … B − 1) a slot works on; B where it is free
    `drawn_S`   int32  tokens of it that are drawn    `token_S`  int32  the last of them, or of the prompt
    `cache`     all tokens before that one
    """

    answer_S: Array
    drawn_S: Array
    token_S: Array
    cache: Cache


class Progress(NamedTuple):
    """State of the loop.

    `slots`    what is being worked on      `rollout`  what has been drawn, by answer
    `queue`    int32, the next answer that no slot has taken yet
    `read`     the prompts read last, as a cache of that many slots     `reads`  int32, how often prompts were read
    `steps`    int32, tokens that each slot could have drawn
    `running`  whether this shard (in lockstep: any) has work left
    """

    slots: Slots
    rollout: Rollout
    queue: Array
    read: Cache
    reads: Array
    steps: Array
    running: Array


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

    def slots(self, answers: int) -> int:
        """Slots of a shard that has this many answers to give."""
        return min(self.config.slots or MOST_SLOTS, answers)

    def limit(self, request_B: Array) -> Array:
        """The most tokens of the answers with these request numbers; a benchmark has answers end at shorter ones."""
        return jnp.full(request_B.shape, self.config.answer_limit, jnp.int32)

    def view(self, weights: Any) -> Any:
        """The generation view: weights in the compute dtype, split over `tensor` only; dead after the rollout."""
        return layout.constrain(jax.tree.map(lambda x: x.astype(self.dtype), weights), self.mesh, self.specs)

    def __call__(self, view: Any, requests: Requests, key: Array) -> tuple[Rollout, Array]:
        """Answers `[B = Q·K]`, a prompt's K answers adjacent; Q must be a multiple of the `data` axis.

        Also int32 `[data]`: the tokens that the slots of each shard had time for.
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
        shard = _Shard(self, transformer.bind(self.graph, view), requests, key)
        progress = jax.lax.while_loop(lambda p: p.running, shard.step, shard.start())
        return progress.rollout, (progress.steps * shard.S)[None]


class _Shard:
    """The queue of one data shard, and the steps that drain it."""

    def __init__(self, engine: Engine, model: transformer.Transformer, requests: Requests, key: Array):
        self.model, self.prompts, self.config = model, requests.prompts, engine.config
        self.lockstep, self.eos_ids = engine.lockstep, engine.eos_ids
        # Once an answer, not once a token.
        request_B, self.greedy_B = requests.request_QK.reshape(-1), requests.greedy_QK.reshape(-1)
        self.key_B, self.limit_B = request_keys(key, request_B), engine.limit(request_B)
        (self.Q, self.K), self.T = requests.request_QK.shape, engine.config.answer_limit
        self.B, self.P = self.Q * self.K, requests.prompts.token_NP.shape[1]
        self.S = engine.slots(self.B)
        self.R = -(-self.S // self.K)  # prompts that are read at once: as many as fill the slots

    def start(self) -> Progress:
        """All slots free, all answers in the queue."""
        config = self.model.config
        cache = empty_cache(config.layers, self.S, config.kv_heads, config.head_size, self.P + self.T, config.dtype)
        none_S = jnp.zeros(self.S, jnp.int32)
        return Progress(
            slots=Slots(jnp.full(self.S, self.B, jnp.int32), none_S, none_S, cache),
            rollout=_empty(self.B, self.T),
            queue=jnp.int32(0),
            read=jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda: self._read(jnp.int32(0)))),
            reads=jnp.int32(0),
            steps=jnp.int32(0),
            running=jnp.bool_(True),
        )

    def step(self, progress: Progress) -> Progress:
        """Free slots take answers from the queue; then every slot that has one draws a token of it."""
        progress = jax.lax.while_loop(self._can_admit, self._admit, progress)
        return self._draw(progress)

    def _can_admit(self, progress):
        can = (progress.queue < self.B) & jnp.any(progress.slots.answer_S == self.B)
        return self._anywhere(can)

    def _admit(self, progress):
        """One answer moves into a free slot; before that, prompts are read if its own has not been.

        In lockstep a shard may have to come along though it has no free slot or nothing in its queue, or no prompt to
        read: it then does the work, and keeps what it had.
        """
        slots, answer = progress.slots, progress.queue
        wants = (answer < self.B) & (answer >= progress.reads * self.R * self.K)

        def read(carry):
            old, reads, _ = carry
            new = jax.tree.map(lambda new, old: jnp.where(wants, new, old), self._read(reads), old)
            return new, reads + wants.astype(jnp.int32), jnp.bool_(False)

        # A loop of one trip or none, not `cond`, which would copy what passes through it.
        start = progress.read, progress.reads, self._anywhere(wants)
        source, reads, _ = jax.lax.while_loop(lambda carry: carry[2], read, start)

        free = jnp.argmax(slots.answer_S == self.B).astype(jnp.int32)
        takes = (answer < self.B) & (slots.answer_S[free] == self.B)
        prompt = jnp.minimum(answer // self.K, self.Q - 1)
        last = self.prompts.token_NP[prompt, self.prompts.length_N[prompt] - 1]

        def put(value_S, value):
            return value_S.at[jnp.where(takes, free, self.S)].set(value, mode="drop")

        slots = Slots(
            answer_S=put(slots.answer_S, answer),
            drawn_S=put(slots.drawn_S, 0),
            token_S=put(slots.token_S, last),
            cache=copy_slot(slots.cache, free, source, prompt - (reads - 1) * self.R, takes),
        )
        return progress._replace(slots=slots, queue=answer + takes.astype(jnp.int32), read=source, reads=reads)

    def _read(self, reads):
        """Keys and values of the next prompts; beyond the last one, of the last one again."""
        number_R = jnp.minimum(reads * self.R + jnp.arange(self.R, dtype=jnp.int32), self.Q - 1)
        prompts = self.prompts.token_NP[number_R], self.prompts.length_N[number_R]
        return self.model.prefill(*prompts, block_columns(self.P + self.T))

    def _draw(self, progress):
        """One token of every answer that is in a slot, and out go the answers that have ended."""
        slots, rollout = progress.slots, progress.rollout
        busy_S = slots.answer_S < self.B
        answer_S = jnp.minimum(slots.answer_S, self.B - 1)
        # The last token of the prompt is read again: that gives the first one's distribution.
        before_S = self.prompts.length_N[answer_S // self.K] - 1
        column_S = jnp.where(busy_S, before_S + slots.drawn_S, 0)
        hidden_SD, cache = self.model.decode(slots.token_S, column_S, slots.cache)
        token_S, logp_S = draw(
            self.model.logits(hidden_SD),
            self.key_B[answer_S],
            slots.drawn_S,
            self.greedy_B[answer_S],
            *(self.config.temperature, self.config.top_p, self.config.top_k),
        )
        place, drawn_S = (slots.answer_S, slots.drawn_S), slots.drawn_S + 1
        ended_S = jnp.isin(token_S, jnp.asarray(self.eos_ids, jnp.int32))
        leaves_S = busy_S & (ended_S | (drawn_S >= self.limit_B[answer_S]))
        rollout = Rollout(
            token_BT=rollout.token_BT.at[place].set(token_S, mode="drop"),
            logp_BT=rollout.logp_BT.at[place].set(logp_S, mode="drop"),
            length_B=rollout.length_B.at[slots.answer_S].set(drawn_S, mode="drop"),
            truncated_B=rollout.truncated_B.at[slots.answer_S].set(~ended_S & (drawn_S == self.T), mode="drop"),
        )
        slots = Slots(jnp.where(leaves_S, self.B, slots.answer_S), drawn_S, token_S, cache)
        more = jnp.any(slots.answer_S < self.B) | (progress.queue < self.B)
        return progress._replace(slots=slots, rollout=rollout, steps=progress.steps + 1, running=self._anywhere(more))

    def _anywhere(self, here):
        """In lockstep, whether it holds on any shard: all then run the same number of trips."""
        return jax.lax.pmax(here.astype(jnp.int32), DATA) > 0 if self.lockstep else here


def _empty(B: int, T: int) -> Rollout:
    return Rollout(
        token_BT=jnp.zeros((B, T), jnp.int32),
        logp_BT=jnp.zeros((B, T), jnp.float32),
        length_B=jnp.zeros(B, jnp.int32),
        truncated_B=jnp.zeros(B, bool),
    )
