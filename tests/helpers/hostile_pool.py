"""A pool whose grader misbehaves on request (`hostile_graders.py`), and items and statuses for it."""

from collections.abc import Sequence
from pathlib import Path

from nft_jax.verify import Pool, Verdict

FOLDER = str(Path(__file__).parents[1])
GRADER = "helpers.hostile_graders:misbehave"


def hostile_pool(**arguments) -> Pool:
    """Returns a pool with much time for an item (an easy one takes microseconds) and little memory.

    It is not isolated, so that the graders can do their worst.
    """
    arguments = {"isolation": "off"} | arguments
    return Pool(**({"grader": GRADER, "paths": [FOLDER], "item_seconds": 3.0, "memory_mib": 256} | arguments))


def easy_items(count: int, start: int = 0) -> tuple[list[tuple[str, str]], list[str]]:
    """Returns items of which every third is correct, and their statuses."""
    items = [(str(i), str(i if i % 3 == 0 else -i)) for i in range(start, start + count)]
    return items, ["correct" if i % 3 == 0 else "incorrect" for i in range(start, start + count)]


def statuses(verdicts: Sequence[Verdict]) -> list[str]:
    """Returns the status of each verdict."""
    return [verdict.status for verdict in verdicts]
