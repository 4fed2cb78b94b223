"""Measures what the checks of a checkpoint cost (its digests, the search for NaN and inf), beside saving and restoring.

python -m nft_jax.bench.digests --parameters=494e6                 # the checks alone, for the state of a 0.5B run
python -m nft_jax.bench.digests --parameters=100e6 --folder=DIR    # also saves and restores; DIR must have room

The state has the sizes of AdamW's: weights and two moments in float32.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nft_jax.models.finite import find_nonfinite
from nft_jax.printing import show_control_characters
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.run.damage import compile_checks, make_digests
from nft_jax.run.workdir import host_rss_peak_mib
from nft_jax.state import State

REPEATS = 3
_ROWS = 2**20  # of 4 bytes: arrays of a model of this size have some ten million numbers


def make_state(parameters: int, seed: int = 0) -> State:
    """Returns a state of random weights with so many numbers, and two moments as large."""
    sizes = [min(64 * _ROWS, parameters - first) for first in range(0, parameters, 64 * _ROWS)]
    keys = jax.random.split(jax.random.key(seed), len(sizes))
    weights = {str(i): jax.random.normal(key, (n,)) for i, (key, n) in enumerate(zip(keys, sizes, strict=True))}
    moments = tuple(jax.tree.map(lambda x, k=k: x * k, weights) for k in (0.5, 0.25))
    return jax.block_until_ready(State(weights, moments, jnp.int32(0), jnp.int32(0), None, None))


def measure(parameters: int, folder: Path | None) -> dict[str, float]:
    """Returns the GB of the state and the median seconds of its checks; with a folder, of saving and restoring too.

    Compilation does not count. Saving and restoring include the checks.
    """
    state = make_state(parameters)
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state)) / 1e9
    compile_checks(state)
    figures = {"GB": size, "digest": _median(lambda: make_digests(state))}
    figures["search"] = _median(lambda: find_nonfinite(state.saved_parts))
    if folder is None:
        return figures
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    with Checkpoints(folder, 1) as checkpoints:
        began = time.perf_counter()
        checkpoints.save(1, state, {})
        checkpoints.wait()
        figures["save"] = time.perf_counter() - began
        state = None  # its memory
        figures["restore"] = _median(lambda: checkpoints.restore(shapes, lambda run: None))
    return figures


def _median(act: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(act())
        seconds.append(time.perf_counter() - began)
    return float(np.round(statistics.median(seconds), 4))


def main() -> None:
    """Prints a line for each figure."""
    show_control_characters()
    parser = argparse.ArgumentParser("nft_jax.bench.digests", description=__doc__.split("\n\n")[0])
    parser.add_argument("--parameters", type=float, default=494e6, help="numbers of the weights")
    parser.add_argument("--folder", type=Path, help="where a checkpoint is saved and restored; it must be empty")
    given = parser.parse_args()
    figures = measure(int(given.parameters), given.folder)
    print(f"state     {figures['GB']:.2f} GB on {jax.devices()[0].device_kind}; {host_rss_peak_mib():,.0f} MiB at most")
    for name in ("digest", "search", "save", "restore"):
        if name in figures:
            print(f"{name:<9} {figures[name]:.2f} s, {figures[name] / figures['GB']:.3f} s a GB")


if __name__ == "__main__":
    main()
