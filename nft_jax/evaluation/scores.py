"""What graded answers are worth: accuracies with standard errors, pass@k and maj@k."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nft_jax.types import Array
from nft_jax.verify.callback import NOT_ASKED, graders_differ
from nft_jax.verify.grade import STATUSES

MAJORITY_DRAWS = 256


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
    `verdicts`   how many of the sampled answers got each status; what was cut at the limit counts as "incorrect"
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
    return float(graders_differ(answers.verdict_EK, answers.second_EK).sum()) / asked if asked else None


def _ks(n: int) -> list[int]:
    """1, 2, 4, … up to n, and n itself."""
    return [*(2**i for i in range(n.bit_length()) if 2**i < n), n]


def _error(value_E: np.ndarray) -> float | None:
    """Standard error of the mean: sample standard deviation / √E."""
    count = len(value_E)
    return float(np.std(value_E) / np.sqrt(count - 1)) if count > 1 else None
