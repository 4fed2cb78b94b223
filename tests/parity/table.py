"""Prints the differences from transformers, family by family, as a Markdown table: python tests/parity/table.py"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax

from helpers.parity import (
    choose_eos_ids,
    differences,
    load_in_bfloat16,
    our_outputs,
    round_trip_is_identical,
    their_outputs,
)
from helpers.parity_models import MODELS, PUBLISHED, random_model

QUANTITIES = ("logits", "logp", "packed", "gradient")


def main() -> None:
    """Prints one line a model and dtype; the last lines of a model are the rounding of each side to bfloat16."""
    jax.config.update("jax_default_matmul_precision", "highest")
    print("| model | numbers compared | " + " | ".join(QUANTITIES) + " | greedy tokens the same | files |")
    print("|---|---" + "|---" * (len(QUANTITIES) + 2) + "|")
    for name in sys.argv[1:] or [*MODELS, *PUBLISHED]:
        with tempfile.TemporaryDirectory() as scratch:
            print_lines(name, Path(scratch))


def print_lines(name: str, scratch: Path) -> None:
    """Prints the lines of one model."""
    folder = scratch / "model"
    model = random_model(folder, name)
    eos_ids = choose_eos_ids(model)
    exact = their_outputs(model, eos_ids, scratch / "exact")
    half = their_outputs(load_in_bfloat16(folder), eos_ids, scratch / "half")
    ours_half = our_outputs(folder, eos_ids, "bfloat16")
    files = "identical" if round_trip_is_identical(folder, scratch / "out") else "DIFFERENT"
    for compared, found, expected in (
        ("float32", our_outputs(folder, eos_ids), exact),
        ("bfloat16", ours_half, half),
        ("ours in bfloat16 against float32", ours_half, exact),
        ("transformers in bfloat16 against float32", half, exact),
    ):
        values = differences(found, expected)
        numbers = " | ".join(f"{getattr(values, quantity):.1e}" for quantity in QUANTITIES)
        print(f"| {name} | {compared} | {numbers} | {values.greedy:.1%} | {files} |", flush=True)


if __name__ == "__main__":
    main()
