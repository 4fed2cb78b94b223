"""The metrics of a step: from its record to the numbers and names in `metrics.jsonl`."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from nft_jax.config import OptimizerConfig
from nft_jax.printing import format_time
from nft_jax.state import Record
from nft_jax.update.statistics import UpdateStatistics
from nft_jax.update.update import UpdateRecord
from nft_jax.verify.grade import STATUSES

_SHOWN = {
    "reward": "reward {:.3f}",
    "groups_kept": "kept {:.2f}",
    "entropy": "entropy {:.3f}",
    "ratio_max": "ratio≤{:.2f}",
    "sampler_gap_max": "gap≤{:.0e}",
    "gradient_norm": "grad {:.2f}",
    "answer_length": "length {:.1f}",
    "truncated": "cut {:.3f}",
}
_BAR = 10  # columns
# What a narrow terminal does not show, in this order.
_LEAST_NEEDED = ("sampler_gap_max", "truncated", "ratio_max", "gradient_norm", "tokens_per_second", "groups_kept")
_LEAST_NEEDED += ("epoch", "entropy", "seconds", "answer_length")


def step_metrics(record: Record) -> dict:
    """Returns the numbers of one step, from its record on the host (NumPy arrays).

    Shares are of answers or tokens as named; a mean over nothing is None.
    """
    rollout, applied, totals = record.statistics, record.applied, record.totals
    statistics = applied.statistics

    def where_taken(value_O):
        # Not a product: a skipped update may have measured NaN.
        return np.where(applied.taken > 0, value_O, 0.0)

    tokens_O = totals.tokens if applied.rejected is None else totals.tokens - applied.rejected
    trained_tokens = float(np.sum(where_taken(tokens_O)))

    def per_token(value_O):
        return share(float(np.sum(where_taken(value_O))), trained_tokens)

    by_update = zip(np.ravel(statistics.ratio_max).tolist(), np.ravel(applied.taken).tolist(), strict=True)
    compared_O = tokens_O if statistics.fresh is None else statistics.fresh
    drawn = rollout.tokens + (0 if record.partial is None else record.partial.drawn_ahead)

    def per_update(value_O):
        return share(float(np.sum(where_taken(value_O))), float(np.sum(applied.taken)))

    return {
        "reward": share(rollout.reward, rollout.answers),
        "rate_histogram": rollout.rates.astype(int).tolist(),
        "groups_kept": share(rollout.kept, rollout.groups),
        "groups_trained": int(record.trained),
        "groups_carried_in": int(record.from_carry),
        "groups_wasted": int(record.wasted),
        "rounds": int(record.rounds),
        "updates_taken": int(np.sum(applied.taken)),
        "updates_nonfinite": int(np.sum(applied.nonfinite)),
        "loss": per_update(statistics.objective),
        "gradient_norm": per_update(applied.gradient_norm),
        "entropy": per_token(statistics.entropy),
        "kl": per_token(statistics.kl),
        # Only the first update measures the gap between sampler and trainer: later ones have other weights. So have
        # the samplers of answers that began in earlier steps.
        "sampler_gap_mean": share(float(statistics.gap[0]), float(compared_O[0])),
        "sampler_gap_max": share(float(statistics.gap_max[0]), float(statistics.fresh is None or compared_O[0] > 0)),
        "ratio_mean": per_token(statistics.ratio),
        "ratio_max": share(float(np.max(where_taken(statistics.ratio_max))), float(np.any(applied.taken))),
        # One number an update: the first is at R = 1, but for the gap of the sampler.
        "ratio_max_by_update": [share(ratio, 1.0) if taken else None for ratio, taken in by_update],
        "clamped_value": per_token(statistics.clamped),
        "clamped_rate": per_token(statistics.rate_clamped),
        "clamped_log_ratio": per_token(statistics.log_ratio_clamped),
        **_loss_metrics(applied, per_token),
        "answer_length": share(rollout.tokens, rollout.answers),
        "answer_length_max": int(rollout.longest),
        "truncated": share(rollout.truncated, rollout.answers),
        "verdicts": dict(zip(STATUSES, rollout.verdicts.astype(int).tolist(), strict=True)),
        "answers": int(rollout.answers),
        "tokens": int(rollout.tokens),
        "tokens_trained": int(trained_tokens),
        "slots_useful": share(drawn, rollout.capacity),
        "grading_seconds": float(rollout.seconds),
        "verifier_disagreement": share(rollout.disagreements, rollout.compared),
        **_drift(statistics, float(tokens_O[0])),
        **_partial_metrics(record),
    }


def _drift(statistics: UpdateStatistics, tokens: float) -> dict:
    """Returns how far the policy is from the samplers of older answers; {} if there can be none.

    Args:
      tokens: those of the first update.
    """
    if statistics.fresh is None:
        return {}
    return {"sampler_drift_mean": share(float(statistics.drift[0]), tokens - float(statistics.fresh[0]))}


def _partial_metrics(record: Record) -> dict:
    """Returns how old the answers are that a step trains on, and what it leaves to the next; {} if that is nothing."""
    if record.partial is None:
        return {}
    (answers, older, total, oldest), began = record.partial.ages, record.partial.began
    return {
        "answers_in_flight": int(began),
        "answers_older": share(older, answers),
        "answer_age_mean": share(total, answers),
        "answer_age_max": int(oldest),
    }


def _loss_metrics(applied: UpdateRecord, per_token: Callable) -> dict:
    """Returns the means of the loss's own metrics, and how many tokens it rejected; nothing if it has none."""
    metrics = {}
    if applied.statistics.own:
        metrics["loss_metrics"] = {name: per_token(value_O) for name, value_O in applied.statistics.own.items()}
    if applied.rejected is not None:
        metrics["tokens_rejected"] = int(np.sum(applied.rejected))
    return metrics


