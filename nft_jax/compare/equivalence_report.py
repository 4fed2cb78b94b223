"""What the equivalence lab shows: two tables for a terminal of 110 columns, and two pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from tabulate import tabulate

from nft_jax.compare.gradients import RolloutBuffer
from nft_jax.compare.multipliers import Curve
from nft_jax.report.curves import AQUA, BLUE, INK, ORANGE, plt, save_figure, style_axis

PRECISION_COLORS = {"float64": BLUE, "float32": ORANGE}
LINE_STYLES = ((BLUE, "-"), (ORANGE, "-"), (AQUA, "-"), (INK, "--"), (INK, ":"))
CURVE_COLORS = (ORANGE, BLUE, AQUA, INK)
# A logarithmic axis shows a difference of exactly 0 here.
ZERO_PLACE = 1e-18


def rollout_figures(rollout: RolloutBuffer) -> dict[str, Any]:
    """Counts the rollout's groups, answers and tokens; `rate` is the success rate of a group."""
    groups, count = rollout.groups, rollout.count
    rate_Q = groups.rate_Q[:count]
    return {
        "groups": count,
        "answers": count * groups.length_QK.shape[1],
        "tokens": int(groups.length_QK[:count].sum()),
        "rate": {"mean": float(rate_Q.mean()), "lowest": float(rate_Q.min()), "highest": float(rate_Q.max())},
    }


def rollout_line(figures: dict[str, Any]) -> str:
    """Puts the figures of `rollout_figures` into one line."""
    rate = figures["rate"]
    return (
        f"rollout: {figures['groups']} groups, {figures['answers']} answers, {figures['tokens']:,} tokens; "
        f"success rate of a group {rate['lowest']:.0%} to {rate['highest']:.0%}, {rate['mean']:.0%} on average"
    )


def on_policy_table(comparisons: Sequence) -> str:
    """Makes a row for each comparison: its parameter with the largest difference, and the smallest cosine."""
    rows = [
        (
            *(each.mine, each.peer, f"{each.precision} × {each.devices}", f"{each.relative:.1e}"),
            *(f"{max(1 - each.cosine, 0):.1e}", "equal" if each.equal else "differ"),
        )
        for each in comparisons
    ]
    header = ("gradient a of", "against b of", "on", "gap", "1 − cos", "")
    align = (*("left",) * 3, *("right",) * 2, "left")
    title = "on-policy; largest gap max |a − b| / max |b|, and smallest cosine of a parameter:"
    return f"{title}\n{tabulate(rows, header, tablefmt='plain', colalign=align, disable_numparse=True)}"


def drift_table(points: Sequence) -> str:
    """Makes a column for each number of updates; the rows are ratios, cosines and shares of tokens at ratio 1."""
    rows = [
        ("mean |log R|", *(f"{point.log_ratio:.1e}" for point in points)),
        ("mean KL", *(f"{point.kl:.1e}" for point in points)),
        ("largest R", *(f"{point.ratio_max:.3g}" for point in points)),
    ]
    for pair in points[0].cosine:
        rows.append(
            (f"cosine: {pair}".replace(" against ", "\n  against "), *(f"{p.cosine[pair]:.4f}" for p in points))
        )
    for loss in points[0].zero_share:
        if any(point.zero_share[loss] for point in points):
            rows.append((f"tokens without gradient: {loss}", *(f"{p.zero_share[loss]:.1%}" for p in points)))
    header = ("updates on the rollout", *(point.update for point in points))
    align = ("left", *("right",) * len(points))
    return tabulate(rows, header, tablefmt="plain", colalign=align, disable_numparse=True)


