"""Scores of graded answers: accuracies with standard errors, pass@k and maj@k."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nft_jax.types import Array
from nft_jax.verify.callback import NOT_GRADED, graders_differ
from nft_jax.verify.grade import STATUSES

MAJORITY_DRAWS = 256


class Answers(NamedTuple):
    """Graded answers to E problems: column 0 greedy, the others sampled.

    Attributes:
      token_EKT: int32, the answers' tokens.
      logp_EK: float32, Σ log-prob of an answer's tokens under the distribution that it was drawn from.
      length_EK: int32, number of tokens.
      truncated_EK: bool, whether the answer was cut at the limit.
      verdict_EK: int32, number of the verdict in `STATUSES`.
      correct_EK: bool, never True for a truncated answer.
      second_EK: int32, as `verdict_EK`, by the second grader; −1 where it did not grade.
      extracted_EK: str, what the grader took for the answer; empty where it took nothing, or another process graded.
      reason_EK: str, why the answer is not correct (`verify/findings.py`); empty for a correct one, or as above. Both
        are None on the device.
    """

    token_EKT: Array
    logp_EK: Array
    length_EK: Array
    truncated_EK: Array
    verdict_EK: Array
    correct_EK: Array
    second_EK: Array
    extracted_EK: np.ndarray | None = None
    reason_EK: np.ndarray | None = None


def judge_by_second(answers: Answers) -> Answers:
    """Returns the answers with the second grader's verdicts in place of the first's."""
    verdict_EK = np.where(answers.second_EK == NOT_GRADED, STATUSES.index("incorrect"), answers.second_EK)
    correct_EK = (verdict_EK == STATUSES.index("correct")) & ~answers.truncated_EK
    return answers._replace(verdict_EK=verdict_EK, correct_EK=correct_EK)


class Score(NamedTuple):
    """Shares of correct answers, with standard errors over problems (None for a single problem).

    Attributes:
      greedy: Share of the greedy answers.
      sampled: Mean share of the n sampled answers to a problem: avg@n.
      answers: n.
      pass_at: k → mean of `pass_at_k` over problems, by default for k = 1, 2, 4, … and n.
      maj_at: k → mean of `maj_at_k` over problems, for the same k except 1; empty without votes.
      verdicts: Number of the sampled answers with each verdict; truncated ones count as incorrect.
      truncated: Mean share of all answers that were cut at the limit.
      length: Mean tokens of all answers.
      entropy: Mean −log-prob of a sampled token in nats: an unbiased estimate of the entropy of a token.
      disagreement: Share of the answers judged by two graders that only one calls correct; None with one grader.
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


def score(answers: Answers, votes: Sequence[Sequence[str | None]] | None = None, pass_at: Sequence[int] = ()) -> Score:
    """Scores graded answers; errors are over problems, because sampled answers of one problem are not independent.

    Args:
      votes: What each sampled answer votes for, `[E][n]`: equal votes are the same answer, None is no vote.
      pass_at: The k of pass@k and maj@k; empty: 1, 2, 4, … and n.

    Raises:
      ValueError: For a k greater than n.
    """
    greedy_E, sampled_EK = answers.correct_EK[:, 0].astype(float), answers.correct_EK[:, 1:]
    counts = np.bincount(answers.verdict_EK[:, 1:].ravel(), minlength=len(STATUSES)).tolist()
    n, correct_E = sampled_EK.shape[1], sampled_EK.sum(axis=1).tolist()
    ks = pass_at or _default_ks(n)
    return Score(
        greedy=float(greedy_E.mean()),
        greedy_error=_error(greedy_E),
        sampled=float(sampled_EK.mean()),
        sampled_error=_error(sampled_EK.mean(axis=1)),
        answers=n,
        pass_at={k: float(np.mean([pass_at_k(n, correct, k) for correct in correct_E])) for k in ks},
        maj_at={} if votes is None else {k: _mean_majority(votes, sampled_EK, k) for k in ks if k > 1},
        verdicts=dict(zip(STATUSES, counts, strict=True)),
        truncated=float(answers.truncated_EK.mean()),
        length=float(answers.length_EK.mean()),
        entropy=float(-answers.logp_EK[:, 1:].sum(dtype=float) / answers.length_EK[:, 1:].sum()),
        problems=len(greedy_E),
        disagreement=_disagreement(answers),
    )


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Returns the probability that k of n answers, `correct` of which are correct, include a correct one.

    The k are drawn without replacement: 1 − C(n − correct, k) / C(n, k), computed as the product
    1 − Π_{i = n − correct + 1}^{n} (1 − k / i), which never leaves [0, 1]: the unbiased estimator of Chen et al. 2021,
    arXiv 2107.03374, section 2.1.

    Raises:
      ValueError: Unless 1 ≤ k ≤ n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} answers, and there are {n}: use a k between 1 and {n}")
    if n - correct < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - correct + 1, n + 1)))


def maj_at_k(votes: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """Returns the probability that the majority of k votes is correct; the k are drawn without replacement.

    Answers that tie for the first place share the probability; None is no vote, and without any vote nothing is
    correct. Exact for k = n; for smaller k the mean over `MAJORITY_DRAWS` subsets, the same at every call.
    """
    draws = [range(len(votes))]
    if k < len(votes):
        random = np.random.default_rng(0)
        draws = [random.choice(len(votes), k, replace=False).tolist() for _ in range(MAJORITY_DRAWS)]
    return float(np.mean([_majority([(votes[i], correct[i]) for i in draw]) for draw in draws]))


def _majority(answers: list[tuple[str | None, bool]]) -> float:
    votes: dict[str, list[bool]] = {}
    for vote, correct in answers:
        if vote is not None:
            votes.setdefault(vote, []).append(bool(correct))
    most = max(map(len, votes.values()), default=0)
    return float(np.mean([np.mean(each) for each in votes.values() if len(each) == most])) if most else 0.0


def _mean_majority(votes: Sequence[Sequence[str | None]], correct_EK: np.ndarray, k: int) -> float:
    return float(np.mean([maj_at_k(*one, k) for one in zip(votes, correct_EK.tolist(), strict=True)]))


def _disagreement(answers: Answers) -> float | None:
    judged = int((answers.second_EK != NOT_GRADED).sum())
    return float(graders_differ(answers.verdict_EK, answers.second_EK).sum()) / judged if judged else None


def _default_ks(n: int) -> list[int]:
    """Returns 1, 2, 4, … up to n, and n itself."""
    return [*(2**i for i in range(n.bit_length()) if 2**i < n), n]


def _error(value_E: np.ndarray) -> float | None:
    """Returns the standard error of the mean: sample standard deviation / √E."""
    count = len(value_E)
    return float(np.std(value_E) / np.sqrt(count - 1)) if count > 1 else None
