"""One data shard's decode loop: S slots drain a queue of answers (continuous batching inside `jit`).

At each trip of the `while_loop`, every slot that holds an answer draws its next token; a slot whose answer has ended
takes the next answer of the queue. Memory depends on the number of slots, and no answer waits for the longest one.

Near the end of a round some slots are free while the last long answers are decoded. They begin with the next round
before it is known whether that round is needed. If it is not, their work is discarded, and no answer changes. With two
rounds a step this saves about a tenth of the time of a step (nft_jax/bench/README.md). With `rollout.partial` a round
ends as soon as enough groups are complete, whichever they are, and the next one resumes what is left in the slots.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.config import RolloutConfig
from nft_jax.models.cache import Cache, constrain_layout, copy_slot, empty_cache, take_slots
from nft_jax.models.logprobs import score_tokens
from nft_jax.models.transformer import Transformer
from nft_jax.parallel import scopes
from nft_jax.parallel.mesh import DATA, SHARDS
from nft_jax.rollout.rounds import drop_round, empty_rollout, find_unfinished, may_end, put_complete_first, slot_sizes
from nft_jax.rollout.sampling import draw, request_keys
from nft_jax.rollout.state import Loop, Progress, PromptBatch, Requests, Round, Slots, Submit
from nft_jax.rounding import ceil_div
from nft_jax.types import Array, EndedAnswers, Prompts, Rollout


class Decoding(NamedTuple):
    """How a data shard decodes.

    Attributes:
      config: Temperature, truncation, the answers' limit and halvings of the slots.
      eos_ids: Token ids that end an answer.
      slots: Decode slots of the shard.
      lockstep: Whether all data shards of a replica (with `config.partial`: of all) run as many loop trips.
      cache_orders: From `axis_orders`: how the devices keep the cache in memory.
      stop_table: uint8 `[V, N]`, the automaton of texts that end an answer (nft_jax/data/stops.py), or None.
    """

    config: RolloutConfig
    eos_ids: tuple[int, ...]
    slots: int
    lockstep: bool
    cache_orders: tuple[tuple[int, ...], ...]
    stop_table: np.ndarray | None = None


class DecodeLoop:
    """The requests of one data shard, one round or several, and the loop that finishes the first round.

    The answers of all rounds share one queue of B; the first `round_answers` of them are the first round's. With
    `rollout.partial`, a round's answers are those of the groups that are first complete.
    """

    def __init__(
        self,
        model: Transformer,
        requests: Requests,
        key: Array,
        decoding: Decoding,
        begins_next: Array,
        submit: Submit | None,
    ):
        self.model, self.decoding, self.config, self.submit = model, decoding, decoding.config, submit
        rounds, self.round_prompts, self.K = requests.request_QK.shape
        Q = self.round_prompts
        requests = jax.tree.map(lambda x: x.reshape(rounds * Q, *x.shape[2:]), requests)
        self.prompts, self.problem_Q = requests.prompts, requests.problem_Q
        # Computed once per call, not at every token.
        self.layers = model.decode_weights()
        self.request_B, self.greedy_B = requests.request_QK.reshape(-1), requests.greedy_QK.reshape(-1)
        self.key_B, self.limit_B = request_keys(key, self.request_B), requests.limit_QK.reshape(-1)
        self.Q, self.B, self.round_answers = rounds * Q, rounds * Q * self.K, Q * self.K
        self.P, self.T, self.S = requests.prompts.token_QP.shape[1], self.config.max_answer_tokens, decoding.slots
        self.prompts_at_once = ceil_div(self.S, self.K)  # as many as fill the slots
        self.begins_next = begins_next & (rounds > 1)
        self.queue_end = jnp.where(begins_next, self.B, self.round_answers)  # slots take answers below this number
        self.gradable_answers = self.B if self.config.partial else self.round_answers

    def start(self) -> Progress:
        """Returns the progress before the first round: all slots are free, all answers are in the queue."""
        config = self.model.config
        shape = config.layers, self.model.stacks, self.S, config.kv_heads, config.head_size, self.P + self.T
        columns = self.model.block_columns(self.P + self.T)
        none, none_S = jnp.zeros(1, jnp.int32), jnp.zeros(self.S, jnp.int32)
        prompts = self._no_prompts(none)
        return Progress(
            slots=Slots(none_S + self.B, none_S, none_S, none_S, empty_cache(*shape, config.dtype, columns)),
            rollout=empty_rollout(self.B, self.T),
            next_answer=none,
            prompts=prompts,
            unsubmitted_B=jnp.zeros(self.B, bool),
            age_B=jnp.zeros(self.B, jnp.int32) if self.config.partial else None,
            draw_Q=(self.request_B[:: self.K] // self.K).astype(jnp.int32) if self.config.partial else None,
        )

    def resume(self, kept: Progress) -> Progress:
        """Returns a step's progress from what the step before kept: answers are a step older, no prompt is read."""
        age_B = jnp.where(kept.rollout.length_B > 0, kept.age_B + 1, 0)
        return kept._replace(prompts=self._no_prompts(kept.next_answer // self.K), age_B=age_B)

    def _no_prompts(self, following: Array) -> PromptBatch:
        """Returns the batch before any prompt is read, if `following` is the first that will be."""
        cache = jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda: self._read_prompts(jnp.int32(0))))
        return PromptBatch(cache, following, following)

    def finish_round(self, progress: Progress) -> tuple[Progress, Round]:
        """Finishes the first round; returns the progress of the other groups, and the round's answers.

        When fewer slots, from `slot_sizes`, can hold all unfinished answers, the others are dropped.
        If slots begin with the next round, all are kept.
        """
        most = 0 if self.config.partial else self.config.max_halvings
        sizes = slot_sizes(self.S, most, self.config.halving_steps)
        loop = self._drain(Loop(progress, jnp.zeros(1, jnp.int32), jnp.bool_(True), jnp.zeros(1, jnp.int32)), sizes)
        slots = loop.progress.slots
        for number in range(1, len(sizes)):
            loop = self._drain(self._keep_busy_slots(loop, sizes[number]), sizes[number:], admits=False)
        if len(sizes) > 1:
            # Without a next round all slots are free now; with one, no slot was dropped.
            slots = slots._replace(answer_S=jnp.where(self.begins_next, slots.answer_S, self.B))
        progress = loop.progress._replace(slots=slots)
        if self.config.partial:
            progress = put_complete_first(progress, self.round_prompts, self.K)
        parts = progress.rollout, progress.age_B
        rollout, age_B = jax.tree.map(lambda x: x[: self.round_answers], parts)
        draw_Q = jax.tree.map(lambda x: x[: self.round_prompts], progress.draw_Q)
        newest_Q = self.request_B[-self.round_answers :: self.K].astype(jnp.int32) // self.K
        return drop_round(progress, newest_Q, self.K), Round(rollout, loop.capacity, loop.ticket, age_B, draw_Q)

    def _drain(self, loop: Loop, sizes: list[int], *, admits: bool = True) -> Loop:
        """Draws tokens until the round is done, or until the next smaller number of slots can hold the rest."""

        def goes_on(progress):
            answer_S, next_answer = progress.slots.answer_S, progress.next_answer[0]
            unfinished = self._anywhere(self._is_unfinished(progress))
            if len(sizes) == 1:
                return unfinished
            too_many = jnp.sum(answer_S < self.B, dtype=jnp.int32) > sizes[1]
            return unfinished & self._anywhere(too_many | (next_answer < self.queue_end) | self.begins_next)

        def step(loop):
            progress, ticket = loop.progress, loop.ticket
            if admits:
                progress = jax.lax.while_loop(self._can_admit, self._admit, progress)
            progress = self._draw(progress)
            if self.submit is not None:
                progress, ticket = jax.lax.while_loop(self._can_submit, self._submit, (progress, ticket))
            return Loop(progress, loop.capacity + progress.slots.answer_S.size, goes_on(progress), ticket)

        return jax.lax.while_loop(lambda loop: loop.running, step, loop._replace(running=goes_on(loop.progress)))

    def _is_unfinished(self, progress: Progress) -> Array:
        """Returns whether this shard's round is not done."""
        if self.config.partial:
            age_Q = jnp.max(progress.age_B.reshape(self.Q, self.K), axis=1)
            most = self.config.max_age_steps
            return ~may_end(find_unfinished(progress, self.K), age_Q, self.round_prompts, most)
        return jnp.any(progress.slots.answer_S < self.round_answers) | (progress.next_answer[0] < self.round_answers)

    def _keep_busy_slots(self, loop: Loop, size: int) -> Loop:
        """Keeps `size` slots, the busy ones first; they hold all unfinished answers."""
        slots = loop.progress.slots
        slot_S = jnp.argsort(slots.answer_S == self.B, stable=True)[:size]
        kept = Slots(*(x[slot_S] for x in slots[:-1]), take_slots(slots.cache, slot_S))
        return loop._replace(progress=loop.progress._replace(slots=kept))

    def _can_admit(self, progress):
        waits = progress.next_answer[0] < self.queue_end
        return self._anywhere(waits & jnp.any(progress.slots.answer_S == self.B))

    def _admit(self, progress: Progress) -> Progress:
        """Moves the next answer into a free slot; first reads more prompts if its prompt is not read yet.

        In lockstep, a shard without a free slot, a queued answer or a prompt to read computes too, and discards the
        result.
        """
        slots, answer = progress.slots, progress.next_answer[0]
        free = jnp.argmax(slots.answer_S == self.B).astype(jnp.int32)
        takes = (answer < self.queue_end) & (slots.answer_S[free] == self.B)
        prompt = jnp.minimum(answer // self.K, self.Q - 1)
        reads = takes & (prompt >= progress.prompts.following[0])

        def read(carry):
            batch, _ = carry
            after = jnp.minimum(batch.following + self.prompts_at_once, self.Q)
            new = PromptBatch(self._read_prompts(batch.following[0]), batch.following, after)
            return jax.tree.map(lambda new, old: jnp.where(reads, new, old), new, batch), jnp.bool_(False)

        # A loop of at most one trip, because `cond` would copy its operands.
        start = progress.prompts, self._anywhere(reads)
        batch, _ = jax.lax.while_loop(lambda carry: carry[1], read, start)
        last_token = self.prompts.token_QP[prompt, self.prompts.length_Q[prompt] - 1]

        def put(value_S, value):
            return value_S.at[jnp.where(takes, free, self.S)].set(value, mode="drop")

        slots = Slots(
            answer_S=put(slots.answer_S, answer),
            drawn_S=put(slots.drawn_S, 0),
            token_S=put(slots.token_S, last_token),
            match_S=put(slots.match_S, 0),
            cache=self._constrain(copy_slot(slots.cache, free, batch.cache, prompt - batch.first[0], takes)),
        )
        next_answer = progress.next_answer + takes.astype(jnp.int32)
        return progress._replace(slots=slots, next_answer=next_answer, prompts=batch)

    @jax.named_scope(scopes.READ)
    def _read_prompts(self, first: Array) -> Cache:
        """Computes keys and values of the prompts from `first` on; repeats the last prompt past the end."""
        number_Q = jnp.minimum(first + jnp.arange(self.prompts_at_once, dtype=jnp.int32), self.Q - 1)
        prompts = Prompts(self.prompts.token_QP[number_Q], self.prompts.length_Q[number_Q])
        return self._constrain(self.model.prefill(prompts, self.model.block_columns(self.P + self.T)))

    @jax.named_scope(scopes.DECODE)
    def _draw(self, progress: Progress) -> Progress:
        """Draws one token of every answer in a slot, and frees the slots of finished answers."""
        slots, rollout = progress.slots, progress.rollout
        busy_S = slots.answer_S < self.B
        answer_S = jnp.minimum(slots.answer_S, self.B - 1)
        # The first draw reads the prompt's last token again, to get the distribution of the first answer token.
        before_S = self.prompts.length_Q[answer_S // self.K] - 1
        column_S = jnp.where(busy_S, before_S + slots.drawn_S, 0)
        hidden_SD, cache = self.model.decode(self.layers, slots.token_S, column_S, slots.cache)
        logits_SV = self.model.logits(hidden_SD)
        token_S, logp_S = draw(
            logits_SV,
            self.key_B[answer_S],
            slots.drawn_S,
            self.greedy_B[answer_S],
            *(self.config.temperature, self.config.top_p, self.config.top_k),
        )
        if self.model.config.bitwise and self.config.top_p == 1 and not self.config.top_k:
            logp_S, _ = score_tokens(self.model, logits_SV, token_S, self.config.temperature)
        # Writes of free slots, at answer B, are dropped.
        place, drawn_S = (slots.answer_S, slots.drawn_S), slots.drawn_S + 1
        stopped_S, match_S = self._stop(token_S, slots.match_S)
        ended_S = busy_S & (stopped_S | (drawn_S >= self.limit_B[answer_S]))
        rollout = Rollout(
            token_BT=rollout.token_BT.at[place].set(token_S, mode="drop"),
            logp_BT=rollout.logp_BT.at[place].set(logp_S, mode="drop"),
            length_B=rollout.length_B.at[slots.answer_S].set(drawn_S, mode="drop"),
            truncated_B=rollout.truncated_B.at[slots.answer_S].set(~stopped_S & (drawn_S == self.T), mode="drop"),
        )
        unsubmitted_B = progress.unsubmitted_B.at[slots.answer_S].set(ended_S, mode="drop")
        slots = Slots(jnp.where(ended_S, self.B, slots.answer_S), drawn_S, token_S, match_S, cache)
        return progress._replace(slots=slots, rollout=rollout, unsubmitted_B=unsubmitted_B)

    def _stop(self, token_S: Array, match_S: Array) -> tuple[Array, Array]:
        """Returns whether each answer ends with its new token, and its state in the automaton of stop texts."""
        stopped_S, table = jnp.isin(token_S, jnp.asarray(self.decoding.eos_ids, jnp.int32)), self.decoding.stop_table
        if table is None:
            return stopped_S, match_S
        complete = table.shape[1]
        # A free slot may keep the state `complete`, which has no column; it starts anew with its next answer.
        match_S = jnp.asarray(table)[token_S, jnp.minimum(match_S, complete - 1)].astype(jnp.int32)
        return stopped_S | (match_S == complete), match_S

    def _can_submit(self, carry):
        progress, _ = carry
        unsubmitted = jnp.sum(progress.unsubmitted_B[: self.gradable_answers], dtype=jnp.int32)
        return unsubmitted >= self.submit.answers

    def _submit(self, carry: tuple[Progress, Array]) -> tuple[Progress, Array]:
        """Submits ended answers: of the first round only, because others may be discarded; of all with `partial`."""
        progress, ticket = carry
        unsubmitted_B = progress.unsubmitted_B[: self.gradable_answers]
        (place_A,) = jnp.nonzero(unsubmitted_B, size=self.submit.answers, fill_value=self.B)
        place_A = place_A.astype(jnp.int32)
        answer_A = jnp.minimum(place_A, self.B - 1)
        rollout = progress.rollout
        ended = EndedAnswers(
            place_A=place_A,
            request_A=self.request_B[answer_A],
            problem_A=self.problem_Q[answer_A // self.K],
            token_AT=rollout.token_BT[answer_A],
            length_A=rollout.length_B[answer_A],
            gradable_A=(place_A < self.B) & ~rollout.truncated_B[answer_A],
        )
        ticket = jnp.maximum(ticket, self.submit(ended, None if self.config.partial else self.round_answers))
        submitted_B = progress.unsubmitted_B.at[place_A].set(False, mode="drop")
        return progress._replace(unsubmitted_B=submitted_B), ticket

    def _constrain(self, cache: Cache) -> Cache:
        return constrain_layout(cache, self.decoding.cache_orders)

    def _anywhere(self, here: Array) -> Array:
        """In lockstep, returns whether it is true on any shard of the replica, so that all run equally many trips."""
        axes = SHARDS if self.config.partial else DATA  # with partial no slot waits for another replica either
        return jax.lax.pmax(here.astype(jnp.int32), axes) > 0 if self.decoding.lockstep else here
