"""What a comparison found, in numbers: means over seeds with 95 % intervals, and differences seed by seed."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats
from tabulate import tabulate

from nft_jax.compare.runs import MARKS, Cost
from nft_jax.compare.study import StudyResult
from nft_jax.compare.variants import Budget, Variant

# Measures of a run's test score, by name: how to read it, and its format.
MEASURES: dict[str, tuple[Callable[[dict], float], str]] = {
    "greedy": (lambda score: score["greedy"], "{:.1%}"),
    "sampled": (lambda score: score["sampled"], "{:.1%}"),
    "pass@k": (lambda score: list(score["pass_at"].values())[-1], "{:.1%}"),
    "entropy": (lambda score: score["entropy"], "{:.3f}"),
    "length": (lambda score: score["length"], "{:.2f}"),
}
# The curves that begin with a score of the base, and the name of that score.
BASE_SCORES = {"greedy": "greedy", "sampled": "sampled", "held_out_entropy": "entropy"}
CURVES = ("greedy", "sampled", "held_out_entropy", "reward", "entropy", "ratio_mean", "ratio_max", "gradient_norm")


def name_measure(name: str, summary: dict) -> str:
    """Returns a measure's name with the k of this comparison, as in pass@4."""
    return name.replace("@k", f"@{summary['k']}")


def estimate_interval(values: Sequence[float]) -> dict[str, float | None]:
    """Returns the mean of n independent values and its 95 % interval.

    The interval is Student's t with n − 1 degrees of freedom; for one value its ends are None.
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return {"mean": mean, "low": None, "high": None}
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def summarize(result: StudyResult) -> dict:
    """Returns the comparison as JSON: for each variant its rate, scores, paired differences, costs and curves.

    `difference` of a measure is the variant's value minus that of the first loss in the same regime, seed by seed;
    both start from the same base and answer the same problems. `edge`: the chosen rate is the largest or smallest.
    """
    plan = result.plan
    first = plan.variants[0].loss
    return {
        plan.budget.of: plan.budget.amount,
        "seeds": plan.seeds,
        "tuning_seeds": plan.tuning_seeds,
        "rates": plan.rates,
        "compared_with": first,
        "k": int(list(result.bases[0]["test"]["pass_at"])[-1]),
        "base": {name: _measure([base["test"] for base in result.bases], name) for name in MEASURES},
        "variants": [_summarize(result, variant, Variant(first, variant.updates)) for variant in plan.variants],
    }


def _summarize(result: StudyResult, variant: Variant, reference: Variant) -> dict:
    runs, rate, tuning = result.runs[variant], result.rates[variant], result.tuning[variant]
    pairs = list(zip(runs, result.runs[reference], strict=True))
    difference = {
        name: estimate_interval([read(run["test"]) - read(other["test"]) for run, other in pairs])
        for name, (read, _) in MEASURES.items()
    }
    return {
        "loss": variant.loss,
        "updates": variant.updates,
        "regime": variant.regime,
        "rate": rate,
        "edge": bool(tuning) and rate in (min(tuning), max(tuning)),
        "tuning": {f"{rate:g}": scores for rate, scores in tuning.items()},
        "test": {name: _measure([run["test"] for run in runs], name) for name in MEASURES},
        "difference": difference,
        "cost": {name: float(np.mean([run["curve"][-1][name] for run in runs])) for name in Cost._fields},
        "curve": _curves(result.bases, runs, result.plan.budget),
    }


def read_budget(summary: dict) -> Budget:
    """Returns when the runs of a summary ended."""
    return next(Budget(name, summary[name]) for name in ("tokens", "updates") if name in summary)


def _measure(scores: list[dict], name: str) -> dict:
    values = [MEASURES[name][0](score) for score in scores]
    return {"by_seed": values} | estimate_interval(values)


def _curves(bases: list[dict], runs: list[dict], budget: Budget) -> dict:
    """Returns each curve as `[seeds][marks]` at evenly spaced parts of the budget, interpolated linearly."""
    marks = np.linspace(0, budget.amount, MARKS + 1).round().astype(int)
    curves: dict = {budget.of: marks.tolist()}
    for name in CURVES:
        curves[name] = [
            _curve(base, run["curve"], name, budget.of, marks) for base, run in zip(bases, runs, strict=True)
        ]
    return curves


def _curve(base: dict, curve: list[dict], name: str, of: str, marks: np.ndarray) -> list[float | None]:
    start = base["validation"].get(BASE_SCORES.get(name))
    points = [(0, start), *((row[of], row[name]) for row in curve)]
    known = [(x, y) for x, y in points if y is not None]
    if not known:
        return [None] * len(marks)
    values = np.interp(marks, *zip(*known, strict=True), left=np.nan)
    return [None if np.isnan(value) else round(float(value), 5) for value in values]


def format_markdown(summary: dict) -> str:
    """Makes the comparison's Markdown: a table for each regime."""
    seeds, first = summary["seeds"], summary["compared_with"]
    lines = [
        f"{read_budget(summary).words} a run; seeds {', '.join(map(str, seeds))}; test problems; mean and half "
        f"of its 95 % interval over seeds; Δ: sampled, minus that of `{first}`, seed by seed, with its 95 % interval",
    ]
    header = [
        "loss",
        "rate",
        *(name_measure(name, summary) for name in MEASURES),
        "Δ sampled",
        "updates",
        "TFLOP",
        "seconds",
    ]
    base = ["base", "", *map(_cell, summary["base"].items()), *[""] * 4]
    for updates in dict.fromkeys(variant["updates"] for variant in summary["variants"]):
        variants = [variant for variant in summary["variants"] if variant["updates"] == updates]
        rows = [base, *(_row(variant, first) for variant in variants)]
        table = tabulate(rows, header, tablefmt="github", stralign=None, disable_numparse=True)
        lines += ["", f"**{variants[0]['regime']}**", "", table]
    if any(variant["edge"] for variant in summary["variants"]):
        lines += ["", "\\* the smallest or largest rate tried: a better one may lie beyond"]
    return "\n".join(lines)


def _row(variant: dict, first: str) -> list[str]:
    cost, change = variant["cost"], variant["difference"]["sampled"]
    delta = "" if variant["loss"] == first else f"{change['mean']:+.1%}"
    if delta and change["low"] is not None:
        delta += f" [{change['low']:+.1%}, {change['high']:+.1%}]"
    rate = f"{variant['rate']:g}{'*' * variant['edge']}"
    costs = f"{cost['updates']:.0f}", f"{cost['flops'] / 1e12:.2f}", f"{cost['seconds']:.0f}"
    return [f"`{variant['loss']}`", rate, *map(_cell, variant["test"].items()), delta, *costs]


def _cell(measure: tuple[str, dict]) -> str:
    name, values = measure
    form = MEASURES[name][1]
    half = "" if values["low"] is None else " ± " + form.format(values["mean"] - values["low"])
    return form.format(values["mean"]) + half
