"""Prints the relative differences of losses and gradients from those of verl and TRL, as a Markdown table."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from helpers import trl_parity, verl_parity

PEERS: dict[str, tuple[Any, Callable]] = {
    "verl": (verl_parity, verl_parity.load_core_algos),
    "trl": (trl_parity, lambda folder: trl_parity.load_compute_loss(folder, torch)),
}


def rows() -> Iterator[str]:
    """Yields a line for each loss of each peer that is installed."""
    for peer, (parity, load) in PEERS.items():
        if (found := importlib.util.find_spec(peer)) is None:
            yield f"| {peer} is not installed |" + " |" * 5
            continue
        functions = load(Path(found.origin).parent)
        for name, case in parity.CASES.items():
            numbers = [
                x for dtype in ("float64", "float32") for x in parity.compare_loss(functions, torch, case, dtype)
            ]
            yield f"| {peer} | {name} | {' | '.join(f'{x:.1e}' for x in numbers)} |"


def main() -> None:
    """Prints the table."""
    print("| peer | loss | loss, float64 | gradient, float64 | loss, float32 | gradient, float32 |")
    print("|---" * 6 + "|")
    for row in rows():
        print(row, flush=True)


if __name__ == "__main__":
    main()
