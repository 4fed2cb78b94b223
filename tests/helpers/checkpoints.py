"""Checkpoints of random states, and what is left of them."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from helpers.experiments import assert_same
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.state import State

RUN = {"config": {"seed": 0, "loss": {"options": {"omega": 1.0}}}, "problems": {"train": "0123"}}


def any_run(_):
    """Accepts the checkpoint of any run."""


def filled(abstract: State, seed: int) -> State:
    """Returns a state of random numbers, with the layouts of `abstract`."""
    random = np.random.default_rng(seed)

    def draw(leaf):
        values = random.normal(size=leaf.shape) * 100
        return jax.device_put((values > 0 if leaf.dtype == bool else values).astype(leaf.dtype), leaf.sharding)

    return jax.tree.map(draw, abstract)


def save(folder: Path, abstract: State, *steps: int, keep: int = 9) -> None:
    """Saves these steps as a run does; the state of step n is filled with seed n."""
    with Checkpoints(folder, keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, filled(abstract, step), RUN | {"step": step})


def assert_restored(restored: tuple[int, State] | None, step: int, abstract: State) -> None:
    """Asserts that this is what `save` saved of that step, bit for bit, in the layouts of `abstract`."""
    assert restored is not None
    assert restored[0] == step
    assert_same(restored[1], filled(abstract, step))
    in_place = jax.tree.map(
        lambda x, wanted: x.sharding.is_equivalent_to(wanted.sharding, x.ndim), restored[1], abstract
    )
    assert all(jax.tree.leaves(in_place))


def warnings_of(caplog) -> list[str]:
    """Returns the warnings of this package, without those of Orbax and JAX."""
    return [record.getMessage() for record in caplog.records if record.name == "nft_jax.run.checkpoint"]


def flip_bit(path: Path, random: np.random.Generator) -> None:
    """Flips one bit of a file."""
    data = bytearray(path.read_bytes())
    bit = random.integers(8 * len(data))
    data[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(data)


def listing(folder: Path) -> dict[str, Any]:
    """Returns every file with its bytes."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
