"""Checks decode loops that run a different number of times on each data shard, and the verifier's callback in them.

A small random model gives answers of known lengths: short ones on shard 0, long ones on the last shard.
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
from nft_jax.smoke.result import CheckFailure
from nft_jax.types import Array, Prompts
from nft_jax.verify import STATUSES, Pool
from nft_jax.verify.callback import Grader, Submitter, verify

TIMES = 3  # how often each program runs, because a hang may come late
GAP = 1e-4  # the largest difference of float32 log-probs between programs that differ only in their loops


class Workload:
    """Requests of K answers to each of Q prompts, and the length of each answer."""

    def __init__(self, experiment: Experiment):
        config, table = experiment.config, experiment.dataset.tables["train"]
        self.experiment, self.Q, self.K = experiment, config.prompts_per_step, config.answers_per_prompt
        self.shards = shard_count(experiment.model.mesh)
        rows = np.arange(self.Q) % len(table.length_Q)
        self.request_QK = np.arange(self.Q * self.K, dtype=np.uint32).reshape(self.Q, self.K)
        self.length_B = self.lengths(self.request_QK.reshape(-1))
        self.requests = Requests(
            prompts=Prompts(table.token_QP[rows], table.length_Q[rows]),
            problem_Q=np.arange(self.Q, dtype=np.int32),
            request_QK=self.request_QK,
            limit_QK=self.length_B.reshape(self.Q, self.K),
            greedy_QK=np.zeros((self.Q, self.K), bool),
        )

    def lengths(self, request_B):
        """Returns lengths from 1 to below the limit; they grow with the shard, and by one token within a group."""
        # An answer that reaches the limit is truncated, and not graded.
        room = self.experiment.config.rollout.max_answer_tokens - self.K - 1
        each = self.Q * self.K // self.shards
        shard_B = (request_B // np.uint32(each)).astype(np.int32)
        return 1 + shard_B * room // max(self.shards - 1, 1) + (request_B % self.K).astype(np.int32)

    def engine(self, lockstep: bool) -> Engine:
        """Returns the experiment's engine, with answers that end only at these lengths."""
        unused_id = self.experiment.config.model.vocab  # an id that is never drawn
        return dataclasses.replace(self.experiment.engine, lockstep=lockstep, eos_ids=(unused_id,))

    def place(self, requests: Requests) -> Requests:
        """Splits requests over the mesh."""
        return layout.split_rows(requests, self.experiment.model.mesh)


