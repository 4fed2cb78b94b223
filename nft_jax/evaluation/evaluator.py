"""Held-out evaluation: one greedy answer and n sampled ones to every problem, and what they are worth.

One program answers and grades one batch of problems, whatever split they are of; the host goes from batch to batch.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.data.prompts import PromptTable
from nft_jax.evaluation.scores import Answers
from nft_jax.experiment import Experiment
from nft_jax.parallel import layout
from nft_jax.randomness import stream
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.state import Requests
from nft_jax.types import Array, Prompts
from nft_jax.verify.callback import Grader, verify
from nft_jax.verify.grade import STATUSES

# A request's number is problem · MOST_ANSWERS + answer, in 32 bits: more answers to a problem leave the first as they
# were.
MOST_ANSWERS = 2**12
MOST_PROBLEMS = 2**32 // MOST_ANSWERS


class Batch(NamedTuple):
    """E problems as the program takes them. Places beyond a split's last problem repeat it, and aren't graded.

    `prompts`       E rows of a split's prompt table
    `index_E`       int32  number of the problem in its split: what its draws depend on
    `reference_E`   int32  number of its reference answer among those of all splits
    `present_E`     bool   whether it is a problem, and not a repetition
    """

    prompts: Prompts
    index_E: Array
    reference_E: Array
    present_E: Array


class Evaluator:
    """Answers and grades splits of the data with given weights; compiles once, when it is made, for all of them.

    `problems` says how many of each table are taken. A draw depends on (seed, number of the problem in its split,
    number of the answer) alone: two evaluations differ by their weights, not by batches, meshes or other splits.

    Raises:
      ValueError: for more problems or answers than there are request numbers, before anything is compiled.
    """

    def __init__(self, experiment: Experiment, tables: dict[str, PromptTable], weights: Any):
        config = experiment.config.evaluation
        self.experiment, self.tables = experiment, tables
        self.problems = {name: _taken(len(table.answers), config.max_problems) for name, table in tables.items()}
        _check_request_numbers(self.problems, config.answers_per_problem)
        # Whole problems on every data shard, and answers on every device that grades them.
        devices = experiment.mesh.size
        self.batch = -(-min(config.problems_per_batch, max(self.problems.values(), default=1)) // devices) * devices
        self.references: list[str] = []
        self.first_reference: dict[str, int] = {}
        for name, table in tables.items():
            self.first_reference[name] = len(self.references)
            self.references += table.answers
        truncation = {"temperature": config.temperature, "top_p": config.top_p, "top_k": config.top_k}
        rollout = dataclasses.replace(experiment.config.rollout, **truncation)
        self.engine = Engine(
            *(experiment.graph, experiment.axes, experiment.mesh, rollout),
            *(experiment.tokenizer.eos_ids, experiment.config.model.dtype),
        )
        self.program = self._compiled(weights) if tables else None

    def __call__(self, weights: Any, name: str) -> Answers:
        """The answers to all problems of a split, on the host."""
        parts = zip(*self.batches(weights, name), strict=True)
        return Answers(*(np.concatenate(part) for part in parts))

    def batches(self, weights: Any, name: str, first: int = 0) -> Iterator[Answers]:
        """The answers to a split's problems from number `first` on, a batch at a time, each as soon as it is graded."""
        for start in range(first, self.problems[name], self.batch):
            inputs = self.experiment.place(self._inputs(name, start))
            answers = jax.device_get(self.program(weights, inputs))
            yield Answers(*(part[: self.problems[name] - start] for part in answers))

    def _inputs(self, name: str, first: int) -> Batch:
        """The problems `first`, `first + 1`, … of a split, on the host."""
        table, count = self.tables[name], self.problems[name]
        place_E = np.arange(first, first + self.batch)
        index_E = np.minimum(place_E, count - 1).astype(np.int32)
        prompts = Prompts(table.token_NP[index_E], table.length_N[index_E])
        return Batch(prompts, index_E, index_E + np.int32(self.first_reference[name]), place_E < count)

    def _compiled(self, weights):
        experiment = self.experiment
        grader = experiment.grader(self.references)

        def evaluate(weights, inputs):
            return self._program(grader, weights, inputs)

        placed = layout.shardings(experiment.mesh, experiment.weight_specs), experiment.whole
        jitted = jax.jit(evaluate, in_shardings=placed, out_shardings=experiment.whole)
        return jitted.lower(weights, self._inputs(next(iter(self.tables)), 0)).compile()

    def _program(self, grader: Grader, weights: Any, batch: Batch) -> Answers:
        experiment, config = self.experiment, self.experiment.config
        E, K = batch.index_E.shape[0], 1 + config.evaluation.answers_per_problem
        answer_K = jnp.arange(K, dtype=jnp.uint32)
        request_EK = batch.index_E[:, None].astype(jnp.uint32) * jnp.uint32(MOST_ANSWERS) + answer_K[None]
        greedy_EK = jnp.broadcast_to(answer_K[None] == 0, (E, K))
        requests = layout.split_rows(Requests(batch.prompts, batch.reference_E, request_EK, greedy_EK), experiment.mesh)
        with jax.default_matmul_precision(config.model.precision):
            # Its own stream of draws, the same at every evaluation.
            rollout, _ = self.engine(self.engine.sampling_weights(weights), requests, stream(config.seed, "evaluation"))
        reference_B, present_B = jnp.repeat(batch.reference_E, K), jnp.repeat(batch.present_E, K)
        gradable_B = present_B & ~rollout.truncated_B
        verdict_B, host = verify(grader, experiment.mesh, reference_B, rollout.token_BT, rollout.length_B, gradable_B)
        correct_B = (verdict_B == STATUSES.index("correct")) & ~rollout.truncated_B
        answers = Answers(
            token_EKT=rollout.token_BT,
            logp_EK=jnp.sum(rollout.logp_BT, axis=1),
            length_EK=rollout.length_B,
            truncated_EK=rollout.truncated_B,
            verdict_EK=verdict_B,
            correct_EK=correct_B,
            second_EK=host.second_B,
        )
        return jax.tree.map(lambda x: x.reshape(E, K, *x.shape[1:]), answers)


def _taken(there: int, most: int) -> int:
    """How many problems are taken: at most `most` of them, where 0 is no limit."""
    return min(there, most or there)


def _check_request_numbers(problems: dict[str, int], answers: int) -> None:
    if answers >= MOST_ANSWERS:
        raise ValueError(f"config.evaluation.answers_per_problem={answers}: use at most {MOST_ANSWERS - 1}")
    for name, count in problems.items():
        if count > MOST_PROBLEMS:
            raise ValueError(
                f"{name} has {count} problems to evaluate; set config.evaluation.max_problems to at most {MOST_PROBLEMS}"
            )
