"""Prints the relative differences of losses and gradients from verl's, as a Markdown table."""

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from helpers.verl_parity import CASES, compare_loss, load_core_algos


def main() -> None:
    """Prints a line for each loss."""
    core = load_core_algos(Path(importlib.util.find_spec("verl").origin).parent)
    print("| loss | verl's | loss, float64 | gradient, float64 | loss, float32 | gradient, float32 |")
    print("|---" * 6 + "|")
    for name, case in CASES.items():
        numbers = [x for dtype in ("float64", "float32") for x in compare_loss(core, torch, case, dtype)]
        print(f"| {name} | {case.peer} | {' | '.join(f'{x:.1e}' for x in numbers)} |", flush=True)


if __name__ == "__main__":
    main()
