"""Answers as a list, and their packing into rows: what the tests of the losses are drawn from."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from nft_jax.types import LossBatch, Totals

# Every loss with the options that change its path through the code.
CASES = [
    ("nft", {}),
    ("nft", {"omega": "sqrt_odds", "epsilon": 0.1, "negative_weight": 0.5}),
    ("nft", {"omega": "one", "epsilon": 0.0, "clamp_rate": False}),
    ("nft", {"omega": "sqrt_odds", "clamp_rate": False, "ratio": "answer"}),
    ("nft", {"epsilon": 2.0, "ratio": "answer"}),
    ("nft", {"omega": "odds", "epsilon": 0.5, "ratio": "mean"}),
    ("rft", {}),
    ("grpo", {}),
    ("grpo", {"clip_low": 1.0, "clip_high": 3.0}),
    ("dr_grpo", {"clip_low": 0.05, "clip_high": 0.1}),
    ("dapo", {}),
    ("dpo", {}),
    ("grpo", {"dual_clip": 1.5}),
    ("maxrl", {}),
    ("rloo", {"clip_low": 0.1}),
    ("reinforce_plus_plus", {}),
    ("reinforce_plus_plus_baseline", {}),
    ("ngrpo", {}),
    ("psr", {}),
    ("nsr", {}),
    ("w_reinforce", {}),
    ("gspo", {}),
    ("gspo", {"clip_low": 0.2, "clip_high": 0.3}),
    ("gmpo", {}),
    ("cispo", {"clip_low": 0.3, "clip_high": 0.5}),
    ("sapo", {"tau_positive": 2.0}),
    ("dppo", {"max_ratio": 1.5}),
    ("dppo", {"divergence": "kl", "limit_low": 0.05, "limit_high": 0.02}),
    ("clip_cov", {}),
    ("kl_cov", {"penalty": 0.7}),
    ("contrast", {}),
    ("contrast", {"omega": "sqrt_odds", "clamp_rate": False}),
]
CASE_IDS = ["-".join([name, *(f"{key}={value}" for key, value in options.items())]) for name, options in CASES]


# Tokens whose `old_logp` is below are those that a loss's `prepare` chose.
CHOSEN_BELOW = -1.5


class Answer(NamedTuple):
    """One answer: log-probs of its tokens under both policies, and its values. `pair` is unique over the batch."""

    logp: np.ndarray
    old_logp: np.ndarray
    reward: float
    rate: float
    advantage: float
    pair: int


class Packed(NamedTuple):
    """`places[i]` = (row, slice of the row) of the i-th answer that was packed."""

    logp_BT: jnp.ndarray
    batch: LossBatch
    places: list


def draw_answers(seed: int, groups: int = 4, size: int = 5, longest: int = 6) -> list[Answer]:
    """Mixed groups whose correct and incorrect answers are paired as far as possible; log-ratios about ±1, some 0."""
    random = np.random.default_rng(seed)
    answers = []
    for group in range(groups):
        rewards = random.permutation(np.arange(size) < random.integers(1, size)).astype(float)
        seen = [0, 0]
        pairs = min(rewards.sum(), size - rewards.sum())
        for reward in rewards:
            old_logp = -random.exponential(1.5, random.integers(1, longest + 1))
            drift = random.normal(0, 1, old_logp.shape) * (random.random(old_logp.shape) > 0.2)
            order, seen[int(reward)] = seen[int(reward)], seen[int(reward)] + 1
            pair = group * size + order if order < pairs else -1
            answers.append(Answer(old_logp + drift, old_logp, reward, rewards.mean(), random.normal(), pair))
    return answers


def units(answers: list[Answer], unit: str) -> list[list[Answer]]:
    """What must share a row: each answer alone, or (for pairs) the two of a pair."""
    if unit == "answer":
        return [[answer] for answer in answers]
    pairs: dict[int, list[Answer]] = {}
    for answer in answers:
        if answer.pair >= 0:
            pairs.setdefault(answer.pair, []).append(answer)
    return list(pairs.values())


def pack(rows: list[list[Answer]], length: int, dtype=np.float32) -> Packed:
    """Rows of answers, each after two tokens of prompt that belong to no answer; the rest of the row is padding."""
    shape = (len(rows), length)
    logp, old_logp, reward, rate, advantage = (np.zeros(shape, dtype) for _ in range(5))
    logp[:], old_logp[:] = -7.0, -3.0
    ids, pairs = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
    places = []
    for b, row in enumerate(rows):
        start, pair_ids = 0, {}
        for i, answer in enumerate(row):
            start += 2
            place = slice(start, start + len(answer.logp))
            assert place.stop <= length, "the row is too short for its answers"
            logp[b, place], old_logp[b, place] = answer.logp, answer.old_logp
            reward[b, place], rate[b, place], advantage[b, place] = answer.reward, answer.rate, answer.advantage
            ids[b, place] = i
            pairs[b, place] = -1 if answer.pair < 0 else pair_ids.setdefault(answer.pair, len(pair_ids))
            places.append((b, place))
            start = place.stop
    choice = np.where(ids >= 0, old_logp < CHOSEN_BELOW, False).astype(dtype)
    batch = LossBatch(*map(jnp.asarray, (old_logp, ids, reward, rate, advantage, pairs)), choice_BT=jnp.asarray(choice))
    return Packed(jnp.asarray(logp), batch, places)


def totals_of(answers: list[Answer], dtype=np.float32) -> Totals:
    """What the batch holds, counted from the list."""
    pairs = {answer.pair for answer in answers} - {-1}
    counts = (len(answers), sum(len(answer.logp) for answer in answers), len(pairs))
    return Totals(*(jnp.asarray(count, dtype) for count in counts))
