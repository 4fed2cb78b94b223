"""Prints how far this package is from transformers, on a random Qwen2 of four layers: python tests/parity/table.py"""

import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax

from helpers.parity_qwen2 import VOCABULARY, differences, in_bfloat16, ours, random_qwen2, same_files, some_ends, theirs


def main() -> None:
    """Tied and untied embeddings."""
    jax.config.update("jax_default_matmul_precision", "highest")
    for tied in (False, True):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            model = random_qwen2(folder, tied=tied)
            print(
                f"\n{'tied' if tied else 'untied'} embedding, {VOCABULARY} tokens, {model.num_parameters():,} weights\n"
            )
            print_table(folder, model)
            print(
                f"files after a round trip: {'identical' if same_files(folder, Path(scratch) / 'out') else 'DIFFERENT'}"
            )


def print_table(folder: Path, model: Any) -> None:
    """One line a quantity: ours against theirs by dtype, then either's bfloat16 against transformers' float32."""
    ends = some_ends(model)
    exact, half = theirs(model, ends), theirs(in_bfloat16(folder), ends)
    ours_half = ours(folder, ends, "bfloat16")
    columns = {
        "float32": differences(ours(folder, ends), exact),
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
