"""What a comparison found, in numbers: means over seeds with 95 % intervals, and differences seed by seed."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from nft_jax.compare.runs import MARKS, Spent
from nft_jax.compare.study import Compared
from nft_jax.compare.variants import Variant

# Of a run's test score: name → (what it is, how it is written).
MEASURES: dict[str, tuple[Callable[[dict], float], str]] = {
    "greedy": (lambda score: score["greedy"], "{:.1%}"),
    "sampled": (lambda score: score["sampled"], "{:.1%}"),
    "pass@k": (lambda score: list(score["pass_at"].values())[-1], "{:.1%}"),
    "entropy": (lambda score: score["entropy"], "{:.3f}"),
    "length": (lambda score: score["length"], "{:.2f}"),
}
# Of the curves, those that begin with a score of the base, and what it is called there.
STARTS = {"greedy": "greedy", "sampled": "sampled", "held_out_entropy": "entropy"}
CURVES = ("greedy", "sampled", "held_out_entropy", "reward", "entropy", "ratio_mean", "ratio_max", "gradient_norm")


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean of n independent values, and its 95 % interval by Student's t with n − 1 degrees of freedom (None for 1)."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return {"mean": mean, "low": None, "high": None}
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def summarised(found: Compared, tokens: int) -> dict:
    """The comparison as JSON: for each arm its rate, scores, paired differences, costs and curves.

    `difference` of a measure is the arm's value minus that of the first loss in the same regime, seed by seed: both
    began with the same base, and answered the same problems. `edge`: the chosen rate is the largest or smallest tried.
    """
    plan = found.plan
    first = plan.arms[0].loss
    return {
        "tokens": tokens,
        "seeds": plan.seeds,
        "tuning_seeds": plan.tuning_seeds,
        "rates": plan.rates,
        "compared_with": first,
        "base": {name: _values([base["test"] for base in found.bases], name) for name in MEASURES},
        "arms": [_arm(found, arm, Variant(first, arm.updates), tokens) for arm in plan.arms],
    }


def _arm(found: Compared, arm: Variant, reference: Variant, tokens: int) -> dict:
    runs, others = found.runs[arm], found.runs[reference]
    pairs = list(zip(runs, others, strict=True))
    difference = {
        name: interval([read(run["test"]) - read(other["test"]) for run, other in pairs])
        for name, (read, _) in MEASURES.items()
    }
    return {
        "loss": arm.loss,
        "updates": arm.updates,
        "regime": arm.regime,
        "rate": found.rates[arm],
        "edge": bool(found.tuning[arm]) and found.rates[arm] in (min(found.tuning[arm]), max(found.tuning[arm])),
        "tuning": {f"{rate:g}": scores for rate, scores in found.tuning[arm].items()},
        "test": {name: _values([run["test"] for run in runs], name) for name in MEASURES},
        "difference": difference,
        "spent": {name: float(np.mean([run["curve"][-1][name] for run in runs])) for name in Spent._fields},
        "curve": _curves(found.bases, runs, tokens),
    }


def _values(scores: list[dict], name: str) -> dict:
    values = [MEASURES[name][0](score) for score in scores]
    return {"by_seed": values} | interval(values)


def _curves(bases: list[dict], runs: list[dict], tokens: int) -> dict:
    """By name `[seeds][marks]` on even marks of tokens, between which runs are joined by lines."""
    marks = np.linspace(0, tokens, MARKS + 1).round().astype(int)
    found: dict = {"tokens": marks.tolist()}
    for name in CURVES:
        found[name] = [_curve(base, run["curve"], name, marks) for base, run in zip(bases, runs, strict=True)]
    return found


def _curve(base: dict, curve: list[dict], name: str, marks: np.ndarray) -> list[float | None]:
    start = base["validation"].get(STARTS.get(name))
    points = [(0, start), *((row["tokens"], row[name]) for row in curve)]
    known = [(x, y) for x, y in points if y is not None]
    if not known:
        return [None] * len(marks)
    values = np.interp(marks, *zip(*known, strict=True), left=np.nan)
    return [None if np.isnan(value) else round(float(value), 5) for value in values]


def table(summary: dict) -> str:
    """The comparison in Markdown: a table for each regime."""
    seeds, first = summary["seeds"], summary["compared_with"]
    lines = [
        f"{summary['tokens']:,} sampled tokens a run; seeds {', '.join(map(str, seeds))}; test problems; mean and half "
        f"of its 95 % interval over seeds; Δ: sampled, minus that of `{first}`, seed by seed, with its 95 % interval",
    ]
    for updates in dict.fromkeys(arm["updates"] for arm in summary["arms"]):
        arms = [arm for arm in summary["arms"] if arm["updates"] == updates]
        header = ["loss", "rate", *MEASURES, "Δ sampled", "updates", "TFLOP", "seconds"]
        rows = [header, ["---"] * len(header), ["base", "", *map(_cell, summary["base"].items()), *[""] * 4]]
        rows += [_row(arm, first) for arm in arms]
        lines += ["", f"**{arms[0]['regime']}**", "", *("| " + " | ".join(row) + " |" for row in rows)]
    if any(arm["edge"] for arm in summary["arms"]):
        lines += ["", "\\* the smallest or largest rate tried: a better one may lie beyond"]
    return "\n".join(lines)


def _row(arm: dict, first: str) -> list[str]:
    spent, change = arm["spent"], arm["difference"]["sampled"]
    delta = "" if arm["loss"] == first else f"{change['mean']:+.1%}"
    if delta and change["low"] is not None:
        delta += f" [{change['low']:+.1%}, {change['high']:+.1%}]"
    rate = f"{arm['rate']:g}{'*' * arm['edge']}"
    cost = f"{spent['updates']:.0f}", f"{spent['flops'] / 1e12:.2f}", f"{spent['seconds']:.0f}"
    return [f"`{arm['loss']}`", rate, *map(_cell, arm["test"].items()), delta, *cost]


def _cell(measure: tuple[str, dict]) -> str:
    name, found = measure
    form = MEASURES[name][1]
    half = "" if found["low"] is None else " ± " + form.format(found["mean"] - found["low"])
    return form.format(found["mean"]) + half
