"""Decode loops that run a different number of times on each data shard, and the verifier's callback inside them.

A small random model answers with lengths known beforehand: shard 0's answers are short, the last one's long.
"""

import collections
import dataclasses
import threading
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from nft_jax.experiment import Experiment
from nft_jax.parallel import layout
from nft_jax.parallel.mesh import shard_count
from nft_jax.randomness import stream
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.state import Requests
from nft_jax.types import Array, Prompts
from nft_jax.verify import STATUSES, Pool
from nft_jax.verify.callback import Grader, Submitter, verify

TIMES = 3  # that each program runs, because a hang may come late
GAP = 1e-4  # the largest difference of log-probs in float32, between programs that differ only in their loops


class Failed(Exception):
    """What a check found wrong."""


class Workload:
    """K answers to each of Q prompts, and how long each will be."""

    def __init__(self, experiment: Experiment):
        config, table = experiment.config, experiment.dataset.tables["train"]
        self.experiment, self.Q, self.K = experiment, config.prompts_per_step, config.answers_per_prompt
        self.shards = shard_count(experiment.model.mesh)
        rows = np.arange(self.Q) % len(table.length_Q)
        self.request_QK = np.arange(self.Q * self.K, dtype=np.uint32).reshape(self.Q, self.K)
        self.length_B = self.lengths(self.request_QK.reshape(-1))
        self.asked = Requests(
            prompts=Prompts(table.token_QP[rows], table.length_Q[rows]),
            problem_Q=np.arange(self.Q, dtype=np.int32),
            request_QK=self.request_QK,
            limit_QK=self.length_B.reshape(self.Q, self.K),
            greedy_QK=np.zeros((self.Q, self.K), bool),
        )

    def lengths(self, request_B):
        """From 1 to below the limit: the later the shard, the longer, and a prompt's answers differ by one token."""
        # None may reach the limit, where it would count as cut, and not be graded.
        room = self.experiment.config.rollout.max_answer_tokens - self.K - 1
        each = self.Q * self.K // self.shards
        shard_B = (request_B // np.uint32(each)).astype(np.int32)
        return 1 + shard_B * room // max(self.shards - 1, 1) + (request_B % self.K).astype(np.int32)

    def engine(self, lockstep: bool) -> Engine:
        """The experiment's engine, whose answers end at these lengths alone."""
        no_id = self.experiment.config.model.vocab  # no such id is ever drawn
        return dataclasses.replace(self.experiment.engine, lockstep=lockstep, eos_ids=(no_id,))

    def laid(self, asked: Requests) -> Requests:
        return layout.split_rows(asked, self.experiment.model.mesh)


def same_answers(experiment: Experiment) -> str:
    """The same answers whether the loops of all shards are kept in step or not."""
    work = Workload(experiment)
    weights = experiment.model.random_weights(experiment.config.seed)
    in_step, diverging = (_sampler(work, lockstep) for lockstep in (True, False))
    expected = in_step(weights, work.asked).rollout
    compare = jax.jit(_compare, out_shardings=experiment.model.whole)
    for _ in range(TIMES):
        rollout, capacity_X, _ = jax.block_until_ready(diverging(weights, work.asked))
        found = compare(expected, rollout, work.length_B, capacity_X)
        same, right, gap, fewest, most = (np.asarray(x).item() for x in found)
        if not (same and right and gap <= GAP):
            raise Failed(
                f"in step and not: {'the same' if same else 'other'} tokens, lengths {'as' if right else 'not as'} "
                f"they should be, log-probs up to {gap:.1e} apart"
            )
    count, slots = work.shards, work.engine(False).slots(work.Q * work.K // work.shards)
    if count == 1:
        return f"one data shard, which can't diverge; {most // slots} trips, answers as they should be"
    if fewest == most:
        raise Failed(f"all {count} loops ran {most // slots} times: nothing diverged, so nothing was shown")
    return f"{count} shards, {fewest // slots} to {most // slots} trips, the same answers in step and not"


def _sampler(work, lockstep):
    engine, key = work.engine(lockstep), stream(0, "rollout")

    def sample(weights, asked):
        with jax.default_matmul_precision("highest"):
            return engine(engine.sampling_weights(weights), work.laid(asked), key)

    return jax.jit(sample)


def _compare(one, other, length_B, capacity_X):
    """Whether tokens agree and lengths are right, the largest difference of log-probs, fewest and most capacity."""
    same = jnp.all(one.token_BT == other.token_BT) & jnp.all(one.length_B == other.length_B)
    gap = jnp.max(jnp.abs(one.logp_BT - other.logp_BT))
    right = jnp.all(other.length_B == length_B)
    return same, right, gap, jnp.min(capacity_X), jnp.max(capacity_X)


def graded_once(experiment: Experiment) -> str:
    """The verifier grades each answer once, on the host that owns it, while loops that diverge decode others."""
    work = Workload(experiment)
    weights = experiment.model.random_weights(experiment.config.seed)
    length_QK = work.length_B.reshape(work.Q, work.K)
    # Of each prompt's answers, whose texts are their lengths, one is right.
    right_Q = length_QK[np.arange(work.Q), np.arange(work.Q) % work.K]
    with Pool("boxed_exact", workers=experiment.config.verify.workers) as pool:
        counting = Counting(pool)
        references = [f"{problem}:{length}" for problem, length in enumerate(right_Q.tolist())]
        program = _grading(work, Grader(counting, lambda rows: [_text(len(row)) for row in rows], references, 600.0))
        code_B = (length_QK == right_Q[:, None]).reshape(-1).astype(np.int32) * STATUSES.index("correct")
        wrong = [np.asarray(program(weights, work.asked, code_B)).item() for _ in range(TIMES)]
        jax.effects_barrier()
    mine_QK = np.array(
        [[counting.seen[problem, _text(length)] for length in row] for problem, row in enumerate(length_QK.tolist())]
    )
    counts = np.asarray(multihost_utils.process_allgather(mine_QK.astype(np.int32))).reshape(-1, work.Q, work.K)
    others = sum(counting.seen.values()) - int(mine_QK.sum())
    if any(wrong) or others or np.any(counts.sum(axis=0) != TIMES):
        raise Failed(
            f"of {work.Q * work.K} answers, graded {TIMES} times: wrong verdicts {wrong}, answers graded more or less "
            f"often {int(np.sum(counts.sum(axis=0) != TIMES))}, unknown ones {others}"
        )
    each = counts.sum(axis=(1, 2))
    if not each.all():
        raise Failed(f"hosts that graded nothing: {np.flatnonzero(each == 0).tolist()}")
    return f"{work.Q * work.K} answers, each graded once a run, {min(each) // TIMES} to {max(each) // TIMES} a host"


def _text(length):
    return f"\\boxed{{{length}}}"


def _grading(work, grader):
    """`(weights, requests, code_B) ->` the number of verdicts that are not `code_B`."""
    experiment, engine, key = work.experiment, work.engine(False), stream(0, "rollout")
    submit = Submitter(grader, experiment.model.mesh, 2)

    def run(weights, asked, code_B) -> Array:
        sampling_weights = engine.sampling_weights(weights)
        rollout, _, ticket_X = engine(sampling_weights, work.laid(asked), key, submit)
        problem_B, request_B = jnp.repeat(asked.problem_Q, work.K), asked.request_QK.reshape(-1)
        rows = rollout.token_BT, rollout.length_B, ~rollout.truncated_B
        found_B, _ = verify(grader, experiment.model.mesh, problem_B, *rows, request_B, ticket_X)
        return jnp.sum(found_B != code_B, dtype=jnp.int32)

    return jax.jit(run, out_shardings=experiment.model.whole)


class Counting:
    """A pool that counts what it grades, by problem and text; references are "problem:answer"."""

    def __init__(self, pool: Pool):
        self.pool, self.seen, self.lock = pool, collections.Counter(), threading.Lock()

    def begin(self) -> "CountedBatch":
        return CountedBatch(self, self.pool.begin())

    def log_first_error(self, verdicts: Sequence) -> None:
        self.pool.log_first_error(verdicts)


class CountedBatch:
    """A batch of it."""

    def __init__(self, counting: Counting, batch):
        self.counting, self.collect, self._batch = counting, batch.collect, batch

    def add(self, items: Sequence[tuple[str, str]]) -> None:
        parts = [(text, *reference.split(":", 1)) for text, reference in items]
        with self.counting.lock:
            self.counting.seen.update((int(problem), text) for text, problem, _ in parts)
        self._batch.add([(text, answer) for text, _, answer in parts])
