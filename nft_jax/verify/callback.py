"""The only border to Python inside the jitted step: answers leave the device as tokens and come back as verdicts."""

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
from nft_jax.parallel.mesh import SHARDS, TENSOR, describe_mesh, over_tensor, shard_count
from nft_jax.types import Array, Ended
from nft_jax.verify.grade import STATUSES
from nft_jax.verify.pool.batch import Batch
from nft_jax.verify.pool.pool import Pool

_LOG = logging.getLogger(__name__)

INCORRECT, ERROR = STATUSES.index("incorrect"), STATUSES.index("error")
NOT_ASKED = -1


class HostReport(NamedTuple):
    """What the host says of a grading, beside the verdicts.

    `second_B`   int32    status codes by the second grader; −1 where it was not asked
    `seconds_n`  float32  how long the call of each device took
    """

    second_B: Array
    seconds_n: Array


class _Handed(NamedTuple):
    """An answer that is being graded: the problem and the tokens it was, and where its verdicts will be."""

    problem: int
    tokens: list[int]
    batches: Future
    place: int


class Grader:
    """The host side: token ids to text, text to verdicts; called by XLA from one thread per device of this process.

    `decode`         lists of answer token ids (EOS included where the model wrote one) to texts, thread-safe
    `answers`        reference answers, by problem index
    `total_seconds`  for what is left when the verdicts of a round are collected; those missing then are "timeout"
                     (None: no limit)
    `second`         another pool that judges the same answers, to be compared with; its verdicts count for nothing else
    """

    def __init__(
        self,
        pool: Pool,
        decode: Callable[[list[list[int]]], list[str]],
        answers: Sequence[str],
        total_seconds: float | None = None,
        second: Pool | None = None,
    ):
        self._pools = [pool] if second is None else [pool, second]
        self._decode = decode
        self._answers = answers
        self._total_seconds = total_seconds
        self._failed = False
        self._handed: dict[int, _Handed] = {}  # by request number, which is never used twice
        # The device waits for a callback, so it leaves its answers with this thread and goes on.
        self._feeder = ThreadPoolExecutor(1, thread_name_prefix="nft_jax-feed")

    def submit(self, request_f, problem_f, token_ft, length_f, gradable_f) -> np.ndarray:
        """Begins to grade answers that `__call__` will ask for; a ticket, int32 `[1]`. Never raises."""
        try:
            request_f, *rows = map(np.asarray, (request_f, problem_f, token_ft, length_f, gradable_f))
            self._handed |= self._begin(request_f, *rows)
        except Exception:
            self._log_failure()
        return np.ones(1, np.int32)

    def __call__(
        self, ticket_n, request_b, problem_b, token_bt, length_b, gradable_b
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Status codes int32 `[b]`, those by the second grader, and the seconds this took, float32 `[1]`; never raises.

        An exception here would hang or kill the whole program, so it is logged (once) and every row is "error".
        """
        start = time.perf_counter()
        rows = np.shape(problem_b)[0]
        try:
            code_b, second_b = self._collect(*map(np.asarray, (request_b, problem_b, token_bt, length_b, gradable_b)))
        except Exception:
            code_b, second_b = np.full(rows, ERROR, np.int32), np.full(rows, NOT_ASKED, np.int32)
            self._log_failure()
        return code_b, second_b, np.array([time.perf_counter() - start], np.float32)

    def _begin(self, request_f, problem_f, token_ft, length_f, gradable_f) -> dict[int, _Handed]:
        """Hands the gradable rows to the pools, by request number.

        NumPy only: a jax call in a callback waits for the device that waits for it.
        """
        rows = np.flatnonzero(gradable_f)
        problems = problem_f[rows].tolist()
        outside = [problem for problem in problems if not 0 <= problem < len(self._answers)]
        if outside:  # a negative index would silently grade against the wrong problem
            raise IndexError(f"problem {outside[0]} of {len(self._answers)}")
        tokens = [token_ft[row, : length_f[row]].tolist() for row in rows]
        batches = self._feeder.submit(self._feed, problems, tokens)
        places = zip(request_f[rows].tolist(), problems, tokens, strict=True)
        return {request: _Handed(*answer, batches, place) for place, (request, *answer) in enumerate(places)}

    def _feed(self, problems: list[int], tokens: list[list[int]]) -> list[Batch]:
        """A batch in each pool."""
        texts = self._decode(tokens)
        items = [(text, self._answers[problem]) for problem, text in zip(problems, texts, strict=True)]
        batches = [pool.begin() for pool in self._pools]
        for batch in batches:
            batch.add(items)
        return batches

    def _collect(self, request_b, problem_b, token_bt, length_b, gradable_b) -> tuple[np.ndarray, np.ndarray]:
        """Codes of one device's rows, and by the second grader; what has not been submitted is graded now."""
        deadline = None if self._total_seconds is None else time.monotonic() + self._total_seconds
        rows = np.flatnonzero(gradable_b)
        found = {row: self._handed.pop(int(request_b[row]), None) for row in rows}
        wanted = {row: (int(problem_b[row]), token_bt[row, : length_b[row]].tolist()) for row in rows}
        # A program that is run again from the same state asks for the same numbers: the answer must be the same too.
        late = np.array([row for row in rows if found[row] is None or found[row][:2] != wanted[row]], np.int64)
        if late.size:
            # Numbered by row: these need no number that holds for longer.
            found |= self._begin(late, problem_b[late], token_bt[late], length_b[late], np.ones(late.size, bool))
        codes = np.full((2, problem_b.shape[0]), NOT_ASKED, np.int32)
        codes[0] = INCORRECT
        for batches in {handed.batches for handed in found.values()}:
            for which, (pool, batch) in enumerate(zip(self._pools, batches.result(), strict=True)):
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                verdicts = batch.collect(left)
                pool.log_first_error(verdicts)
                for row, handed in found.items():
                    if handed.batches is batches:
                        codes[which, row] = STATUSES.index(verdicts[handed.place].status)
        return codes[0], codes[1]

    def _log_failure(self) -> None:
        if not self._failed:
            _LOG.exception("grading failed on the host; its answers count as errors (said once)")
        self._failed = True


class Submitter:
    """Hands a shard's ended answers to the grader, `answers` at a time, from inside the loop that decodes others."""

    def __init__(self, grader: Grader, mesh: Mesh, answers: int):
        self.grader, self.mesh, self.answers = grader, mesh, answers

    def __call__(self, ended: Ended, round_answers: int) -> Array:
        """A ticket, int32 `[1]`. Each device submits those of the shard's `round_answers` that it collects itself."""
        parts = self.mesh.shape[TENSOR]

        def submit(ended):
            mine_f = ended.place_F // (round_answers // parts) == jax.lax.axis_index(TENSOR)
            rows = ended.request_F, ended.problem_F, ended.token_FT, ended.length_F, ended.gradable_F & mine_f
            return io_callback(self.grader.submit, jax.ShapeDtypeStruct((1,), jnp.int32), *rows, ordered=False)

        ticket_n = over_tensor(submit, self.mesh, PartitionSpec(), PartitionSpec(TENSOR))(ended)
        return jnp.max(ticket_n, keepdims=True)


def verify(
    grader: Grader,
    mesh: Mesh,
    problem_B: Array,
    token_BT: Array,
    length_B: Array,
    gradable_B: Array,
    request_B: Array | None = None,
    ticket_n: Array | None = None,
) -> tuple[Array, HostReport]:
    """Grade ended answers from inside `jit`: status codes int32 `[B]`, and what the host says of it.

    `problem_B`   int32  problem index into the grader's reference answers
    `token_BT`    int32  answer tokens, of which the first `length_B` count (EOS included)
    `gradable_B`  bool   False for empty slots and truncated answers: not sent to the host, code of "incorrect"
    `request_B`   uint32 the numbers under which a `Submitter` may have handed some over; none if not given
    `ticket_n`    int32 `[shards]`, of the last submission of each shard

    A code indexes `verify.STATUSES`. Rows are split over all axes of the mesh, so that each is graded exactly once, by
    the process that owns it. Raises ValueError if B is not divisible by the number of devices.
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
        request_B, ticket_n = jnp.arange(B, dtype=jnp.uint32), jnp.zeros(shard_count(mesh), jnp.int32)
    row, shard = PartitionSpec(tuple(mesh.axis_names)), PartitionSpec(SHARDS)
    # All axes manual: JAX refuses callbacks while any axis of the mesh is automatic.
    split = shard_map(
        partial(_verify_rows, grader), mesh=mesh, in_specs=(shard, *(row,) * 5), out_specs=(row,) * 3, check_vma=False
    )
    code_B, *host = split(ticket_n, request_B, problem_B, token_BT, length_B, gradable_B)
    return code_B, HostReport(*host)


def _verify_rows(grader: Grader, ticket_n: Array, *rows: Array) -> tuple[Array, Array, Array]:
    """One device's rows; `ordered=False`, because the verdicts' consumers order the calls by their data."""
    code = jax.ShapeDtypeStruct(rows[0].shape, jnp.int32)
    shapes = (code, code, jax.ShapeDtypeStruct((1,), jnp.float32))
    return io_callback(grader, shapes, ticket_n, *rows, ordered=False)


def graders_differ(verdict_B: Array, second_B: Array) -> Array:
    """Bool, where two graders were asked and only one of them says "correct"; for arrays of NumPy and JAX."""
    correct = STATUSES.index("correct")
    return (second_B != NOT_ASKED) & ((verdict_B == correct) != (second_B == correct))
