"""Held-out evaluation: one greedy answer and n sampled ones to every problem, graded.

One program answers and grades one batch of problems of any split; the host goes from batch to batch.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.config import EvaluationConfig
from nft_jax.data.prompts import PromptTable
from nft_jax.evaluation.scores import Answers
from nft_jax.models.sharded import ShardedModel
from nft_jax.parallel import layout
from nft_jax.printing import ProgressLine
from nft_jax.processes import distributed
from nft_jax.randomness import stream
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.state import Requests
from nft_jax.rounding import round_up
from nft_jax.types import Array, Prompts
from nft_jax.verify.callback import Grader, verify
from nft_jax.verify.findings import Finding, look_up
from nft_jax.verify.grade import STATUSES

# A request's number is problem · MOST_ANSWERS + answer, in 32 bits, so that more answers to a problem do not change the
# first ones.
MOST_ANSWERS = 2**12
MOST_PROBLEMS = 2**32 // MOST_ANSWERS


class Batch(NamedTuple):
    """E problems as the program takes them; places beyond a split's last problem repeat it and are not graded.

    Attributes:
      prompts: E rows of a split's prompt table.
      index_E: int32, number of the problem in its split, which determines its draws.
      reference_E: int32, number of its reference answer among those of all splits.
      present_E: bool, False for a repetition.
    """

    prompts: Prompts
    index_E: Array
    reference_E: Array
    present_E: Array


@dataclass(frozen=True)
class Evaluator:
    """Answers and grades splits of the data with given weights; made by `compile_evaluator`.

    Attributes:
      tables: Prompts by split.
      problems: How many problems of each split are evaluated.
      answers: Number of answers to a problem, the greedy one and those that are sampled.
      batch: How many problems the program answers at a time.
      program: The compiled program; None without any split.
      grader: The host's side of its grading; None without any split.
    """

    model: ShardedModel
    tables: dict[str, PromptTable]
    problems: dict[str, int]
    answers: int
    batch: int
    program: Callable[[Any, Batch], Answers] | None
    grader: Grader | None = None

    def __call__(self, weights: Any, name: str, label: str = "") -> Answers:
        """Returns the answers to all problems of a split, on the host; a `label` names them in a line of progress."""
        parts, progress = [], ProgressLine(label, self.problems[name], "problems")
        for part in self.batches(weights, name):
            parts.append(part)
            if label:
                progress.show(min(self.batch * len(parts), self.problems[name]))
        return jax.tree.map(lambda *part: np.concatenate(part), *parts)

    def batches(self, weights: Any, name: str, first: int = 0) -> Iterator[Answers]:
        """Yields the answers to a split's problems from number `first` on, each batch as soon as it is graded."""
        table, count = self.tables[name], self.problems[name]
        offset = _first_references(self.tables)[name]
        for start in range(first, count, self.batch):
            inputs = _make_batch(table, start, self.batch, count, offset)
            placed = distributed.place(inputs, jax.tree.map(lambda _: self.model.whole, inputs))
            answers = jax.device_get(self.program(weights, placed))
            answers = _add_findings(answers, inputs.reference_E, self.grader.take_findings())
            yield jax.tree.map(lambda x, left=count - start: x[:left], answers)


def compile_evaluator(
    model: ShardedModel,
    engine: Engine,
    grader: Callable[[Sequence[str]], Grader],
    tables: dict[str, PromptTable],
    config: EvaluationConfig,
    seed: int,
) -> Evaluator:
    """Compiles the one program that evaluates all splits.

    A draw depends on (seed, number of the problem in its split, number of the answer) alone: two evaluations differ by
    their weights, not by batches, meshes or other splits.

    Args:
      engine: Samples, with the temperature, top-p and top-k of the evaluation.
      grader: Returns the host's side of grading answers to problems with these reference answers.
      tables: Prompts by split.
      config: The numbers of problems and answers.

    Raises:
      ValueError: For more problems or answers than there are request numbers, before anything is compiled.
    """
    problems = {name: _limit(len(table.answers), config.max_problems) for name, table in tables.items()}
    _check_request_numbers(problems, config.answers_per_problem)
    answers = 1 + config.answers_per_problem
    # Whole problems on every data shard, and answers on every device that grades them.
    devices = model.mesh.size
    batch = round_up(min(config.problems_per_batch, max(problems.values(), default=1)), devices)
    if not tables:
        return Evaluator(model, tables, problems, answers, batch, None)
    host = grader([answer for table in tables.values() for answer in table.answers])
    host.take_findings()  # from here on it keeps them

    def evaluate(weights, inputs):
        return _evaluate(model, engine, host, answers, seed, weights, inputs)

    layouts = layout.shardings(model.mesh, model.weight_specs), model.whole
    jitted = jax.jit(evaluate, in_shardings=layouts, out_shardings=model.whole)
    name, table = next(iter(tables.items()))
    inputs = _make_batch(table, 0, batch, problems[name], 0)
    program = jitted.lower(model.abstract_weights(), inputs).compile()
    return Evaluator(model, tables, problems, answers, batch, program, host)


