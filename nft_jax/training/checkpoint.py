"""Checkpoints of the whole state, and weights by themselves, through Orbax."""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from nft_jax.step import State


class Checkpoints:
    """The checkpoints of one run, in `<workdir>/checkpoints`; saving goes on in the background."""

    def __init__(self, workdir: Path, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self.manager = ocp.CheckpointManager((workdir / "checkpoints").resolve(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.manager.close()

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self.manager.latest_step()

    def save(self, step: int, state: State) -> None:
        """Saves the state after `step` steps."""
        if step != self.latest:
            self.manager.save(step, args=ocp.args.StandardSave(_present(state)))

    def restore(self, step: int, state: State) -> State:
        """The state saved after `step` steps, in the shapes and layouts of `state`."""
        saved = self.manager.restore(step, args=ocp.args.StandardRestore(_present(state)))
        return state._replace(**saved)


def save_weights(folder: Path, weights: Any) -> None:
    """Writes weights alone to `folder/weights` and waits until they are there."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / "weights").resolve(), weights, force=True)


def load_weights(folder: Path, weights: Any) -> Any:
    """Reads `folder/weights` into the shapes and layouts of `weights` (ShapeDtypeStructs will do).

    Raises:
      FileNotFoundError: when there are none.
      ValueError: when they are of another model.
    """
    path = (folder / "weights").resolve()
    if not path.exists():
        raise FileNotFoundError(
            f"config.base={folder}: no folder 'weights' in it; give the workdir of a `python -m nft_jax.sft` run, "
            f"or the folder 'warm_start' of a `python -m nft_jax.train` run"
        )
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            return checkpointer.restore(path, weights)
        except ValueError as error:
            raise ValueError(f"config.base={folder}: its weights don't fit config.model: {error}") from error


def _present(state):
    # Orbax has no place for None: what a config leaves out of the state is left out of the checkpoint.
    return {name: value for name, value in state._asdict().items() if value is not None}
