"""The step's only call to Python: answers leave the device as tokens and come back as verdicts."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from nft_jax.compat import io_callback, shard_map
from nft_jax.parallel.mesh import SHARDS, TENSOR, describe_mesh, map_tensor, shard_count
from nft_jax.types import Array, EndedAnswers
from nft_jax.verify.findings import Finding, explain, key_of
from nft_jax.verify.grade import STATUSES
from nft_jax.verify.pool.batch import Batch
from nft_jax.verify.pool.pool import Pool

_LOG = logging.getLogger(__name__)

INCORRECT, ERROR = STATUSES.index("incorrect"), STATUSES.index("error")
NOT_GRADED = -1


class HostReport(NamedTuple):
    """The host's report on a grading, besides the verdicts.

    Attributes:
      second_B: int32, status codes by the second grader; `NOT_GRADED` where it judged nothing.
      seconds: float32 `[devices]`, how long the call of each device took.
      reward_B: float32, the rewards in [0, 1] of a grader that returns some; None if only verdicts were asked for.
    """

    second_B: Array
    seconds: Array
    reward_B: Array | None = None


class _Submission(NamedTuple):
    """An answer that is being graded.

    Attributes:
      batches: Future of one batch a pool, which give the verdicts.
      place: Number of the answer in its batches.
    """

    problem: int
    tokens: list[int]
    batches: Future
    place: int


class Graded(NamedTuple):
    """What the host returns to a device.

    Attributes:
      code_B: int32, status codes.
      second_B: int32, status codes by the second grader, as in `HostReport`.
      seconds: float32 `[1]`, how long the call took.
      reward_B: float32, as in `HostReport`.
    """

    code_B: Array
    second_B: Array
    seconds: Array
    reward_B: Array | None


class Grader:
    """The host's side of grading: decodes token ids to text and grades it. XLA calls it from one thread a device."""

    def __init__(
        self,
        pool: Pool,
        decode: Callable[[list[list[int]]], list[str]],
        answers: Sequence[str],
        total_seconds: float | None = None,
        second: Pool | None = None,
    ):
        """Makes a grader.

        Args:
          pool: Its verdicts are the rewards.
          decode: Thread-safe, from lists of answer token ids (EOS included if there is one) to texts.
          answers: Reference answers, by problem index.
          total_seconds: Time limit for the answers that are not graded yet when a round's verdicts are collected; they
            then get "timeout". None: no limit.
          second: Another pool that judges the same answers, for comparison alone.
        """
        self._pools = [pool] if second is None else [pool, second]
        self._decode = decode
        self._answers = answers
        self._total_seconds = total_seconds
        self._failed = False
        self._findings: dict[bytes, Finding] | None = None
        self._submissions: dict[int, _Submission] = {}  # by request number, which is never used twice
        # The device waits for a callback, so a callback only hands its answers to this thread.
        self._feeder = ThreadPoolExecutor(1, thread_name_prefix="nft_jax-feed")

    def take_findings(self, *, keep_next: bool = True) -> dict[bytes, Finding]:
        """Returns what was found in the answers that this process graded since the last call, if it was kept.

        Args:
          keep_next: Whether what is found until the next call is kept; before the first call nothing is.
        """
        findings, self._findings = self._findings or {}, {} if keep_next else None
        return findings

    def submit(self, request_a, problem_a, token_at, length_a, gradable_a) -> np.ndarray:
        """Begins to grade answers that `__call__` collects later; returns a ticket, int32 `[1]`. Never raises."""
        try:
            request_a, *rows = map(np.asarray, (request_a, problem_a, token_at, length_a, gradable_a))
            self._submissions |= self._begin(request_a, *rows)
        except Exception:
            self._log_failure()
        return np.ones(1, np.int32)

    def __call__(self, ticket_X, request_b, problem_b, token_bt, length_b, gradable_b) -> Graded:
        """Collects the verdicts of one device's answers; never raises.

        An exception here would hang or kill the whole program, so it is logged (once) and every row is "error".
        """
        start = time.perf_counter()
        rows = np.shape(problem_b)[0]
        try:
            judged = self._collect(*map(np.asarray, (request_b, problem_b, token_bt, length_b, gradable_b)))
        except Exception:
            judged = np.full(rows, ERROR, np.int32), np.full(rows, NOT_GRADED, np.int32), np.zeros(rows, np.float32)
            self._log_failure()
        code_b, second_b, reward_b = judged
        return Graded(code_b, second_b, np.array([time.perf_counter() - start], np.float32), reward_b)

    def _begin(self, request_a, problem_a, token_at, length_a, gradable_a) -> dict[int, _Submission]:
        """Submits the gradable rows to the pools; returns them by request number.

        NumPy only: a jax call in a callback waits for the device, which waits for the callback.
        """
        rows = np.flatnonzero(gradable_a)
        problems = problem_a[rows].tolist()
        outside = [problem for problem in problems if not 0 <= problem < len(self._answers)]
        if outside:  # a negative index would silently grade against another problem
            raise IndexError(f"problem {outside[0]} of {len(self._answers)}")
        tokens = [token_at[row, : length_a[row]].tolist() for row in rows]
        batches = self._feeder.submit(self._feed, problems, tokens)
        places = zip(request_a[rows].tolist(), problems, tokens, strict=True)
        return {request: _Submission(*answer, batches, place) for place, (request, *answer) in enumerate(places)}

    def _feed(self, problems: list[int], tokens: list[list[int]]) -> list[Batch]:
        """Begins a batch in each pool."""
        texts = self._decode(tokens)
        items = [(text, self._answers[problem]) for problem, text in zip(problems, texts, strict=True)]
        batches = [pool.begin() for pool in self._pools]
        for batch in batches:
            batch.add(items)
        return batches

    def _collect(self, request_b, problem_b, token_bt, length_b, gradable_b) -> tuple[np.ndarray, ...]:
        """Returns both graders' codes for one device's rows, and the first one's rewards.

        It grades now what was not submitted before.
        """
        deadline = None if self._total_seconds is None else time.monotonic() + self._total_seconds
        rows = np.flatnonzero(gradable_b)
        submitted = {row: self._submissions.pop(int(request_b[row]), None) for row in rows}
        wanted = {row: (int(problem_b[row]), token_bt[row, : length_b[row]].tolist()) for row in rows}
        # A program that runs again from the same state reuses the numbers, so the answers are compared too.
        late = np.array([row for row in rows if submitted[row] is None or submitted[row][:2] != wanted[row]], np.int64)
        if late.size:
            # Numbered by row: these numbers are used only in this call.
            submitted |= self._begin(late, problem_b[late], token_bt[late], length_b[late], np.ones(late.size, bool))
        codes = np.full((2, problem_b.shape[0]), NOT_GRADED, np.int32)
        codes[0], rewards = INCORRECT, np.zeros(problem_b.shape[0], np.float32)
        for batches in {submission.batches for submission in submitted.values()}:
            for which, (pool, batch) in enumerate(zip(self._pools, batches.result(), strict=True)):
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                verdicts = batch.collect(left)
                pool.log_first_error(verdicts)
                for row, submission in submitted.items():
                    if submission.batches is batches:
                        verdict = verdicts[submission.place]
                        codes[which, row] = STATUSES.index(verdict.status)
                        if pool is self._pools[0]:
                            rewards[row] = verdict.earned
                            if self._findings is not None:
                                self._findings[key_of(*wanted[row])] = explain(verdict, pool.grader)
        return codes[0], codes[1], rewards

    def _log_failure(self) -> None:
        if not self._failed:
            _LOG.exception("grading failed on the host; its answers count as errors (logged once)")
        self._failed = True


