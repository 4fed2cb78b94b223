"""From what a step recorded to the numbers that a person reads: the names in `metrics.jsonl` are made here."""

import math

import numpy as np

from nft_jax.state import Record
from nft_jax.verify.grade import STATUSES


def step_metrics(record: Record) -> dict:
    """The numbers of one step, from its record on the host (NumPy arrays).

    Shares are of answers or tokens as named; means over nothing are None.
    """
    tally, applied, totals = record.statistics, record.applied, record.totals
    statistics = applied.statistics

    def of_taken(value_O):
        # Not a product: what an update that was not taken measured may be no number.
        return np.where(applied.taken > 0, value_O, 0.0)

    trained_tokens = float(np.sum(of_taken(totals.tokens)))

    def a_token(value_O):
        return share(float(np.sum(of_taken(value_O))), trained_tokens)

    def an_update(value_O):
        return share(float(np.sum(of_taken(value_O))), float(np.sum(applied.taken)))

    return {
        "reward": share(tally.reward, tally.answers),
        "rate_histogram": tally.rates.astype(int).tolist(),
        "groups_kept": share(tally.kept, tally.groups),
        "groups_trained": int(record.trained),
        "groups_carried_in": int(record.from_carry),
        "groups_wasted": int(record.wasted),
        "rounds": int(record.rounds),
        "updates_taken": int(np.sum(applied.taken)),
        "updates_nonfinite": int(np.sum(applied.nonfinite)),
        "loss": an_update(statistics.objective),
        "gradient_norm": an_update(applied.gradient_norm),
        "entropy": a_token(statistics.entropy),
        "kl": a_token(statistics.kl),
        # The weights move after the first update: only there is the gap the sampler's and trainer's disagreement.
        "sampler_gap_mean": share(float(statistics.gap[0]), float(totals.tokens[0])),
        "sampler_gap_max": share(float(statistics.gap_max[0]), 1.0),
        "ratio_mean": a_token(statistics.ratio),
        "ratio_max": float(np.max(of_taken(statistics.ratio_max))),
        "clamped_value": a_token(statistics.clamped),
        "clamped_rate": a_token(statistics.rate_clamped),
        "clamped_log_ratio": a_token(statistics.log_ratio_clamped),
        "answer_length": share(tally.tokens, tally.answers),
        "answer_length_max": int(tally.longest),
        "truncated": share(tally.truncated, tally.answers),
        "verdicts": dict(zip(STATUSES, tally.verdicts.astype(int).tolist(), strict=True)),
        "answers": int(tally.answers),
        "tokens": int(tally.tokens),
        "tokens_trained": int(trained_tokens),
        "slots_useful": share(tally.tokens, tally.capacity),
        "grading_seconds": float(tally.seconds),
        "verifier_disagreement": share(tally.disagreements, tally.compared),
    }


def share(part: float, whole: float) -> float | None:
    """part / whole, or None (JSON has no NaN) where there is nothing."""
    value = float(part) / float(whole) if whole else math.nan
    return value if math.isfinite(value) else None


def format_step(step: int, steps: int, metrics: dict) -> str:
    """One readable line with its bar: where the run is, and how it does."""
    width = 20
    done = round(width * step / steps)

    def number(name, form):
        value = metrics[name]
        return "–" if value is None else format(value, form)

    return (
        f"{step:>{len(str(steps))}}/{steps} {'━' * done}{'╌' * (width - done)} reward {number('reward', '.3f')}  "
        f"kept {number('groups_kept', '.2f')}  entropy {number('entropy', '.3f')}  ratio≤{number('ratio_max', '.2f')}  "
        f"gap≤{number('sampler_gap_max', '.0e')}  grad {number('gradient_norm', '.2f')}  "
        f"length {number('answer_length', '.1f')}  cut {number('truncated', '.3f')}  "
        f"{metrics['tokens_per_second']:,.0f} tok/s  {metrics['seconds']:.1f} s"
    )
