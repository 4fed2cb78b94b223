"""Graded answers on the disk: a line of JSON for each problem, and beside it a file with the settings and the score."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from nft_jax.config import Config
from nft_jax.data.prompts import PromptTable
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.evaluation.scores import Answers, Score, judge_by_second, score
from nft_jax.files import atomically, json_text
from nft_jax.run.workdir import read_lines
from nft_jax.verify.callback import NOT_GRADED
from nft_jax.verify.extract import final_answer
from nft_jax.verify.grade import STATUSES
from nft_jax.verify.math.tokens import normalize
from nft_jax.verify.version import version


def score_settings(config: Config) -> dict:
    """Returns the settings that a score depends on, besides weights and problems."""
    sampling = config.evaluation
    return {
        "answers": sampling.answers_per_problem,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_answer_tokens": config.rollout.max_answer_tokens,
        "max_prompt_tokens": config.data.max_prompt_tokens,
        "stop": config.rollout.stop,
        "seed": config.seed,
        "template": config.data.template,
        "grader": version(config.verify.grader),
        "second_grader": config.verify.second_grader and version(config.verify.second_grader),
    }


def make_rows(answers: Answers, prompts: PromptTable, first: int, tokenizer: Tokenizer) -> Iterator[dict]:
    """Yields a row for each problem, with its texts, the greedy answer first; the problems begin at number `first`."""
    for e, tokens_KT in enumerate(answers.token_EKT):
        length_K = answers.length_EK[e]
        yield {
            "id": prompts.problems[first + e].id,
            "prompt": prompts.prompts[first + e],
            "reference": prompts.answers[first + e],
            "answers": tokenizer.decode_batch([row[:n].tolist() for row, n in zip(tokens_KT, length_K, strict=True)]),
            "verdicts": [STATUSES[code] for code in answers.verdict_EK[e]],
            "second_verdicts": [None if code == NOT_GRADED else STATUSES[code] for code in answers.second_EK[e]],
            "truncated": answers.truncated_EK[e].tolist(),
            "lengths": length_K.tolist(),
            "logps": answers.logp_EK[e].tolist(),
        }


def parse_rows(rows: Sequence[dict]) -> Answers:
    """Returns the answers, without their tokens, of rows made by `make_rows`."""
    length_EK, truncated_EK = (np.array([row[part] for row in rows]) for part in ("lengths", "truncated"))
    logp_EK = np.array([row["logps"] for row in rows], float)  # null, a log-prob that was not finite, becomes NaN
    verdict_EK, second_EK = (
        np.array([[NOT_GRADED if status is None else STATUSES.index(status) for status in row[part]] for row in rows])
        for part in ("verdicts", "second_verdicts")
    )
    correct_EK = (verdict_EK == STATUSES.index("correct")) & ~truncated_EK
    no_tokens = np.zeros((*length_EK.shape, 0), np.int32)
    return Answers(no_tokens, logp_EK, length_EK, truncated_EK, verdict_EK, correct_EK, second_EK)


def score_rows(rows: Sequence[dict], ks: Sequence[int], second_grader: str) -> dict[str, Score]:
    """Returns the "score" of rows made by `make_rows`, and the "second_score" by the second grader if there is one."""
    answers, votes = parse_rows(rows), [[extract_vote(text) for text in row["answers"][1:]] for row in rows]
    second = {"second_score": score(judge_by_second(answers), pass_at=ks)} if second_grader else {}
    return {"score": score(answers, votes, ks)} | second


def extract_vote(response: str) -> str | None:
    """Returns what a response votes for in maj@k: its final answer, normalized, or None."""
    answer = final_answer(response)
    return None if answer is None else normalize(answer)


def read_rows(responses: Path, result_path: Path, result: dict) -> list[dict]:
    """Reads the rows of an earlier evaluation; none unless it had the same settings, problems and weights.

    Args:
      responses: The file of rows.
      result_path: The file with the settings of those rows.
      result: The settings, problems and weights of this evaluation.
    """
    try:
        before = json.loads(result_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    same = all(before.get(part) == json.loads(json_text(value)) for part, value in result.items())
    return read_lines(responses) if same else []


def write_rows(file: TextIO, rows: Iterable[dict]) -> None:
    """Writes rows to the disk, so that an evaluation that is killed later loses none of them."""
    file.writelines(json_text(row) + "\n" for row in rows)
    file.flush()


def write_result(path: Path, result: dict) -> None:
    """Writes the settings of an evaluation, and once it is complete its score."""
    with atomically(path) as temporary:
        temporary.write_text(json_text(result, 2) + "\n", encoding="utf-8")
