"""A pool whose grader misbehaves on request (`hostile_graders.py`)."""

from pathlib import Path

from nft_jax.verify import Pool

FOLDER = str(Path(__file__).parents[1])
GRADER = "helpers.hostile_graders:misbehave"


def hostile_pool(**arguments) -> Pool:
    """Generous time for an item (an honest one takes microseconds, also on a busy machine), little memory.

    Not isolated, so that the graders can do their worst.
    """
    arguments = {"isolation": "off"} | arguments
    return Pool(**({"grader": GRADER, "paths": [FOLDER], "item_seconds": 3.0, "memory_mib": 256} | arguments))
