"""The pictures of a comparison: how each loss learned, and where it ended."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import ticker

from nft_jax.compare.summary import interval
from nft_jax.report import INK, plt, save_figure, style_axis

# Okabe and Ito's colours, which colour-blind readers tell apart; grey for what goes beyond.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#8a8a85")
PANELS = (
    ("sampled", "held out, sampled: share of right answers"),
    ("held_out_entropy", "held-out entropy (nats a token)"),
    ("ratio_max", "largest π_θ/π_old of a step"),
)


def draw(summary: dict, folder: Path) -> list[Path]:
    """Draws `learning.png` and `final.png` of a summary into a folder; their paths."""
    figures = {"learning.png": _learning(summary), "final.png": _final(summary)}
    return [save_figure(figure, folder / name, dpi=80) for name, figure in figures.items()]


def _learning(summary: dict) -> Any:
    """A row for each regime; lines are means over seeds, bands their 95 % intervals."""
    regimes = _regimes(summary)
    figure, axes = plt.subplots(
        len(regimes), 3, figsize=(14, 4.2 * len(regimes)), constrained_layout=True, squeeze=False
    )
    for row, arms in zip(axes, regimes, strict=True):
        for axis, (name, title) in zip(row, PANELS, strict=True):
            style_axis(axis, title, "sampled tokens (thousands)")
            for arm, colour in zip(arms, _colours(summary), strict=True):
                _band(axis, arm, name, colour)
        # Bands of few seeds are wider than shares can be.
        low, high = row[0].get_ylim()
        row[0].set_ylim(max(low, 0), min(high, 1))
        _ratios(row[2].yaxis)
        row[0].set_ylabel(arms[0]["regime"], color=INK)
    lines = axes[0, 0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _ratios(axis):
    axis.axes.set_yscale("log")
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.set_minor_locator(ticker.NullLocator())
    axis.axes.set_ylim(min(0.9, axis.axes.get_ylim()[0]), max(10.0, axis.axes.get_ylim()[1]))


def _band(axis, arm, name, colour):
    tokens = np.array(arm["curve"]["tokens"]) / 1000
    columns = list(zip(*arm["curve"][name], strict=True))
    there = [index for index, column in enumerate(columns) if None not in column]
    # Ratios are of many sizes: theirs is the geometric mean.
    into, back = (np.log, np.exp) if name == "ratio_max" else (np.asarray, np.asarray)
    found = [interval(into(columns[index])) for index in there]
    axis.plot(tokens[there], back([one["mean"] for one in found]), color=colour, lw=2, label=arm["loss"])
    if found and found[0]["low"] is not None:
        low, high = (back([one[end] for one in found]) for end in ("low", "high"))
        axis.fill_between(tokens[there], low, high, color=colour, alpha=0.13, lw=0)


def _final(summary: dict) -> Any:
    """Test scores at the end: a diamond for the mean with its 95 % interval, and below it a dot a seed."""
    regimes, names = _regimes(summary), ("greedy", "sampled", "pass@k", "entropy")
    height = 1.4 + 0.36 * max(map(len, regimes))
    figure, axes = plt.subplots(
        len(regimes), len(names), figsize=(14, height * len(regimes)), constrained_layout=True, squeeze=False
    )
    for row, arms in zip(axes, regimes, strict=True):
        places = range(len(arms))[::-1]
        for axis, name in zip(row, names, strict=True):
            style_axis(axis, name, "nats a token" if name == "entropy" else "share of test problems")
            for place, arm, colour in zip(places, arms, _colours(summary), strict=True):
                _dots(axis, place, arm["test"][name], colour)
            axis.set_yticks(places, [arm["loss"] for arm in arms] if axis is row[0] else [""] * len(arms))
        row[0].set_ylabel(arms[0]["regime"], color=INK)
    return figure


def _dots(axis, place, found, colour):
    axis.plot(found["by_seed"], [place - 0.22] * len(found["by_seed"]), "o", color=colour, ms=4, alpha=0.6, mec="none")
    axis.plot(found["mean"], place, "D", color=colour, ms=6)
    if found["low"] is not None:
        axis.plot([found["low"], found["high"]], [place, place], color=colour, lw=2)


def _regimes(summary: dict) -> list[list[dict]]:
    counts = dict.fromkeys(arm["updates"] for arm in summary["arms"])
    return [[arm for arm in summary["arms"] if arm["updates"] == count] for count in counts]


def _colours(summary: dict) -> list[str]:
    many = len(_regimes(summary)[0])
    return [*COLOURS[:many], *[COLOURS[-1]] * (many - len(COLOURS))]