def _add_findings(answers: Answers, reference_E: np.ndarray, findings: dict[bytes, Finding]) -> Answers:
    """Adds what the grader found in each answer."""
    E, K = answers.length_EK.shape
    found = [
        look_up(
            findings,
            reference_E[e],
            answers.token_EKT[e, k, : answers.length_EK[e, k]],
            is_cut=answers.truncated_EK[e, k],
        )
        for e in range(E)
        for k in range(K)
    ]
    texts = (np.array([part or "" for part in column]).reshape(E, K) for column in zip(*found, strict=True))
    return answers._replace(**dict(zip(("extracted_EK", "reason_EK"), texts, strict=True)))


def _make_batch(table: PromptTable, first: int, size: int, count: int, offset: int) -> Batch:
    """Returns problems `first`, `first + 1`, … of the `count` of a split; its references begin at number `offset`."""
    problem_E = np.arange(first, first + size)
    index_E = np.minimum(problem_E, count - 1).astype(np.int32)
    prompts = Prompts(table.token_QP[index_E], table.length_Q[index_E])
    return Batch(prompts, index_E, index_E + np.int32(offset), problem_E < count)


def _first_references(tables: dict[str, PromptTable]) -> dict[str, int]:
    """Returns the number of each split's first reference answer among those of all splits."""
    counts = [len(table.answers) for table in tables.values()]
    return dict(zip(tables, itertools.accumulate(counts, initial=0), strict=False))


def _evaluate(
    model: ShardedModel, engine: Engine, grader: Grader, answers: int, seed: int, weights: Any, batch: Batch
) -> Answers:
    """The program: `answers` answers to each problem of the batch, the first of them greedy, graded."""
    E, K = batch.index_E.shape[0], answers
    answer_K = jnp.arange(K, dtype=jnp.uint32)
    request_EK = batch.index_E[:, None].astype(jnp.uint32) * jnp.uint32(MOST_ANSWERS) + answer_K[None]
    limit_EK = jnp.full((E, K), engine.config.max_answer_tokens, jnp.int32)
    greedy_EK = jnp.broadcast_to(answer_K[None] == 0, (E, K))
    requests = Requests(batch.prompts, batch.reference_E, request_EK, limit_EK, greedy_EK)
    requests = layout.split_rows(requests, model.mesh)
    with jax.default_matmul_precision(model.config.precision):
        # A stream of draws that training does not use, the same at every evaluation.
        rollout = engine(engine.sampling_weights(weights), requests, stream(seed, "evaluation")).rollout
    reference_B, present_B = jnp.repeat(batch.reference_E, K), jnp.repeat(batch.present_E, K)
    gradable_B = present_B & ~rollout.truncated_B
    verdict_B, host = verify(grader, model.mesh, reference_B, rollout.token_BT, rollout.length_B, gradable_B)
    graded = Answers(
        token_EKT=rollout.token_BT,
        logp_EK=jnp.sum(rollout.logp_BT, axis=1),
        length_EK=rollout.length_B,
        truncated_EK=rollout.truncated_B,
        verdict_EK=verdict_B,
        correct_EK=(verdict_B == STATUSES.index("correct")) & ~rollout.truncated_B,
        second_EK=host.second_B,
    )
    return jax.tree.map(lambda x: x.reshape(E, K, *x.shape[1:]), graded)


def _limit(count: int, most: int) -> int:
    """Returns how many of `count` problems are evaluated: at most `most`, where 0 is no limit."""
    return min(count, most or count)


def _check_request_numbers(problems: dict[str, int], answers: int) -> None:
    if answers >= MOST_ANSWERS:
        raise ValueError(f"config.evaluation.answers_per_problem={answers}: use at most {MOST_ANSWERS - 1}")
    for name, count in problems.items():
        if count > MOST_PROBLEMS:
            raise ValueError(
                f"{name} has {count} problems to evaluate; set config.evaluation.max_problems to at most "
                f"{MOST_PROBLEMS}"
            )
