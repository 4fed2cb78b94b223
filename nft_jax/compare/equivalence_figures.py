"""The equivalence lab's pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nft_jax.compare.multipliers import Curve
from nft_jax.report import AQUA, BLUE, INK, ORANGE, plt, save_figure, style_axis

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
    style_axis(axes[1], "cosine of the gradients as the policy drifts", "mean |log R| over the rollout")
    for (colour, line), pair in zip(LINES, points[0].cosine, strict=False):
        label = pair.replace(" against ", "\nagainst ")
        axes[1].plot(drift, [p.cosine[pair] for p in points], line, color=colour, lw=2, marker="o", ms=4, label=label)
    axes[1].legend(frameon=False, fontsize=7.5)
    style_axis(axes[2], "share of tokens that lost their gradient", "mean |log R| over the rollout")
    alike: dict[tuple[float, ...], list[str]] = {}
    for loss in points[0].stopped:
        alike.setdefault(tuple(point.stopped[loss] for point in points), []).append(loss)
    for (colour, line), (shares, losses) in zip(LINES, alike.items(), strict=False):
        axes[2].plot(drift, shares, line, color=colour, lw=2, marker="o", ms=4, label="\n".join(losses))
    axes[2].legend(frameon=False, fontsize=7.5)
    return save_figure(figure, workdir / "equivalence.png")


def _on_policy(axis, found):
    """A dot for each parameter of each comparison."""
    along = f"max |a − b| / max |b|, at {NOTHING:g} where it is exactly 0"
    style_axis(axis, "on-policy: difference of the gradients, a dot a parameter", along)
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
    axes[1, 0].legend(frameon=False, fontsize=8.5, loc="upper left")
    return save_figure(figure, workdir / "multipliers.png")


def _multipliers(axis, curves):
    rate, right, ratio_T = curves[0].rate, curves[0].right, curves[0].ratio_T
    style_axis(axis, f"{'right' if right else 'wrong'} token, r̂ = {rate:g}", "R")
    sign, meaning = (1, "pull up: weight of ∇ log π") if right else (-1, "push down: weight of −∇ log π")
    axis.set_ylabel(meaning, color=INK, fontsize=9)
    # Lines that lie on one another all show: each is thinner than those below it.
    for colour, width, curve in zip(MULTIPLIERS, (5, 3.6, 2.4, 1.2), curves, strict=False):
        axis.plot(ratio_T, sign * curve.multiplier_T, color=colour, lw=width, label=curve.label)
    at_one = abs(float(np.interp(1, ratio_T, curves[0].multiplier_T)))
    axis.set_xlim(0, ratio_T[-1])
    axis.axvline(1, color=INK, lw=0.8, ls=":")
    if right:
        axis.set_ylim(-0.1 * at_one, 1.6 * at_one)
        return
    # Beyond R = 1/r̂ the implicit negative policy would be below 0: ε alone says how much a token weighs.
    axis.set_yscale("log")
    axis.set_ylim(0.02 * at_one, 600 * at_one)
    if 1 / rate < ratio_T[-1]:
        axis.axvline(1 / rate, color=INK, lw=0.8, ls="--")
        axis.text(1 / rate + 0.04, 0.025 * at_one, "R = 1/r̂", color=INK, fontsize=8.5)
