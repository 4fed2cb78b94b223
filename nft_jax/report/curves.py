"""The curves of a run, from its `metrics.jsonl` and `evaluation.jsonl`: a picture, and drawings for the page."""

import io
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text

from nft_jax.files import atomically
from nft_jax.printing import visible
from nft_jax.run.json_files import read_lines
from nft_jax.run.workdir import PICTURE_FILE

# Checked for color-blind readers on white: blue, orange, aqua, in this order.
BLUE, ORANGE, AQUA, INK, GRID = "#2a78d6", "#eb6834", "#1baf7a", "#3d3d3a", "#e4e3de"


def draw(workdir: Path, title: str) -> tuple[Path, bytes]:
    """Draws the curves of the run in `workdir`: writes `curves.png`, and returns its path and the same as SVG.

    The SVG has a transparent ground. Raises as `make_figure`.
    """
    figure, drawing, path = make_figure(workdir, title), io.BytesIO(), workdir / PICTURE_FILE
    figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None})
    with atomically(path) as temporary:  # a report may be made while the run goes on
        save_figure(figure, temporary)
    return path, drawing.getvalue()


def make_figure(workdir: Path, title: str) -> Figure:
    """Makes the figure of the run in `workdir`.

    Raises:
      FileNotFoundError: When the run has no metrics yet.
      ValueError: When a file of the run is damaged.
    """
    steps, held_out = (read_lines(workdir / name, {"step": int}) for name in ("metrics.jsonl", "evaluation.jsonl"))
    if not steps:
        raise FileNotFoundError(
            f"{workdir / 'metrics.jsonl'}: nothing to draw yet; give the workdir of a `python -m nft_jax.train` run"
        )
    if "reward" not in steps[0]:
        return _make_supervised_figure(title, steps, held_out)
    figure, axes = plt.subplots(3, 3, figsize=(13, 9.6), constrained_layout=True)
    figure.suptitle(title, x=0.01, ha="left", color=INK)
    _draw_accuracy(axes[0, 0], steps, held_out)
    _draw_rates(axes[0, 1], steps)
    _draw_lines(axes[0, 2], steps, "entropy (nats a token)", [("entropy", "policy", BLUE)])
    _draw_lines(
        axes[1, 0],
        steps,
        "answer length (tokens)",
        [("answer_length_max", "longest", ORANGE), ("answer_length", "mean", BLUE)],
    )
    gaps = [("sampler_gap_max", "max", ORANGE), ("sampler_gap_mean", "mean", BLUE)]
    _draw_lines(axes[1, 1], steps, "|Δ log-prob|, sampler against trainer", gaps, log=True)
    _draw_lines(axes[1, 2], steps, "gradient norm before clipping", [("gradient_norm", "norm", BLUE)])
    _draw_verdicts(axes[2, 0], steps)
    clamps = [("clamped_value", "(1 − r̂R)/(1 − r̂) < 1", BLUE), ("clamped_log_ratio", "log R > 10", ORANGE)]
    _draw_lines(axes[2, 1], steps, "share of tokens beyond NFT's clip (ε = 1)", clamps)
    _draw_lines(axes[2, 2], steps, "sampled tokens a second", [("tokens_per_second", "tokens", BLUE)])
    return figure


def _make_supervised_figure(title, steps, held_out):
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    figure.suptitle(title, x=0.01, ha="left", color=INK)
    _draw_lines(axes[0], steps, "loss (nats a token)", [("loss", "training", AQUA)])
    rows = [row for row in held_out if row.get("loss") is not None]
    if rows:
        x, y, error = ([row.get(key) or 0.0 for row in rows] for key in ("step", "loss", "loss_error"))
        axes[0].errorbar(x, y, yerr=error, color=BLUE, lw=2, capsize=3, marker="o", ms=5, label="held out")
        axes[0].legend(frameon=False, fontsize=8)
    _draw_lines(axes[1], steps, "gradient norm before clipping", [("gradient_norm", "norm", BLUE)])
    return figure


def _draw_accuracy(axis, steps, held_out):
    style_axis(axis, "share of correct answers")
    _draw_curve(axis, steps, "reward", "training samples", AQUA)
    for name, label, color in (("sampled", "held out, sampled", ORANGE), ("greedy", "held out, greedy", BLUE)):
        rows = [row for row in held_out if row.get(name) is not None]
        if rows:
            # A single problem has no standard error: no bar.
            x, y, error = ([row.get(key) or 0.0 for row in rows] for key in ("step", name, f"{name}_error"))
            axis.errorbar(x, y, yerr=error, color=color, lw=2, capsize=3, marker="o", ms=5, label=label)
    axis.set_ylim(0, 1)
    axis.legend(frameon=False, fontsize=8)


def _draw_rates(axis, steps):
    """Draws the histogram of the groups' success rates r̂ over time, one column a step."""
    style_axis(axis, "groups by success rate r̂")
    steps = [row for row in steps if row.get("rate_histogram")]
    if not steps:
        return
    columns = [[count / max(sum(row["rate_histogram"]), 1) for count in row["rate_histogram"]] for row in steps]
    grid = [list(values) for values in zip(*columns, strict=True)]
    extent = (steps[0]["step"] - 0.5, steps[-1]["step"] + 0.5, -0.05, 1.05)
    image = axis.imshow(grid, origin="lower", aspect="auto", extent=extent, cmap="Blues", vmin=0)
    axis.grid(False)
    axis.figure.colorbar(image, ax=axis, label="share of groups")


def _draw_verdicts(axis, steps):
    """Draws the shares of the sampled answers that are not correct: by verdict, and those that were cut."""
    style_axis(axis, "answers that are not correct, by verdict")
    steps = [row for row in steps if row.get("verdicts") and row.get("answers")]
    verdicts = (("incorrect", ORANGE), ("unparsed", BLUE), ("timeout", AQUA), ("error", INK))
    for name, color in verdicts:
        shares = [row["verdicts"].get(name, 0) / row["answers"] for row in steps]
        if any(shares):
            axis.plot([row["step"] for row in steps], shares, color=color, lw=2, label=name)
    if steps:
        _draw_curve(axis, steps, "truncated", "cut (counts as incorrect)", INK, linestyle="dotted")
        axis.legend(frameon=False, fontsize=8)


def _draw_lines(axis, steps, title, curves, *, log=False):
    style_axis(axis, title)
    for name, label, color in curves:
        _draw_curve(axis, steps, name, label, color)
    if log and any(row.get(name) for row in steps for name, _, _ in curves):
        axis.set_yscale("log")
    if len(curves) > 1:
        axis.legend(frameon=False, fontsize=8)


def _draw_curve(axis, steps, name, label, color, **style):
    rows = [row for row in steps if row.get(name) is not None]
    axis.plot([row["step"] for row in rows], [row[name] for row in rows], color=color, lw=2, label=label, **style)


def save_figure(figure: Any, path: Path | BinaryIO, dpi: int = 110, **options: Any) -> Path | BinaryIO:
    """Writes a picture, closes it, and returns its path or file; its texts show control characters as escapes."""
    for text in figure.findobj(Text):
        text.set_text(visible(text.get_text()))
    figure.savefig(path, dpi=dpi, **options)
    plt.close(figure)
    return path


def style_axis(axis: Any, title: str, across: str = "step") -> None:
    """Gives an axis the look that all pictures share."""
    axis.set_title(title, fontsize=10, loc="left", color=INK)
    axis.set_xlabel(across, color=INK, fontsize=9)
    axis.tick_params(which="both", colors=INK, labelsize=8)
    axis.grid(color=GRID, lw=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
