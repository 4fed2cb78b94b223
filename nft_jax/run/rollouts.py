"""The groups of a step that is logged, as `rollouts/step_*.jsonl` has them: texts, verdicts, and tokens of some."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from nft_jax.data.prompts import PromptTable
from nft_jax.data.tokenizer import Tokenizer
from nft_jax.types import Groups, WatchedGroups
from nft_jax.verify.findings import Finding, look_up
from nft_jax.verify.grade import STATUSES


class TokenRecord(NamedTuple):
    """What is known of the tokens of some groups.

    Attributes:
      watched: What the updates saw of them.
      after_QKT: float32, log-probs by the weights after the step, of the same groups.
      recomputed: Whether log π_old is the trainer's own (`old_logp=recompute`), in place of the sampler's.
    """

    watched: WatchedGroups
    after_QKT: np.ndarray
    recomputed: bool


def describe_groups(
    groups: Groups,
    table: PromptTable,
    tokenizer: Tokenizer,
    tokens: TokenRecord | None = None,
    findings: Mapping[bytes, Finding] | None = None,
) -> Iterator[dict]:
    """Yields each group with its prompt and answers as text, what the grader found, and the tokens of those recorded.

    Args:
      findings: From `Grader.take_findings`; None, or none of an answer: its extracted answer and reason are None.
    """
    recorded = {} if tokens is None else {place: row for row, place in enumerate(tokens.watched.place_Q.tolist())}
    for q, prompt in enumerate(np.asarray(groups.prompt_Q).tolist()):
        ids = [row[:n].tolist() for row, n in zip(groups.token_QKT[q], groups.length_QK[q], strict=True)]
        found = [
            look_up(findings or {}, prompt, answer, is_cut=cut)
            for answer, cut in zip(ids, groups.truncated_QK[q], strict=True)
        ]
        yield {
            "prompt": table.prompts[prompt],
            "reference": table.answers[prompt],
            "rate": round(float(groups.rate_Q[q]), 4),
            "answers": tokenizer.decode_batch(ids),
            "verdicts": [STATUSES[code] for code in groups.verdict_QK[q]],
            "extracted": [each.extracted for each in found],
            "reasons": [each.reason for each in found],
            **(
                {} if groups.graded_QK is None else {"rewards": np.round(groups.graded_QK[q].astype(float), 4).tolist()}
            ),
            "truncated": groups.truncated_QK[q].tolist(),
            "lengths": groups.length_QK[q].tolist(),
            **(_describe_tokens(groups, q, tokens, recorded[q], ids, tokenizer) if q in recorded else {}),
        }


def _describe_tokens(
    groups: Groups, q: int, record: TokenRecord, row: int, ids: list[list[int]], tokenizer: Tokenizer
) -> dict:
    """Returns the number of the update that trains a group (from 0; None: none), and each answer's tokens.

    A token has its text and log-probs by the sampler and after the step. What its update saw is missing for an answer
    that none trains, and the gap, sampler − trainer at the same weights, where the trainer has not computed it.
    """
    watched = record.watched
    update = int(watched.update_Q[row])
    answers = []
    for k, answer in enumerate(ids):
        sampler_T, after_T = groups.logp_QKT[q, k, : len(answer)], record.after_QKT[row, k, : len(answer)]
        values = {"sampler": _round(sampler_T), "after": _round(after_T)}
        seen = {name: value_QKT[row, k, : len(answer)] for name, value_QKT in watched.seen._asdict().items()}
        if update >= 0 and (np.any(seen["new"]) or np.any(seen["entropy"])):
            values |= {name: _round(value_T) for name, value_T in seen.items()}
            fresh = groups.age_QK is None or groups.age_QK[q, k] == 0
            if record.recomputed or (update == 0 and fresh):
                trainer_T = seen["old" if record.recomputed else "new"]
                values["gap"] = [float(f"{value:.3g}") for value in sampler_T - trainer_T]
        answers.append({"texts": tokenizer.token_texts(answer)} | values)
    return {"update": None if update < 0 else update, "tokens": answers}


def _round(value_T: np.ndarray) -> list[float]:
    return np.round(value_T.astype(float), 4).tolist()
