"""Held-out evaluation: one greedy answer and n sampled ones to every problem, and what they are worth.

One program answers and grades one batch of problems, whatever split they are of; the host goes from batch to batch.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.data.prompts import PromptTable
from nft_jax.experiment import Experiment
from nft_jax.parallel import layout
from nft_jax.randomness import stream
from nft_jax.rollout.engine import Engine
from nft_jax.rollout.shard import Requests
from nft_jax.types import Array, Prompts
from nft_jax.verify.callback import NOT_ASKED, Grader, differ, verify
from nft_jax.verify.grade import STATUSES

# A request's number is problem · MOST_ANSWERS + answer, in 32 bits: more answers to a problem leave the first as they
# were.
MOST_ANSWERS = 2**12
MOST_PROBLEMS = 2**32 // MOST_ANSWERS
MAJORITY_DRAWS = 256


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


class Answers(NamedTuple):
    """Graded answers to E problems: column 0 greedy, the others sampled.

    `token_EKT`, `length_EK`, `truncated_EK`, `verdict_EK` as in `Groups`; `logp_EK` float32 Σ log-prob of an answer's
    tokens, under what it was drawn from; `correct_EK` bool, never true of a truncated one; `second_EK` int32 status
    codes by the second grader, −1 where it was not asked.
    """

    token_EKT: Array
    logp_EK: Array
    length_EK: Array
    truncated_EK: Array
    verdict_EK: Array
    correct_EK: Array
    second_EK: Array


class Score(NamedTuple):
    """Shares of right answers with standard errors over problems (None: one problem has none).

    `greedy` ± `greedy_error`     `sampled` ± `sampled_error`  mean over the n sampled answers: avg@n
    `answers`    n
    `pass_at`    k → `pass_at_k` averaged over problems, for the k asked for, else 1, 2, 4, … and n
    `maj_at`     k → `maj_at_k` averaged over problems, for the same k but 1; empty without the texts
    `verdicts`   how many of the sampled answers got each status; what was cut at the limit counts as "wrong"
    `truncated`, `length` (tokens)  means over all answers     `problems`  how many
    `entropy`    nats a token of what the sampled answers were drawn from: their mean −log-prob, which estimates it
                 without bias
    `disagreement`  share of the answers judged by two graders that only one calls correct (None: there is one grader)
    """

    greedy: float
    greedy_error: float | None
    sampled: float
    sampled_error: float | None
    answers: int
    pass_at: dict[int, float]
    maj_at: dict[int, float]
    verdicts: dict[str, int]
    truncated: float
    length: float
    entropy: float
    problems: int
    disagreement: float | None = None


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
        self.problems = {name: _taken(len(table.answers), config.problems) for name, table in tables.items()}
        _check_request_numbers(self.problems, config.answers)
        # Whole problems on every data shard, and answers on every device that grades them.
        devices = experiment.mesh.size
        self.batch = -(-min(config.batch, max(self.problems.values(), default=1)) // devices) * devices
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
        E, K = batch.index_E.shape[0], 1 + config.evaluation.answers
        answer_K = jnp.arange(K, dtype=jnp.uint32)
        request_EK = batch.index_E[:, None].astype(jnp.uint32) * jnp.uint32(MOST_ANSWERS) + answer_K[None]
        greedy_EK = jnp.broadcast_to(answer_K[None] == 0, (E, K))
        requests = layout.rows(Requests(batch.prompts, batch.reference_E, request_EK, greedy_EK), experiment.mesh)
        with jax.default_matmul_precision(config.model.precision):
            # Its own stream of draws, the same at every evaluation.
            rollout, _ = self.engine(self.engine.view(weights), requests, stream(config.seed, "evaluation"))
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


def score(answers: Answers, keys: Sequence[Sequence[str | None]] | None = None, pass_at: Sequence[int] = ()) -> Score:
    """Summarises graded answers; sampled answers of one problem are not independent, so errors are over problems.

    `keys` says of each sampled answer `[E][n]` what it votes for: equal keys are the same answer, None is no vote.
    `pass_at`: the k of pass@k and maj@k; none means 1, 2, 4, … and n.

    Raises:
      ValueError: for a k of more than n.
    """
    greedy_E, sampled_EK = answers.correct_EK[:, 0].astype(float), answers.correct_EK[:, 1:]
    counts = np.bincount(answers.verdict_EK[:, 1:].ravel(), minlength=len(STATUSES)).tolist()
    n, right_E = sampled_EK.shape[1], sampled_EK.sum(axis=1).tolist()
    ks = pass_at or _ks(n)
    return Score(
        greedy=float(greedy_E.mean()),
        greedy_error=_error(greedy_E),
        sampled=float(sampled_EK.mean()),
        sampled_error=_error(sampled_EK.mean(axis=1)),
        answers=n,
        pass_at={k: float(np.mean([pass_at_k(n, right, k) for right in right_E])) for k in ks},
        maj_at={} if keys is None else {k: _majority(keys, sampled_EK, k) for k in ks if k > 1},
        verdicts=dict(zip(STATUSES, counts, strict=True)),
        truncated=float(answers.truncated_EK.mean()),
        length=float(answers.length_EK.mean()),
        entropy=float(-answers.logp_EK[:, 1:].sum(dtype=float) / answers.length_EK[:, 1:].sum()),
        problems=len(greedy_E),
        disagreement=_disagreement(answers),
    )


def pass_at_k(n: int, right: int, k: int) -> float:
    """Chance that k answers, drawn without replacement from n of which `right` are right, hold a right one.

    1 − C(n − right, k) / C(n, k), as the product 1 − Π_{i = n − right + 1}^{n} (1 − k / i), which never leaves [0, 1]:
    the unbiased estimator of Chen et al. 2021, arXiv 2107.03374, section 2.1.

    Raises:
      ValueError: unless 1 ≤ k ≤ n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} can't be told from {n} answers: k must be between 1 and {n}")
    if n - right < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - right + 1, n + 1)))


