"""Held-out evaluation as one program: one greedy answer and n sampled ones to every problem."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.data.prompts import PromptTable
from nft_jax.experiment import Experiment
from nft_jax.parallel import layout
from nft_jax.randomness import stream
from nft_jax.rollout.engine import Requests
from nft_jax.types import Prompts, Rollout
from nft_jax.verify.callback import Grader, verify
from nft_jax.verify.grade import STATUSES


class Answers(NamedTuple):
    """Graded answers to E problems, on the host: column 0 greedy, the others sampled.

    `token_EKT`, `length_EK`, `truncated_EK`, `verdict_EK` as in `Groups`; `correct_EK` bool.
    """

    token_EKT: np.ndarray
    length_EK: np.ndarray
    truncated_EK: np.ndarray
    verdict_EK: np.ndarray
    correct_EK: np.ndarray


class Score(NamedTuple):
    """Shares of right answers with standard errors over problems.

    `greedy` ± `greedy_error`; `sampled` ± `sampled_error` (mean over the sampled answers: avg@n); `any_right`: at least
    one of the sampled answers is right (pass@n); `truncated` and mean `length` over all answers; `problems` how many.
    """

    greedy: float
    greedy_error: float
    sampled: float
    sampled_error: float
    any_right: float
    truncated: float
    length: float
    problems: int


class Evaluator:
    """Answers and grades one split of the data with given weights; compiles once, when it is made."""

    def __init__(self, experiment: Experiment, table: PromptTable, weights: Any):
        config = experiment.config.evaluation
        self.experiment, self.table = experiment, table
        self.problems = min(config.problems, len(table.answers))
        # Whole problems on every data shard, and answers on every device that grades them.
        devices = experiment.mesh.size
        self.batch = -(-min(config.batch, self.problems) // devices) * devices
        self.batches = -(-self.problems // self.batch)
        grader = experiment.grader(table)
        # Places beyond the last problem repeat it, and are neither graded nor counted.
        index = np.minimum(np.arange(self.batches * self.batch), self.problems - 1).astype(np.int32)
        self.inputs = experiment.place(
            (
                Prompts(table.token_NP[index], table.length_N[index]),
                index,
                np.arange(len(index)) < self.problems,
            )
        )

        def evaluate(weights, inputs):
            return self._program(grader, weights, inputs)

        shardings = layout.shardings(experiment.mesh, experiment.weight_specs)
        jitted = jax.jit(evaluate, in_shardings=(shardings, experiment.whole), out_shardings=experiment.whole)
        self.program = jitted.lower(weights, self.inputs).compile()

    def __call__(self, weights: Any) -> Answers:
        """Waits for the answers to all problems of the split."""
        rollout, verdict = jax.device_get(self.program(weights, self.inputs))

        def by_problem(x):
            """`[batches, batch·K, …]` to `[problems, K, …]`."""
            return x.reshape(self.batches * self.batch, -1, *x.shape[2:])[: self.problems]

        rollout, verdict = jax.tree.map(by_problem, rollout), by_problem(verdict)
        right = (verdict == STATUSES.index("correct")) & ~rollout.truncated_B
        return Answers(rollout.token_BT, rollout.length_B, rollout.truncated_B, verdict, right)

    def _program(self, grader: Grader, weights, inputs) -> tuple[Rollout, jax.Array]:
        experiment, config = self.experiment, self.experiment.config
        K = 1 + config.evaluation.answers
        # Its own stream of draws, the same at every evaluation: two evaluations differ by their weights alone.
        key = stream(config.seed, "evaluation")
        view = experiment.engine.view(weights)
        greedy_EK = jnp.broadcast_to(jnp.arange(K)[None] == 0, (self.batch, K))

        def batch(carry, inputs):
            prompts, index_E, present_E = inputs
            request_EK = index_E[:, None].astype(jnp.uint32) * jnp.uint32(K) + jnp.arange(K, dtype=jnp.uint32)[None]
            requests = layout.rows(Requests(prompts, request_EK, greedy_EK), experiment.mesh)
            rollout = experiment.engine(view, requests, key)
            gradable_B = jnp.repeat(present_E, K) & ~rollout.truncated_B
            verdict_B, _ = verify(
                grader, experiment.mesh, jnp.repeat(index_E, K), rollout.token_BT, rollout.length_B, gradable_B
            )
            return carry, (rollout, verdict_B)

        def split(x):
            return x.reshape(self.batches, self.batch, *x.shape[1:])

        with jax.default_matmul_precision(config.model.precision):
            _, (rollout, verdict) = jax.lax.scan(batch, None, jax.tree.map(split, inputs))
        return rollout, verdict


def score(answers: Answers) -> Score:
    """Summarises graded answers; sampled answers of one problem are not independent, so errors are over problems."""
    greedy, sampled = answers.correct_EK[:, 0].astype(float), answers.correct_EK[:, 1:].astype(float)

    def error(value_E):
        return float(np.std(value_E) / np.sqrt(max(len(value_E) - 1, 1)))

    return Score(
        greedy=float(greedy.mean()),
        greedy_error=error(greedy),
        sampled=float(sampled.mean()),
        sampled_error=error(sampled.mean(axis=1)),
        any_right=float(sampled.any(axis=1).mean()),
        truncated=float(answers.truncated_EK.mean()),
        length=float(answers.length_EK.mean()),
        problems=len(greedy),
    )
