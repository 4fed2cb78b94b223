"""One data shard's decode loop: S slots drain a queue of answers (continuous batching inside `jit`).

At each trip of the `while_loop`, every slot that holds an answer draws its next token; a slot whose answer has ended
takes another from the queue. So the memory is that of the slots, and nobody waits for the longest answer: free slots
even begin with the next round, where they may. Answers that have ended are handed to the verifier meanwhile.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from nft_jax.models import transformer
from nft_jax.models.cache import block_columns, constrain_row_major, copy_slot, empty_cache, take_slots
from nft_jax.parallel import scopes
from nft_jax.parallel.mesh import DATA
from nft_jax.rollout.sampling import draw, request_keys
from nft_jax.rollout.state import Loop, Progress, Requests, Slots, Submit
from nft_jax.types import Array, Ended, Prompts, Rollout

if TYPE_CHECKING:
    from nft_jax.rollout.engine import Engine


class Shard:
    """A window of requests on one data shard, and the steps that answer its first round."""

    def __init__(
        self,
        engine: "Engine",
        model: transformer.Transformer,
        window: Requests,
        key: Array,
        submit: Submit | None,
    ):
        self.model, self.config, self.submit = model, engine.config, submit
        self.lockstep, self.eos_ids = engine.lockstep, engine.eos_ids
        self.on_gpu = engine.mesh.devices.flat[0].platform == "gpu"
        rounds, Q, self.K = window.request_QK.shape
        window = jax.tree.map(lambda x: x.reshape(rounds * Q, *x.shape[2:]), window)
        self.prompts, self.problem_Q = window.prompts, window.problem_Q
        # What follows is made once a call, not at every token.
        self.layers = model.decode_weights()
        self.request_B, self.greedy_B = window.request_QK.reshape(-1), window.greedy_QK.reshape(-1)
        self.key_B, self.limit_B = request_keys(key, self.request_B), engine.limit(self.request_B)
        self.Q, self.B, self.round = rounds * Q, rounds * Q * self.K, Q * self.K
        self.P, self.T = window.prompts.token_NP.shape[1], engine.config.max_answer_tokens
        self.S = engine.slots(self.round)
        self.R = -(-self.S // self.K)  # prompts that are read at once: as many as fill the slots

    def start(self) -> Progress:
        """All slots free, all answers in the queue."""
        config = self.model.config
        shape = config.layers, self.model.stacks, self.S, config.kv_heads, config.head_size, self.P + self.T
        none_S, none = jnp.zeros(self.S, jnp.int32), jnp.zeros(1, jnp.int32)
        return Progress(
            slots=Slots(none_S + self.B, none_S, none_S, empty_cache(*shape, config.dtype)),
            rollout=_empty(self.B, self.T),
            queue=none,
            read=jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda: self._read(jnp.int32(0)))),
            first=none,
            known=none,
            ended_B=jnp.zeros(self.B, bool),
        )

    def run(self, progress: Progress, ahead: Array) -> tuple[Progress, Rollout, Array, Array]:
        """Finishes the window's first round; what is under way then, its rollout, the slots' capacity, the ticket."""
        self.ahead, self.admitted = ahead, jnp.where(ahead, self.B, self.round)
        sizes = [size for halvings in range(self.config.max_halvings + 1) if (size := self.S >> halvings)]
        loop = Loop(progress, jnp.zeros(1, jnp.int32), jnp.bool_(True), jnp.zeros(1, jnp.int32))
        loop = self._drain(loop, *sizes[1:2])
        slots = loop.progress.slots
        for number, size in enumerate(sizes[1:], start=1):
            loop = self._drain(self._shrunk(loop, size), *sizes[number + 1 : number + 2], admits=False)
        if len(sizes) > 1:
            # Where slots were given up, nothing is left in any; else they are as they were.
            slots = slots._replace(answer_S=jnp.where(ahead, slots.answer_S, self.B))
        progress, rollout = self._next_window(loop.progress._replace(slots=slots))
        return progress, rollout, loop.capacity, loop.ticket

    def _drain(self, loop: Loop, fewer: int = 0, admits: bool = True) -> Loop:
        """Goes on until all is done, or until the queue is empty and `fewer` slots hold all that is left.

        Not where the next round has begun, whose answers need their slots when this one is done.
        """

        def runs(progress):
            many = jnp.sum(progress.slots.answer_S < self.B, dtype=jnp.int32) > fewer
            needed = many | (progress.queue[0] < self.admitted) | self.ahead
            return self._unfinished(progress) & self._anywhere(needed) if fewer else self._unfinished(progress)

        def step(loop):
            progress, ticket = loop.progress, loop.ticket
            if admits:
                progress = jax.lax.while_loop(self._can_admit, self._admit, progress)
            progress = self._draw(progress)
            if self.submit is not None:
                progress, ticket = jax.lax.while_loop(self._can_submit, self._submit, (progress, ticket))
            return Loop(progress, loop.capacity + progress.slots.answer_S.size, runs(progress), ticket)

        return jax.lax.while_loop(lambda loop: loop.running, step, loop._replace(running=runs(loop.progress)))

    def _shrunk(self, loop: Loop, size: int) -> Loop:
        """The slots that hold something, of which there are at most `size` if anything is left to do, and no others."""
        slots = loop.progress.slots
        place_S = jnp.argsort(slots.answer_S == self.B, stable=True)[:size]
        fewer = Slots(*(x[place_S] for x in slots[:3]), take_slots(slots.cache, place_S))
        return loop._replace(progress=loop.progress._replace(slots=fewer))

    def _unfinished(self, progress):
        left = jnp.any(progress.slots.answer_S < self.round) | (progress.queue[0] < self.round)
        return self._anywhere(left)

    def _can_admit(self, progress):
        can = (progress.queue[0] < self.admitted) & jnp.any(progress.slots.answer_S == self.B)
        return self._anywhere(can)

    def _admit(self, progress):
        """One answer moves into a free slot; before that, prompts are read if its own has not been.

        In lockstep a shard may have to come along though it has no free slot or nothing in its queue, or no prompt to
        read: it then does the work, and keeps what it had.
        """
        slots, answer = progress.slots, progress.queue[0]
        free = jnp.argmax(slots.answer_S == self.B).astype(jnp.int32)
        takes = (answer < self.admitted) & (slots.answer_S[free] == self.B)
        prompt = jnp.minimum(answer // self.K, self.Q - 1)
        wants = takes & (prompt >= progress.known[0])

        def read(carry):
            old, first, known, _ = carry
            new = jax.tree.map(lambda new, old: jnp.where(wants, new, old), self._read(known[0]), old)
            new_known = jnp.minimum(known + self.R, self.Q)
            return new, jnp.where(wants, known, first), jnp.where(wants, new_known, known), jnp.bool_(False)

        # A loop of one trip or none, not `cond`, which would copy what passes through it.
        start = progress.read, progress.first, progress.known, self._anywhere(wants)
        source, first, known, _ = jax.lax.while_loop(lambda carry: carry[3], read, start)
        last = self.prompts.token_NP[prompt, self.prompts.length_N[prompt] - 1]

        def put(value_S, value):
            return value_S.at[jnp.where(takes, free, self.S)].set(value, mode="drop")

        slots = Slots(
            answer_S=put(slots.answer_S, answer),
            drawn_S=put(slots.drawn_S, 0),
            token_S=put(slots.token_S, last),
            cache=self._laid(copy_slot(slots.cache, free, source, prompt - first[0], takes)),
        )
        queue = progress.queue + takes.astype(jnp.int32)
        return progress._replace(slots=slots, queue=queue, read=source, first=first, known=known)

    @jax.named_scope(scopes.READ)
    def _read(self, first):
        """Keys and values of the next prompts of the window; beyond the last one, of the last one again."""
        number_R = jnp.minimum(first + jnp.arange(self.R, dtype=jnp.int32), self.Q - 1)
        prompts = Prompts(self.prompts.token_NP[number_R], self.prompts.length_N[number_R])
        return self._laid(self.model.prefill(prompts, block_columns(self.P + self.T)))

    @jax.named_scope(scopes.DECODE)
    def _draw(self, progress):
        """One token of every answer that is in a slot, and out go the answers that have ended."""
        slots, rollout = progress.slots, progress.rollout
        busy_S = slots.answer_S < self.B
        answer_S = jnp.minimum(slots.answer_S, self.B - 1)
        # The last token of the prompt is read again: that gives the first one's distribution.
        before_S = self.prompts.length_N[answer_S // self.K] - 1
        column_S = jnp.where(busy_S, before_S + slots.drawn_S, 0)
        hidden_SD, cache = self.model.decode(self.layers, slots.token_S, column_S, slots.cache)
        token_S, logp_S = draw(
            self.model.logits(hidden_SD),
            self.key_B[answer_S],
            slots.drawn_S,
            self.greedy_B[answer_S],
            *(self.config.temperature, self.config.top_p, self.config.top_k),
        )
        place, drawn_S = (slots.answer_S, slots.drawn_S), slots.drawn_S + 1
        stopped_S = jnp.isin(token_S, jnp.asarray(self.eos_ids, jnp.int32))
        ends_S = busy_S & (stopped_S | (drawn_S >= self.limit_B[answer_S]))
        rollout = Rollout(
            token_BT=rollout.token_BT.at[place].set(token_S, mode="drop"),
            logp_BT=rollout.logp_BT.at[place].set(logp_S, mode="drop"),
            length_B=rollout.length_B.at[slots.answer_S].set(drawn_S, mode="drop"),
            truncated_B=rollout.truncated_B.at[slots.answer_S].set(~stopped_S & (drawn_S == self.T), mode="drop"),
        )
        ended_B = progress.ended_B.at[slots.answer_S].set(ends_S, mode="drop")
        slots = Slots(jnp.where(ends_S, self.B, slots.answer_S), drawn_S, token_S, cache)
        return progress._replace(slots=slots, rollout=rollout, ended_B=ended_B)

    def _can_submit(self, carry):
        progress, _ = carry
        return jnp.sum(progress.ended_B[: self.round], dtype=jnp.int32) >= self.submit.answers

    def _submit(self, carry):
        """Some answers go to the verifier: of this round alone, because of the next all may still be dropped."""
        progress, ticket = carry
        (place_F,) = jnp.nonzero(progress.ended_B[: self.round], size=self.submit.answers, fill_value=self.B)
        place_F = place_F.astype(jnp.int32)
        answer_F = jnp.minimum(place_F, self.B - 1)
        rollout = progress.rollout
        ended = Ended(
            place_F=place_F,
            request_F=self.request_B[answer_F],
            problem_F=self.problem_Q[answer_F // self.K],
            token_FT=rollout.token_BT[answer_F],
            length_F=rollout.length_B[answer_F],
            gradable_F=(place_F < self.B) & ~rollout.truncated_B[answer_F],
        )
        ticket = jnp.maximum(ticket, self.submit(ended, self.round))
        return progress._replace(ended_B=progress.ended_B.at[place_F].set(False, mode="drop")), ticket

    def _next_window(self, progress: Progress) -> tuple[Progress, Rollout]:
        """What is under way once the first round is done, numbered by the window that begins with the second."""
        slots, round_ = progress.slots, self.round
        empty = _empty(round_, self.T)
        answer_S = jnp.where(slots.answer_S < self.B, slots.answer_S - round_, self.B)
        later = progress._replace(
            slots=slots._replace(answer_S=answer_S),
            rollout=jax.tree.map(lambda x, room: jnp.concatenate([x[round_:], room]), progress.rollout, empty),
            queue=progress.queue - round_,
            first=progress.first - round_ // self.K,
            known=progress.known - round_ // self.K,
            ended_B=jnp.concatenate([progress.ended_B[round_:], empty.truncated_B]),
        )
        return later, jax.tree.map(lambda x: x[:round_], progress.rollout)

    def _laid(self, cache):
        return constrain_row_major(cache) if self.on_gpu else cache

    def _anywhere(self, here):
        """In lockstep, whether it holds on any shard of the replica: all then run the same number of trips."""
        return jax.lax.pmax(here.astype(jnp.int32), DATA) > 0 if self.lockstep else here


def _empty(B: int, T: int) -> Rollout:
    return Rollout(
        token_BT=jnp.zeros((B, T), jnp.int32),
        logp_BT=jnp.zeros((B, T), jnp.float32),
        length_B=jnp.zeros(B, jnp.int32),
        truncated_B=jnp.zeros(B, bool),
    )
