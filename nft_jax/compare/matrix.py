"""Which losses have the same gradient strictly on-policy: every pair, on the same groups with the same normalizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.colors import ListedColormap
from tabulate import tabulate

from nft_jax.compare.equalities import AnswerGroups, objective_weights, weights_match
from nft_jax.losses import LOSSES, Loss, resolve
from nft_jax.losses.omega import OMEGAS
from nft_jax.report.curves import AQUA, BLUE, INK, plt, save_figure

EQUAL, FACTOR, DIFFERENT = "equal", "factor", "different"
NORMALIZER = "constant"
PAPER = "#f2f1ec"


class Cell(NamedTuple):
    """How the gradient of one loss relates to that of another.

    Attributes:
      relation: `EQUAL`, `FACTOR` (equal up to a factor), or `DIFFERENT`.
      factor: the gradient of the row's loss over that of the column's; 0 where they differ.
    """

    relation: str
    factor: float


def shown_losses() -> dict[str, Loss]:
    """Returns every loss by its label; NFT with each ω, and without negatives."""
    nfts: dict[str, dict[str, object]] = {f"nft omega={omega}": {"omega": omega} for omega in OMEGAS}
    nfts["nft omega=one negative_weight=0"] = {"omega": "one", "negative_weight": 0.0}
    nfts["nft omega=odds ratio=mean"] = {"omega": "odds", "ratio": "mean"}
    shown = {label: resolve("nft", options) for label, options in nfts.items()}
    return shown | {name: resolve(name, {}) for name in LOSSES if name != "nft"}


def relate(one_BT: np.ndarray, other_BT: np.ndarray) -> Cell:
    """Relates the token weights of two losses; weights that are all 0 relate to nothing."""
    if weights_match(one_BT, other_BT):
        return Cell(EQUAL, 1.0)
    norm = np.sum(other_BT * other_BT)
    factor = float(np.sum(one_BT * other_BT) / norm) if norm else 0.0
    if factor > 0 and weights_match(one_BT, factor * other_BT):
        return Cell(FACTOR, factor)
    return Cell(DIFFERENT, 0.0)


def make_matrix(
    losses: Mapping[str, Loss], groups: AnswerGroups | None = None, drift: float = 0.0
) -> dict[str, dict[str, Cell]]:
    """Relates every pair of losses by `objective_weights`; `[row][column]`. DPO learns from pairs, and is alone."""
    weights = {label: objective_weights(loss, NORMALIZER, drift, groups) for label, loss in losses.items()}
    same = Cell(EQUAL, 1.0)
    return {
        row: {column: same if row == column else relate(weights[row], weights[column]) for column in weights}
        for row in weights
    }


def find_families(matrix: Mapping[str, Mapping[str, Cell]]) -> list[list[str]]:
    """Returns the losses whose gradients are equal up to a factor, together; in the order of the matrix."""
    found: dict[str, list[str]] = {}
    for row, cells in matrix.items():
        first = next((label for label, cell in cells.items() if cell.relation != DIFFERENT), row)
        found.setdefault(first, []).append(row)
    return list(found.values())


def format_markdown(matrix: Mapping[str, Mapping[str, Cell]]) -> str:
    """Makes a Markdown table with a line for each family: its losses, with their factors to the first."""
    rows = [
        [", ".join(f"`{label}`{_times(matrix[label][family[0]])}" for label in family)]
        for family in find_families(matrix)
    ]
    return tabulate(rows, ["equal on-policy, with the same normalizer and groups"], tablefmt="github")


def _times(cell: Cell) -> str:
    return f" (× {cell.factor:.4g})" if cell.relation == FACTOR else ""


def draw(matrix: Mapping[str, Mapping[str, Cell]], path: Path) -> Path:
    """Draws the matrix, families side by side; a number is the row's gradient over the column's."""
    order = [label for family in sorted(find_families(matrix), key=len, reverse=True) for label in family]
    kinds = (DIFFERENT, FACTOR, EQUAL)
    codes = np.array([[kinds.index(matrix[row][column].relation) for column in order] for row in order])
    figure, axis = plt.subplots(figsize=(11, 9.5), constrained_layout=True)
    axis.imshow(codes, cmap=ListedColormap([PAPER, AQUA, BLUE]), vmin=0, vmax=2)
    for y, row in enumerate(order):
        for x, column in enumerate(order):
            cell = matrix[row][column]
            if cell.relation == FACTOR:
                axis.text(x, y, f"{cell.factor:.2g}", ha="center", va="center", fontsize=6, color=INK)
    axis.set_xticks(range(len(order)), order, rotation=90, fontsize=7)
    axis.set_yticks(range(len(order)), order, fontsize=7)
    axis.set_title(
        "gradients strictly on-policy, same groups and normalizer: equal (blue), equal up to a factor (green), or not",
        fontsize=9,
        color=INK,
    )
    return save_figure(figure, path)
