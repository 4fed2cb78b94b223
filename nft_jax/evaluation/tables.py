"""Scores for a person to read: in one line, and as tables of text."""

import numpy as np
from tabulate import tabulate

from nft_jax.evaluation.scores import Score


def format_score(name: str, score: Score) -> str:
    """Returns a split's score in one line."""
    n, k = score.answers, max(score.pass_at)
    return (
        f"{name}: greedy {format_with_error(score.greedy, score.greedy_error)}, "
        f"avg@{n} {format_with_error(score.sampled, score.sampled_error)}, pass@{k} {score.pass_at[k]:.3f}, "
        f"length {score.length:.1f}, cut {score.truncated:.3f} ({score.problems} problems)"
    )


def format_with_error(value: float, error: float | None) -> str:
    """Returns `0.500 ± 0.020`, or `0.500` where a single problem has no standard error."""
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"


def format_table(rows: list[tuple[str, ...]], headers: tuple[str, ...]) -> str:
    """Returns a table of text, all columns aligned on the left."""
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True)


def tabulate_scores(scores: dict[str, Score]) -> str:
    """Returns a table with a line for each file, and their mean; pass@1 is left out, because it equals avg@n."""
    compared = any(score.disagreement is not None for score in scores.values())
    rows = [_columns(name, score, compared) for name, score in scores.items()]
    if len(scores) > 1:
        rows.append(_columns("mean", mean_score(list(scores.values())), compared))
    return format_table([tuple(row.values()) for row in rows], tuple(rows[0]))


def _columns(name: str, score: Score, compared: bool) -> dict[str, str]:
    columns = {
        "file": name,
        "problems": str(score.problems),
        "greedy": format_with_error(score.greedy, score.greedy_error),
        f"avg@{score.answers}": format_with_error(score.sampled, score.sampled_error),
        **{f"pass@{k}": f"{value:.3f}" for k, value in score.pass_at.items() if k > 1},
        **{f"maj@{k}": f"{value:.3f}" for k, value in score.maj_at.items() if k == max(score.maj_at)},
        "truncated": f"{score.truncated:.3f}",
        "length": f"{score.length:.1f}",
    }
    disagreement = "–" if score.disagreement is None else f"{score.disagreement:.3f}"
    return columns | ({"graders differ": disagreement} if compared else {})


def mean_score(scores: list[Score]) -> Score:
    """Returns the mean over files with equal weights, as papers report it, and the sums of problems and verdicts.

    The files' errors are independent: the error of the mean is √(Σ errorᵢ²) / number of files.
    """

    def mean(part):
        return float(np.mean([getattr(score, part) for score in scores]))

    def error(part):
        errors = [getattr(score, part) for score in scores]
        return None if None in errors else float(np.sqrt(np.sum(np.square(errors)))) / len(errors)

    def by_k(part):
        return {k: float(np.mean([getattr(score, part)[k] for score in scores])) for k in getattr(scores[0], part)}

    means = {part: mean(part) for part in ("greedy", "sampled", "truncated", "length", "entropy")}
    errors = {part: error(part) for part in ("greedy_error", "sampled_error")}
    ks = {part: by_k(part) for part in ("pass_at", "maj_at")}
    verdicts = {status: sum(score.verdicts[status] for score in scores) for status in scores[0].verdicts}
    problems = sum(score.problems for score in scores)
    judged = [score.disagreement for score in scores if score.disagreement is not None]
    disagreement = float(np.mean(judged)) if judged else None
    counts = {"answers": scores[0].answers, "problems": problems, "verdicts": verdicts}
    return Score(**means, **errors, **ks, **counts, disagreement=disagreement)


def format_progress(name: str, problems: int, done: Score, seconds: float, left: float) -> str:
    """Formats one line: how many of the problems are answered, and their score so far."""
    width, bar = len(str(problems)), "█" * (20 * done.problems // problems)
    return (
        f"  {name} ▕{bar:<20}▏ {done.problems:>{width}}/{problems}  greedy {done.greedy:.3f}  avg@{done.answers} "
        f"{done.sampled:.3f}  cut {done.truncated:.3f}  {seconds:.0f} s, {left:.0f} s left"
    )
