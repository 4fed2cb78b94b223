"""The equivalence lab's pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nft_jax.comparing.multipliers import Curve
from nft_jax.report import AQUA, BLUE, INK, ORANGE, plt, style

PRECISIONS = {"float64": BLUE, "float32": ORANGE}
LINES = ((BLUE, "-"), (ORANGE, "-"), (AQUA, "-"), (INK, "--"), (INK, ":"))
MULTIPLIERS = (ORANGE, BLUE, AQUA, INK)
# A difference of exactly 0 has a place on a logarithmic axis.
NOTHING = 1e-18


def draw(found: Sequence, points: Sequence, workdir: Path) -> Path:
    """Draws `equivalence.png`: differences on-policy, cosines as the policy drifts, and what PPO's clip stops."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 5), constrained_layout=True, width_ratios=(1.25, 1, 1))
    _on_policy(axes[0], found)
    drift = [point.log_ratio for point in points]
    style(axes[1], "cosine of the gradients as the policy drifts", "mean |log R| over the rollout")
    for (colour, line), pair in zip(LINES, points[0].cosine, strict=False):
        label = pair.replace(" against ", "\nagainst ")
        axes[1].plot(drift, [p.cosine[pair] for p in points], line, color=colour, lw=2, marker="o", ms=4, label=label)
    axes[1].legend(frameon=False, fontsize=7.5)
    style(axes[2], "share of tokens whose gradient is exactly 0", "mean |log R| over the rollout")
    for (colour, line), loss in zip(LINES, points[0].stopped, strict=False):
        axes[2].plot(drift, [p.stopped[loss] for p in points], line, color=colour, lw=2, marker="o", ms=4, label=loss)
    axes[2].legend(frameon=False, fontsize=7.5)
    return _saved(figure, workdir / "equivalence.png")


def _on_policy(axis, found):
    """A dot for each parameter of each comparison."""
    style(axis, "on-policy: difference of the gradients, a dot a parameter", "max |a − b| / max |b|")
    pairs = list(dict.fromkeys((each.mine, each.peer) for each in found if not each.peer.startswith("on ")))
    for each in found:
        if (each.mine, each.peer) not in pairs:
            continue
        alone = each.devices == 1
        level = len(pairs) - pairs.index((each.mine, each.peer)) + (0.14 if alone else -0.14)
        x = [max(d.relative, NOTHING) for d in each.parameters.values()]
        y = level + np.linspace(-0.09, 0.09, len(x))
        plural = "" if alone else "s"
        label = f"{each.precision}, {each.devices} device{plural}" if (each.mine, each.peer) == pairs[0] else None
        marker = "o" if alone else "^"
        axis.scatter(x, y, s=14, color=PRECISIONS[each.precision], marker=marker, alpha=0.7, lw=0, label=label)
    axis.set_xscale("log")
    axis.set_yticks(range(len(pairs), 0, -1), [f"{mine}\nagainst {peer}" for mine, peer in pairs], fontsize=7.5)
    axis.legend(frameon=False, fontsize=7.5, loc="lower left")


def draw_multipliers(curves: Sequence[Curve], workdir: Path) -> Path:
    """Draws `multipliers.png`: a panel for right and for wrong tokens at each rate, a line a loss."""
    rates = sorted({curve.rate for curve in curves})
    figure, axes = plt.subplots(2, len(rates), figsize=(4.4 * len(rates), 7), constrained_layout=True, squeeze=False)
    for row, right in enumerate((True, False)):
        for column, rate in enumerate(rates):
            here = [curve for curve in curves if (curve.rate, curve.right) == (rate, right)]
            _multipliers(axes[row, column], here)
    axes[1, 0].legend(frameon=False, fontsize=8.5, loc="lower left")
    return _saved(figure, workdir / "multipliers.png")


def _multipliers(axis, curves):
    rate, right = curves[0].rate, curves[0].right
    style(axis, f"{'right' if right else 'wrong'} token, r̂ = {rate:g}", "R")
    axis.axhline(0, color=INK, lw=0.8)
    axis.axvline(1, color=INK, lw=0.8, ls=":")
    # Lines that lie on one another all show: each is thinner than those below it.
    widths = np.linspace(2 + len(curves), 1.6, len(curves))
    for colour, width, curve in zip(MULTIPLIERS, widths, curves, strict=False):
        axis.plot(curve.ratio_T, curve.multiplier_T, color=colour, lw=width, label=curve.label)
    at_one = [np.interp(1, curve.ratio_T, curve.multiplier_T) for curve in curves]
    low, high = min(*at_one, 0), max(*at_one, 0)
    axis.set_ylim(4.2 * low - 0.25 * high, 1.6 * high - 0.6 * low)
    axis.set_xlim(0, curves[0].ratio_T[-1])
    axis.set_ylabel("weight of ∇ log π", color=INK, fontsize=9)


def _saved(figure, path):
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
