"""The pictures of a comparison: how each loss learned, and its final scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes

from nft_jax.compare.summary import estimate_interval, name_measure, read_budget
from nft_jax.report.curves import INK, plt, save_figure, style_axis

# Okabe and Ito's colors, which color-blind readers tell apart; gray for all variants beyond.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#8a8a85")
PANELS = (
    ("sampled", "held out, sampled: share of correct answers"),
    ("held_out_entropy", "held-out entropy (nats a token)"),
    ("ratio_max", "largest π_θ/π_old of a step"),
)
SCORES = ("greedy", "sampled", "pass@k", "entropy")


def draw(summary: dict, folder: Path) -> list[Path]:
    """Draws `learning.png`, `final.png` and, of several regimes, `regimes.png` into a folder; returns their paths."""
    figures = {"learning.png": _draw_learning(summary), "final.png": _draw_final(summary)}
    if len(_regimes(summary)) > 1:
        figures["regimes.png"] = _draw_regimes(summary)
    return [save_figure(figure, folder / name, dpi=80) for name, figure in figures.items()]


def _draw_learning(summary: dict) -> Any:
    """Draws a row of panels for each regime: means over seeds as lines, 95 % intervals as bands."""
    regimes, budget = _regimes(summary), read_budget(summary)
    figure, axes = _grid(regimes, len(PANELS), 4.2)
    for row, variants in zip(axes, regimes, strict=True):
        for axis, (name, words) in zip(row, PANELS, strict=True):
            style_axis(axis, words, f"{budget.noun}{' (thousands)' * (budget.of == 'tokens')}")
            for variant, color in zip(variants, _colors(variants), strict=True):
                _draw_band(axis, variant, name, budget.of, color)
        # Bands of few seeds are wider than shares can be.
        low, high = row[0].get_ylim()
        row[0].set_ylim(max(low, 0), min(high, 1))
        _scale_ratios(row[2])
        row[0].set_ylabel(variants[0]["regime"], color=INK)
    lines = axes[0, 0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _scale_ratios(axis: Axes) -> None:
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.yaxis.set_minor_locator(ticker.NullLocator())
    low, high = axis.get_ylim()
    axis.set_ylim(min(0.9, low), max(10.0, high))


def _draw_band(axis: Axes, variant: dict, name: str, of: str, color: str) -> None:
    marks = np.array(variant["curve"][of]) / (1000 if of == "tokens" else 1)
    columns = list(zip(*variant["curve"][name], strict=True))
    known = [index for index, column in enumerate(columns) if None not in column]
    # Ratios span orders of magnitude, so their mean is the geometric one.
    forward: Callable = np.log if name == "ratio_max" else np.asarray
    backward: Callable = np.exp if name == "ratio_max" else np.asarray
    intervals = [estimate_interval(forward(columns[index])) for index in known]
    axis.plot(marks[known], backward([one["mean"] for one in intervals]), color=color, lw=2, label=variant["loss"])
    if intervals and intervals[0]["low"] is not None:
        low, high = (backward([one[end] for one in intervals]) for end in ("low", "high"))
        axis.fill_between(marks[known], low, high, color=color, alpha=0.13, lw=0)


def _draw_final(summary: dict) -> Any:
    """Draws the final test scores: a diamond for the mean with its 95 % interval, and below it a dot for each seed."""
    regimes = _regimes(summary)
    figure, axes = _grid(regimes, len(SCORES), 1.4 + 0.36 * max(map(len, regimes)))
    for row, variants in zip(axes, regimes, strict=True):
        places = range(len(variants))[::-1]
        for axis, name in zip(row, SCORES, strict=True):
            style_axis(
                axis, name_measure(name, summary), "nats a token" if name == "entropy" else "share of test problems"
            )
            for place, variant, color in zip(places, variants, _colors(variants), strict=True):
                _draw_scores(axis, place, variant["test"][name], color)
            axis.set_yticks(places, [variant["loss"] if axis is row[0] else "" for variant in variants])
        row[0].set_ylabel(variants[0]["regime"], color=INK)
    return figure


def _draw_scores(axis: Axes, place: int, score: dict, color: str) -> None:
    axis.plot(score["by_seed"], [place - 0.22] * len(score["by_seed"]), "o", color=color, ms=4, alpha=0.6, mec="none")
    axis.plot(score["mean"], place, "D", color=color, ms=6)
    if score["low"] is not None:
        axis.plot([score["low"], score["high"]], [place, place], color=color, lw=2)


def _draw_regimes(summary: dict) -> Any:
    """Draws the final sampled accuracy over the updates a rollout, and beside it the differences to the first loss."""
    regimes, first = _regimes(summary), summary["compared_with"]
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    panels = (("test", "sampled: share of correct answers"), ("difference", f"sampled, minus that of {first}"))
    for axis, (part, words) in zip(axes, panels, strict=True):
        style_axis(axis, f"{words}; mean and 95 % interval", "updates a rollout")
        for place, variants in enumerate(zip(*regimes, strict=True)):
            scores = [variant[part]["sampled"] for variant in variants]
            # Side by side, so that the intervals of all losses show.
            across = [variant["updates"] * 1.07 ** (place - (len(regimes[0]) - 1) / 2) for variant in variants]
            color = _colors(regimes[0])[place]
            axis.plot(across, [score["mean"] for score in scores], "D-", color=color, ms=5, label=variants[0]["loss"])
            for x, score in zip(across, scores, strict=True):
                if score["low"] is not None:
                    axis.plot([x, x], [score["low"], score["high"]], color=color, lw=2)
        axis.set_xscale("log")
        counts = [variants[0]["updates"] for variants in regimes]
        axis.set_xticks(counts, map(str, counts))
        axis.xaxis.set_minor_locator(ticker.NullLocator())
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _grid(regimes: list, columns: int, height: float) -> tuple[Any, np.ndarray]:
    rows = len(regimes)
    return plt.subplots(rows, columns, figsize=(14, height * rows), constrained_layout=True, squeeze=False)


def _regimes(summary: dict) -> list[list[dict]]:
    """Groups the variants by their number of updates."""
    counts = dict.fromkeys(variant["updates"] for variant in summary["variants"])
    return [[variant for variant in summary["variants"] if variant["updates"] == count] for count in counts]


def _colors(variants: list[dict]) -> list[str]:
    return [COLORS[min(place, len(COLORS) - 1)] for place in range(len(variants))]