class Submitter:
    """Submits a shard's ended answers to the grader, `answers` at a time, from inside the loop that decodes others."""

    def __init__(self, grader: Grader, mesh: Mesh, answers: int):
        self.grader, self.mesh, self.answers = grader, mesh, answers

    def __call__(self, ended: EndedAnswers, round_answers: int | None) -> Array:
        """Submits the answers; each device submits those of the shard's `round_answers` that it collects itself.

        None: it is not known yet which device collects an answer, so they share them by request number.

        Returns:
          A ticket, int32 `[1]`.
        """
        parts = self.mesh.shape[TENSOR]

        def submit(ended):
            part_A = ended.request_A % parts if round_answers is None else ended.place_A // (round_answers // parts)
            mine_a = part_A == jax.lax.axis_index(TENSOR).astype(part_A.dtype)
            rows = ended.request_A, ended.problem_A, ended.token_AT, ended.length_A, ended.gradable_A & mine_a
            return io_callback(self.grader.submit, jax.ShapeDtypeStruct((1,), jnp.int32), *rows)

        ticket_X = map_tensor(submit, self.mesh, PartitionSpec(), PartitionSpec(TENSOR))(ended)
        return jnp.max(ticket_X, keepdims=True)


def verify(
    grader: Grader,
    mesh: Mesh,
    problem_B: Array,
    token_BT: Array,
    length_B: Array,
    gradable_B: Array,
    request_B: Array | None = None,
    ticket_X: Array | None = None,
    *,
    rewards: bool = False,
) -> tuple[Array, HostReport]:
    """Grades ended answers from inside `jit`.

    Rows are split over all axes of the mesh, so that each is graded exactly once, by the process that owns it.

    Args:
      problem_B: int32, problem index into the grader's reference answers.
      token_BT: int32, answer tokens, of which the first `length_B` count (EOS included).
      length_B: int32.
      gradable_B: bool, False for empty places and truncated answers: they stay on the device and are "incorrect".
      request_B: uint32, the numbers under which a `Submitter` may have submitted answers; None: nothing was submitted.
      ticket_X: int32, of the last submission of each data shard.
      rewards: whether the grader's rewards are wanted beside its verdicts.

    Returns:
      Status codes int32 `[B]`, indices into `STATUSES`, and the host's report.

    Raises:
      ValueError: if B is not divisible by the number of devices.
    """
    B = problem_B.shape[0]
    if B % mesh.size:
        below, above = B - B % mesh.size, B + mesh.size - B % mesh.size
        usable = " or ".join(str(size) for size in (below, above) if size)
        raise ValueError(
            f"{B} answers cannot be split evenly over {mesh.size} devices ({describe_mesh(mesh)}); use {usable} answers"
        )
    if request_B is None:
        # Row numbers, under which nothing has been submitted.
        request_B, ticket_X = jnp.arange(B, dtype=jnp.uint32), jnp.zeros(shard_count(mesh), jnp.int32)
    row, shard = PartitionSpec(tuple(mesh.axis_names)), PartitionSpec(SHARDS)
    # All axes manual: JAX refuses callbacks while any axis of the mesh is automatic.
    split = shard_map(
        partial(_verify_rows, grader, rewards),
        mesh=mesh,
        in_specs=(shard, *(row,) * 5),
        out_specs=Graded(row, row, row, row if rewards else None),
        check_vma=False,
    )
    graded = split(ticket_X, request_B, problem_B, token_BT, length_B, gradable_B)
    return graded.code_B, HostReport(graded.second_B, graded.seconds, graded.reward_B)


def _verify_rows(grader: Grader, rewards: bool, ticket_X: Array, *rows: Array) -> Graded:
    """Grades one device's rows; the data orders the calls."""
    code, reward = (jax.ShapeDtypeStruct(rows[0].shape, dtype) for dtype in (jnp.int32, jnp.float32))
    shapes = Graded(code, code, jax.ShapeDtypeStruct((1,), jnp.float32), reward if rewards else None)

    def grade(*arguments):
        graded = grader(*arguments)
        return graded if rewards else graded._replace(reward_B=None)

    return io_callback(grade, shapes, ticket_X, *rows)


def graders_differ(verdict_B: Array, second_B: Array) -> Array:
    """Returns where two graders judged and only one calls the answer correct; for NumPy and JAX arrays."""
    correct = STATUSES.index("correct")
    return (second_B != NOT_GRADED) & ((verdict_B == correct) != (second_B == correct))
