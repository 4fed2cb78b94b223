"""Whether a machine or a slice can be trusted with a run: `python -m nft_jax.smoke`."""

from typing import Any


def line(row: dict[str, Any]) -> str:
    """A check and what came of it, in one line."""
    return f"{'ok    ' if row['passed'] else 'FAILED'} {row['check']:<12} {row['seconds']:6.1f} s  {row['said']}"
