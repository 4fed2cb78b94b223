"""The only border to Python inside the jitted step: answers leave the device as tokens and come back as verdicts."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from nft_jax.compat import io_callback, shard_map
from nft_jax.types import Array
from nft_jax.verify.grade import STATUSES
from nft_jax.verify.pool import Pool

_LOG = logging.getLogger(__name__)

WRONG, ERROR = STATUSES.index("wrong"), STATUSES.index("error")
NOT_ASKED = -1


class Host(NamedTuple):
    """What the host says of a grading, beside the verdicts.

    `second_B`   int32    status codes by the second grader; −1 where it was not asked
    `seconds_n`  float32  how long the call of each device took
    """

    second_B: Array
    seconds_n: Array


class Grader:
    """The host side: token ids to text, text to verdicts; called by XLA from one thread per device of this process.

    `decode`         lists of answer token ids (EOS included where the model wrote one) to texts, thread-safe
    `answers`        reference answers, by problem index
    `total_seconds`  for the answers of one call; a verdict that is missing then is "timeout" (None: no limit)
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
        self._pool = pool
        self._second = second
        self._decode = decode
        self._answers = answers
        self._total_seconds = total_seconds
        self._failed = False

    def __call__(self, prompt_b, token_bt, length_b, gradable_b) -> tuple[np.ndarray, np.ndarray]:
        """Status codes int32 `[b]`, those by the second grader, and the seconds this took, float32 `[1]`; never raises.

        An exception here would hang or kill the whole program, so it is logged (once) and every row is "error".
        """
        start = time.perf_counter()
        rows = np.shape(prompt_b)[0]
        try:
            code_b, second_b = self._grade(*map(np.asarray, (prompt_b, token_bt, length_b, gradable_b)))
        except Exception:
            code_b, second_b = np.full(rows, ERROR, np.int32), np.full(rows, NOT_ASKED, np.int32)
            if not self._failed:
                _LOG.exception("grading failed on the host; its answers count as errors (said once)")
            self._failed = True
        return code_b, second_b, np.array([time.perf_counter() - start], np.float32)

    def _grade(
        self, prompt_b: np.ndarray, token_bt: np.ndarray, length_b: np.ndarray, gradable_b: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Codes of one device's rows, and by the second grader.

        NumPy only: a jax call in a callback waits for the device that waits for it.
        """
        code_b = np.full(prompt_b.shape[0], WRONG, np.int32)
        second_b = np.full(prompt_b.shape[0], NOT_ASKED, np.int32)
        rows = np.flatnonzero(gradable_b)
        outside = [int(p) for p in prompt_b[rows] if not 0 <= p < len(self._answers)]
        if outside:  # a negative index would silently grade against the wrong problem
            raise IndexError(f"problem {outside[0]} of {len(self._answers)}")
        texts = self._decode([token_bt[row, : length_b[row]].tolist() for row in rows])
        items = [(text, self._answers[prompt_b[row]]) for row, text in zip(rows, texts, strict=True)]
        second = None if self._second is None else self._second.begin(self._total_seconds)
        if second is not None:
            second.add(items)
        verdicts = self._pool.grade(items, self._total_seconds)
        code_b[rows] = [STATUSES.index(verdict.status) for verdict in verdicts]
        if second is not None:
            second_b[rows] = [STATUSES.index(verdict.status) for verdict in second.collect()]
        return code_b, second_b


def verify(
    grader: Grader, mesh: Mesh, prompt_B: Array, token_BT: Array, length_B: Array, gradable_B: Array
) -> tuple[Array, Host]:
    """Grade finished answers from inside `jit`: status codes int32 `[B]`, and what the host says of it.

    `prompt_B`    int32  problem index into the grader's reference answers
    `token_BT`    int32  answer tokens, of which the first `length_B` count (EOS included)
    `gradable_B`  bool   False for empty slots and truncated answers: not sent to the host, code of "wrong"

    A code indexes `verify.STATUSES`. Rows are split over all axes of the mesh, so that each is graded exactly once, by
    the process that owns it. Raises ValueError if B is not divisible by the number of devices.
    """
    B = prompt_B.shape[0]
    if B % mesh.size:
        below, above = B - B % mesh.size, B + mesh.size - B % mesh.size
        axes = " × ".join(f"{name} {size}" for name, size in mesh.shape.items())
        usable = " or ".join(str(size) for size in (below, above) if size)
        raise ValueError(f"{B} answers cannot be split evenly over {mesh.size} devices ({axes}); use {usable} answers")
    row = PartitionSpec(tuple(mesh.axis_names))
    # All axes manual: JAX refuses callbacks while any axis of the mesh is automatic.
    split = shard_map(
        partial(_verify_rows, grader), mesh=mesh, in_specs=(row,) * 4, out_specs=(row,) * 3, check_vma=False
    )
    code_B, *host = split(prompt_B, token_BT, length_B, gradable_B)
    return code_B, Host(*host)


def _verify_rows(
    grader: Grader, prompt_b: Array, token_bt: Array, length_b: Array, gradable_b: Array
) -> tuple[Array, Array, Array]:
    """One device's rows; `ordered=False`, because the verdicts' consumers order the calls by their data."""
    code = jax.ShapeDtypeStruct(prompt_b.shape, jnp.int32)
    shapes = (code, code, jax.ShapeDtypeStruct((1,), jnp.float32))
    return io_callback(grader, shapes, prompt_b, token_bt, length_b, gradable_b, ordered=False)


def differ(verdict_B: Array, second_B: Array) -> Array:
    """Bool, where two graders were asked and only one of them says "correct"; for arrays of NumPy and JAX."""
    correct = STATUSES.index("correct")
    return (second_B != NOT_ASKED) & ((verdict_B == correct) != (second_B == correct))