def check_answers(experiment: Experiment) -> str:
    """Checks that the answers are the same whether all shards' loops are in step or diverge.

    Raises:
      CheckFailure: if they differ, or no loop diverged.
    """
    work = Workload(experiment)
    weights = experiment.model.random_weights(experiment.config.seed)
    in_step, diverging = (_sampler(work, lockstep) for lockstep in (True, False))
    expected = in_step(weights, work.requests).rollout
    compare = jax.jit(_compare, out_shardings=experiment.model.whole)
    for _ in range(TIMES):
        rollout, capacity_X, *_ = jax.block_until_ready(diverging(weights, work.requests))
        outcome = compare(expected, rollout, work.length_B, capacity_X)
        same, exact, gap, fewest, most = (np.asarray(x).item() for x in outcome)
        if not (same and exact and gap <= GAP):
            raise CheckFailure(
                f"loops in step against diverging ones: {'equal' if same else 'different'} tokens, "
                f"{'correct' if exact else 'incorrect'} lengths, log-probs up to {gap:.1e} apart"
            )
    count, slots = work.shards, work.engine(False).slots(work.Q * work.K // work.shards)
    if count == 1:
        return f"one data shard, which can't diverge; {most // slots} trips, correct answers"
    if fewest == most:
        raise CheckFailure(f"all {count} loops ran {most // slots} times: nothing diverged, so this shows nothing")
    return f"{count} shards, {fewest // slots} to {most // slots} trips, the same answers as in step"


def _sampler(work, lockstep):
    engine, key = work.engine(lockstep), stream(0, "rollout")

    def sample(weights, requests):
        with jax.default_matmul_precision("highest"):
            return engine(engine.sampling_weights(weights), work.place(requests), key)

    return jax.jit(sample)


def _compare(one, other, length_B, capacity_X):
    """Returns whether tokens agree, whether lengths are correct, the log-probs' difference, least and most capacity."""
    same = jnp.all(one.token_BT == other.token_BT) & jnp.all(one.length_B == other.length_B)
    gap = jnp.max(jnp.abs(one.logp_BT - other.logp_BT))
    exact = jnp.all(other.length_B == length_B)
    return same, exact, gap, jnp.min(capacity_X), jnp.max(capacity_X)


def check_grading(experiment: Experiment) -> str:
    """Checks that the verifier grades each answer once, on its host, while diverging loops decode others.

    Raises:
      CheckFailure: if a verdict is wrong, an answer is graded more or less often, or a host grades none.
    """
    work = Workload(experiment)
    weights = experiment.model.random_weights(experiment.config.seed)
    length_QK = work.length_B.reshape(work.Q, work.K)
    # The text of an answer is its length. One answer of each prompt is correct.
    reference_Q = length_QK[np.arange(work.Q), np.arange(work.Q) % work.K]
    with Pool("boxed_exact", workers=experiment.config.verify.workers) as pool:
        counting = Counting(pool)
        references = [f"{problem}:{length}" for problem, length in enumerate(reference_Q.tolist())]
        program = _grading(work, Grader(counting, lambda rows: [_text(len(row)) for row in rows], references, 600.0))
        code_B = (length_QK == reference_Q[:, None]).reshape(-1).astype(np.int32) * STATUSES.index("correct")
        errors = [np.asarray(program(weights, work.requests, code_B)).item() for _ in range(TIMES)]
        jax.effects_barrier()
    mine_QK = np.array(
        [[counting.counts[problem, _text(length)] for length in row] for problem, row in enumerate(length_QK.tolist())]
    )
    process_counts = np.asarray(multihost_utils.process_allgather(mine_QK.astype(np.int32))).reshape(-1, work.Q, work.K)
    others = sum(counting.counts.values()) - int(mine_QK.sum())
    if any(errors) or others or np.any(process_counts.sum(axis=0) != TIMES):
        raise CheckFailure(
            f"of {work.Q * work.K} answers, graded {TIMES} times: wrong verdicts {errors}, answers graded more or less "
            f"often {int(np.sum(process_counts.sum(axis=0) != TIMES))}, unknown ones {others}"
        )
    each = process_counts.sum(axis=(1, 2))
    if not each.all():
        raise CheckFailure(f"hosts that graded nothing: {np.flatnonzero(each == 0).tolist()}")
    return f"{work.Q * work.K} answers, each graded once a run, {min(each) // TIMES} to {max(each) // TIMES} a host"


def _text(length):
    return f"\\boxed{{{length}}}"


def _grading(work, grader):
    """Makes the program `(weights, requests, code_B) ->` number of verdicts that are not `code_B`."""
    experiment, engine, key = work.experiment, work.engine(False), stream(0, "rollout")
    submit = Submitter(grader, experiment.model.mesh, 2)

    def run(weights, requests, code_B) -> Array:
        sampling_weights = engine.sampling_weights(weights)
        rollout, _, ticket_X, *_ = engine(sampling_weights, work.place(requests), key, submit)
        problem_B, request_B = jnp.repeat(requests.problem_Q, work.K), requests.request_QK.reshape(-1)
        rows = rollout.token_BT, rollout.length_B, ~rollout.truncated_B
        actual_B, _ = verify(grader, experiment.model.mesh, problem_B, *rows, request_B, ticket_X)
        return jnp.sum(actual_B != code_B, dtype=jnp.int32)

    return jax.jit(run, out_shardings=experiment.model.whole)


class Counting:
    """A pool that counts the answers that it grades, by problem and text. References are "problem:answer"."""

    def __init__(self, pool: Pool):
        self.pool, self.counts, self.lock = pool, collections.Counter(), threading.Lock()

    def begin(self) -> "CountedBatch":
        return CountedBatch(self, self.pool.begin())

    def log_first_error(self, verdicts: Sequence) -> None:
        self.pool.log_first_error(verdicts)


class CountedBatch:
    """A batch of a `Counting` pool."""

    def __init__(self, counting: Counting, batch):
        self.counting, self.collect, self._batch = counting, batch.collect, batch

    def add(self, items: Sequence[tuple[str, str]]) -> None:
        parts = [(text, *reference.split(":", 1)) for text, reference in items]
        with self.counting.lock:
            self.counting.counts.update((int(problem), text) for text, problem, _ in parts)
        self._batch.add([(text, answer) for text, _, answer in parts])