def maj_at_k(keys: Sequence[str | None], right: Sequence[bool], k: int) -> float:
    """Chance that the answer which most of k votes name is right; the k are drawn without replacement from n answers.

    Answers that share the first place share the chance; None is no vote, and without any vote nothing is right. Exact
    for k = n; for fewer the mean over `MAJORITY_DRAWS` drawn subsets, which are the same at every call.
    """
    draws = [range(len(keys))]
    if k < len(keys):
        random = np.random.default_rng(0)
        draws = [random.choice(len(keys), k, replace=False).tolist() for _ in range(MAJORITY_DRAWS)]
    return float(np.mean([_vote([(keys[i], right[i]) for i in draw]) for draw in draws]))


def _vote(answers: list[tuple[str | None, bool]]) -> float:
    votes: dict[str, list[bool]] = {}
    for key, right in answers:
        if key is not None:
            votes.setdefault(key, []).append(bool(right))
    most = max(map(len, votes.values()), default=0)
    return float(np.mean([np.mean(each) for each in votes.values() if len(each) == most])) if most else 0.0


def _majority(keys: Sequence[Sequence[str | None]], right_EK: np.ndarray, k: int) -> float:
    return float(np.mean([maj_at_k(*one, k) for one in zip(keys, right_EK.tolist(), strict=True)]))


def _disagreement(answers: Answers) -> float | None:
    asked = int((answers.second_EK != NOT_ASKED).sum())
    return float(differ(answers.verdict_EK, answers.second_EK).sum()) / asked if asked else None


def _ks(n: int) -> list[int]:
    """1, 2, 4, … up to n, and n itself."""
    return [*(2**i for i in range(n.bit_length()) if 2**i < n), n]


def _error(value_E: np.ndarray) -> float | None:
    """Standard error of the mean: sample standard deviation / √E."""
    count = len(value_E)
    return float(np.std(value_E) / np.sqrt(count - 1)) if count > 1 else None


def _taken(there: int, most: int) -> int:
    """How many problems are taken: at most `most` of them, where 0 is no limit."""
    return min(there, most or there)


def _check_request_numbers(problems: dict[str, int], answers: int) -> None:
    if answers >= MOST_ANSWERS:
        raise ValueError(f"config.evaluation.answers={answers}: use at most {MOST_ANSWERS - 1}")
    for name, count in problems.items():
        if count > MOST_PROBLEMS:
            raise ValueError(
                f"{name} has {count} problems to evaluate; set config.evaluation.problems to at most {MOST_PROBLEMS}"
            )
