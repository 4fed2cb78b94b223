"""Graded answers on the disk: a line of JSON for each problem, and beside it a file with the settings and the score."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from nft_jax.config import Config
from nft_jax.data.prompts import PromptTable
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.evaluation.scores import Answers, Score, judge_by_second, score
from nft_jax.files import atomically, json_text
from nft_jax.run.json_files import NUMBER_OR_NONE, find_fault, parse_object, read_json
from nft_jax.verify.callback import NOT_GRADED
from nft_jax.verify.extract import final_answer
from nft_jax.verify.grade import STATUSES
from nft_jax.verify.math.tokens import normalize
from nft_jax.verify.version import version

# The parts of a row that have a value for each answer, and its kind.
_COLUMNS = {
    "answers": str,
    "verdicts": str,
    "second_verdicts": str | None,
    "truncated": bool,
    "lengths": int,
    "logps": NUMBER_OR_NONE,
}
_STATUSES = (*STATUSES, None)


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
        "end_ids": config.rollout.end_ids,
        "seed": config.seed,
        "template": config.data.template,
        "dtype": config.model.dtype,
        "precision": config.model.precision,
        "grader": version(config.verify.grader),
        "correct_from": config.verify.correct_from,
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
            "kind": prompts.problems[first + e].kind,
            "answers": tokenizer.decode_batch([row[:n].tolist() for row, n in zip(tokens_KT, length_K, strict=True)]),
            "verdicts": [STATUSES[code] for code in answers.verdict_EK[e]],
            "second_verdicts": [None if code == NOT_GRADED else STATUSES[code] for code in answers.second_EK[e]],
            "truncated": answers.truncated_EK[e].tolist(),
            "lengths": length_K.tolist(),
            "logps": answers.logp_EK[e].tolist(),
            **_describe_findings(answers, e),
        }


def _describe_findings(answers: Answers, e: int) -> dict:
    """Returns what the grader found in the answers to a problem, where that is known."""
    if answers.extracted_EK is None:
        return {}
    return {"extracted": answers.extracted_EK[e].tolist(), "reasons": answers.reason_EK[e].tolist()}


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


class Rows(NamedTuple):
    """The rows of an earlier evaluation, in the order of the problems, and what is wrong with the files ("": nothing).

    Behind a damaged row none counts, because nothing would say which problem it belongs to.
    """

    rows: list[dict]
    fault: str = ""


def read_rows(responses: Path, result_path: Path, result: dict, prompts: PromptTable) -> Rows:
    """Reads the rows of an earlier evaluation; none unless it had the same settings, problems and weights.

    Args:
      responses: The file of rows.
      result_path: The file with the settings of those rows.
      result: The settings, problems and weights of this evaluation.
      prompts: The problems.
    """
    if not responses.exists() or not responses.stat().st_size:
        return Rows([])
    try:
        before = read_json(result_path)
        if fault := find_fault(before, dict.fromkeys(result, dict)):
            raise ValueError(f"{result_path} {fault}")
    except (FileNotFoundError, ValueError) as error:
        return Rows([], f"the settings of {responses} are not known ({error})")
    if any(before.get(part) != json.loads(json_text(value)) for part, value in result.items()):
        return Rows([])
    lines, rows = responses.read_bytes().split(b"\n"), []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_object(line)
        except ValueError as error:
            is_last = not any(rest.strip() for rest in lines[number:])  # an evaluation that was killed left it
            return Rows(rows, "" if is_last else f"{responses}:{number} is no JSON object ({error})")
        if fault := _find_row_fault(row, prompts, len(rows), 1 + result["settings"]["answers"]):
            return Rows(rows, f"{responses}:{number} {fault}")
        rows.append(row)
    return Rows(rows)


def _find_row_fault(row: dict, prompts: PromptTable, number: int, answers: int) -> str:
    """Returns what is wrong with the row of a problem, the first has number 0; "" for nothing."""
    if fault := find_fault(row, {"prompt": str} | dict.fromkeys(_COLUMNS, list)):
        return fault
    if number >= len(prompts.prompts):
        return "is one more than there are problems"
    if (row["prompt"], row.get("id")) != (prompts.prompts[number], prompts.problems[number].id):
        return f"is not about problem {number + 1}, {prompts.problems[number].id!r}"
    for name, kind in _COLUMNS.items():
        if len(row[name]) != answers or not all(isinstance(value, kind) for value in row[name]):
            return f"needs {answers} values as {name!r} and has {str(row[name])[:40]}"
    odd = [status for name in ("verdicts", "second_verdicts") for status in row[name] if status not in _STATUSES]
    return f"has the unknown verdict {odd[0]!r}" if odd else ""


def write_rows(file: TextIO, rows: Iterable[dict]) -> None:
    """Writes rows to the disk, so that an evaluation that is killed later loses none of them."""
    file.writelines(json_text(row) + "\n" for row in rows)
    file.flush()


def write_result(path: Path, result: dict) -> None:
    """Writes the settings of an evaluation, and once it is complete its score."""
    with atomically(path) as temporary:
        temporary.write_text(json_text(result, 2) + "\n", encoding="utf-8")