def draw(comparisons: Sequence, points: Sequence, workdir: Path) -> Path:
    """Draws `equivalence.png`: on-policy differences, cosines under drift, and the tokens without a gradient."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 5), constrained_layout=True, width_ratios=(1.25, 1, 1))
    _draw_on_policy(axes[0], comparisons)
    cosines = {pair.replace(" against ", "\nagainst "): [p.cosine[pair] for p in points] for pair in points[0].cosine}
    _draw_drift(axes[1], "cosine of the gradients as the policy drifts", points, cosines)
    # Losses with the same shares have one line.
    losses: dict[tuple[float, ...], list[str]] = {}
    for loss in points[0].zero_share:
        losses.setdefault(tuple(point.zero_share[loss] for point in points), []).append(loss)
    shares = {"\n".join(names): share for share, names in losses.items()}
    _draw_drift(axes[2], "share of tokens that lost their gradient", points, shares)
    return save_figure(figure, workdir / "equivalence.png")


def _draw_drift(axis: Axes, title: str, points: Sequence, lines: dict[str, Sequence[float]]) -> None:
    """Draws a line for each label over the drift."""
    style_axis(axis, title, "mean |log R| over the rollout")
    drift = [point.log_ratio for point in points]
    for (color, style), (label, values) in zip(LINE_STYLES, lines.items(), strict=False):
        axis.plot(drift, values, style, color=color, lw=2, marker="o", ms=4, label=label)
    axis.legend(frameon=False, fontsize=7.5)


def _draw_on_policy(axis: Axes, comparisons: Sequence) -> None:
    """Draws a dot for each parameter of each comparison of two losses."""
    across = f"max |a − b| / max |b|, at {ZERO_PLACE:g} where it is exactly 0"
    style_axis(axis, "on-policy: difference of the gradients, a dot a parameter", across)
    pairs: dict[str, list] = {}
    for each in comparisons:
        if not each.peer.startswith("on "):
            pairs.setdefault(f"{each.mine}\nagainst {each.peer}", []).append(each)
    for row, members in enumerate(pairs.values()):
        for each in members:
            alone = each.devices == 1
            x = [max(difference.relative, ZERO_PLACE) for difference in each.parameters.values()]
            y = len(pairs) - row + (0.14 if alone else -0.14) + np.linspace(-0.09, 0.09, len(x))
            label = f"{each.precision}, {each.devices} device{'' if alone else 's'}" if row == 0 else None
            style = {"marker": "o" if alone else "^", "color": PRECISION_COLORS[each.precision], "label": label}
            axis.scatter(x, y, s=14, alpha=0.7, lw=0, **style)
    axis.set_xscale("log")
    axis.set_yticks(range(len(pairs), 0, -1), list(pairs), fontsize=7.5)
    axis.legend(frameon=False, fontsize=7.5, loc="lower left")


def draw_multipliers(curves: Sequence[Curve], workdir: Path) -> Path:
    """Draws `multipliers.png`: a panel for correct and for incorrect tokens at each rate, a line for each loss."""
    rates = sorted({curve.rate for curve in curves})
    figure, axes = plt.subplots(2, len(rates), figsize=(4.4 * len(rates), 7), constrained_layout=True, squeeze=False)
    for row, correct in enumerate((True, False)):
        for axis, rate in zip(axes[row], rates, strict=True):
            _draw_curves(axis, [curve for curve in curves if (curve.rate, curve.correct) == (rate, correct)])
    axes[1, 0].legend(frameon=False, fontsize=8.5, loc="upper left")
    return save_figure(figure, workdir / "multipliers.png")


def _draw_curves(axis: Axes, curves: Sequence[Curve]) -> None:
    rate, correct, ratio_T = curves[0].rate, curves[0].correct, curves[0].ratio_T
    style_axis(axis, f"{'correct' if correct else 'incorrect'} token, r̂ = {rate:g}", "R")
    sign, meaning = (1, "push up: weight of ∇ log π") if correct else (-1, "push down: weight of −∇ log π")
    axis.set_ylabel(meaning, color=INK, fontsize=9)
    # Each line is thinner than those below it, so that lines in the same place all show.
    for color, width, curve in zip(CURVE_COLORS, (5, 3.6, 2.4, 1.2), curves, strict=False):
        axis.plot(ratio_T, sign * curve.multiplier_T, color=color, lw=width, label=curve.label)
    at_one = abs(float(np.interp(1, ratio_T, curves[0].multiplier_T)))
    axis.set_xlim(0, ratio_T[-1])
    axis.axvline(1, color=INK, lw=0.8, ls=":")
    if correct:
        axis.set_ylim(-0.1 * at_one, 1.6 * at_one)
        return
    # Beyond R = 1/r̂ the implicit negative policy would be negative, and ε alone bounds the multiplier.
    axis.set_yscale("log")
    axis.set_ylim(0.02 * at_one, 600 * at_one)
    if 1 / rate < ratio_T[-1]:
        axis.axvline(1 / rate, color=INK, lw=0.8, ls="--")
        axis.text(1 / rate + 0.04, 0.025 * at_one, "R = 1/r̂", color=INK, fontsize=8.5)
