"""Prints the differences from transformers on a random Qwen2 of four layers: python tests/parity/table.py"""

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax

from helpers.parity_qwen2 import (
    VOCABULARY,
    choose_eos_ids,
    differences,
    load_in_bfloat16,
    our_outputs,
    random_qwen2,
    round_trip_is_identical,
    their_outputs,
)


def main() -> None:
    """Prints one table for untied and one for tied embeddings."""
    jax.config.update("jax_default_matmul_precision", "highest")
    for tied in (False, True):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            model = random_qwen2(folder, tied=tied)
            print(
                f"\n{'tied' if tied else 'untied'} embedding, {VOCABULARY} tokens, {model.num_parameters():,} weights\n"
            )
            print_table(folder, model)
            identical = round_trip_is_identical(folder, Path(scratch) / "out")
            print(f"files after a round trip: {'identical' if identical else 'DIFFERENT'}")


def print_table(folder: Path, model: Any) -> None:
    """Prints one line a quantity: differences by dtype, then each bfloat16 against transformers' float32."""
    eos_ids = choose_eos_ids(model)
    exact, half = their_outputs(model, eos_ids), their_outputs(load_in_bfloat16(folder), eos_ids)
    ours_half = our_outputs(folder, eos_ids, "bfloat16")
    columns = {
        "float32": differences(our_outputs(folder, eos_ids), exact),
        "bfloat16": differences(ours_half, half),
        "ours, rounding": differences(ours_half, exact),
        "theirs, rounding": differences(half, exact),
    }
    print(f"{'largest difference of':24}" + "".join(f"{name:>18}" for name in columns))
    for quantity in ("logits", "logp", "packed"):
        print(f"{quantity:24}" + "".join(f"{getattr(column, quantity):18.1e}" for column in columns.values()))
    print(f"{'greedy tokens the same':24}" + "".join(f"{column.greedy:>18.1%}" for column in columns.values()))
    print(f"largest logit {abs(exact.logits).max():.1f}; {exact.greedy.size} greedy tokens")


if __name__ == "__main__":
    main()