def optimizer_metrics(norm_O: np.ndarray, config: OptimizerConfig, weights: int) -> dict:
    """Returns what clipping and AdamW's ε do to gradients of these norms.

    updates_clipped       = share of the updates whose gradient has a norm above clip_norm
    gradient_over_epsilon = mean over the updates of min(norm, clip_norm) / √weights / ε

    The second is the root mean square of the clipped gradient in units of ε, and so the size of √v in AdamW's step
    m / (√v + ε): where it is not large, ε shortens the step, the more the smaller the loss.

    Args:
      norm_O: norms before clipping, of the updates that were taken.
      weights: number of the weights that train.
    """
    rms = np.minimum(norm_O, config.clip_norm) / math.sqrt(weights)
    return {
        "updates_clipped": share(float(np.sum(norm_O > config.clip_norm)), norm_O.size),
        "gradient_over_epsilon": share(float(np.sum(rms)) / config.epsilon, norm_O.size),
    }


def share(part: float, whole: float) -> float | None:
    """Returns part / whole; None (JSON has no NaN) if that is no finite number."""
    value = float(part) / float(whole) if whole else math.nan
    return value if math.isfinite(value) else None


def format_step(step: int, steps: int, metrics: dict, left: float, width: int | None) -> str:
    """Formats one line: the progress of the run, and its most important numbers; as `format_progress`."""
    return format_progress(step, steps, metrics, _SHOWN, left, width)


def format_progress(
    step: int, steps: int, metrics: dict, shown: Mapping[str, str], left: float, width: int | None
) -> str:
    """Formats one line: the metrics `shown` in these forms ("–" for None), speed, seconds, time left, faults.

    Args:
      left: Seconds that the steps after this one will take.
      width: Columns of the terminal, in which the line has a bar and leaves out numbers until it fits; None: a file,
        which gets all numbers and no bar.
    """
    numbers = {
        name: form.format(metrics[name]) if metrics[name] is not None else f"{form.partition('{')[0]}–"
        for name, form in shown.items()
    }
    numbers["tokens_per_second"] = f"{metrics['tokens_per_second']:,.0f} tok/s"
    numbers["seconds"] = f"{metrics['seconds']:.1f} s"
    done, faults = round(_BAR * step / steps), format_faults(metrics)
    bar = "" if width is None else f"{'━' * done}{'╌' * (_BAR - done)} "
    ends = [f"{format_time(left)} left"] * (step < steps) + [f"[{faults}]"] * bool(faults)
    for leave_out in range(len(_LEAST_NEEDED) + 1):
        kept = [text for name, text in numbers.items() if name not in _LEAST_NEEDED[:leave_out]]
        line = f"{step:>{len(str(steps))}}/{steps} {bar}{'  '.join([*kept, *ends])}"
        if width is None or len(line) <= width:
            break
    return line


def format_faults(metrics: dict) -> str:
    """Returns what went wrong in a step: updates that were not finite, no group, answers without a verdict; or ""."""
    verdicts, nonfinite = metrics.get("verdicts", {}), metrics["updates_nonfinite"]
    faults = [f"{nonfinite} of {nonfinite + metrics['updates_taken']} updates not finite"] * bool(nonfinite)
    faults += ["no group trained"] * (metrics.get("groups_trained") == 0)
    ungraded = [(verdicts.get(status, 0), status) for status in ("timeout", "error")]
    counts = [f"{count} {status}{'s' * (count > 1)}" for count, status in ungraded if count]
    return "; ".join([*faults, *([f"{', '.join(counts)} of the grader"] if counts else [])])
