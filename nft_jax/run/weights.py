"""The weights of a run without the rest of its state: written alone, and read from there or from a checkpoint."""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from nft_jax.models.finite import NonFiniteWeights, check_finite
from nft_jax.run import remote_workdir
from nft_jax.run.checkpoint import Checkpoints, is_complete, temporary_path


def save_weights(folder: Path, weights: Any) -> None:
    """Writes weights alone to `folder/weights`; returns when they are complete."""
    with ocp.StandardCheckpointer(
        temporary_path_class=temporary_path(remote_workdir.is_remote(folder))
    ) as checkpointer:
        checkpointer.save(remote_workdir.storage_folder(folder) / "weights", weights, force=True)


def has_weights(folder: Path) -> bool:
    """Returns whether `folder/weights` exists and is complete."""
    path = remote_workdir.storage_folder(folder) / "weights"
    return path.exists() and is_complete(path, remote_workdir.is_remote(folder))


def load_weights(folder: Path, weights: Any) -> Any:
    """Returns the weights of a run: `folder/weights`, else those of its newest checkpoint.

    Args:
      folder: The workdir.
      weights: Their shapes and layouts (ShapeDtypeStructs).

    Raises:
      FileNotFoundError: if there are none.
      ValueError: if they are of another model, or hold NaN or inf.
    """
    try:
        if has_weights(folder):
            with ocp.StandardCheckpointer(
                temporary_path_class=temporary_path(remote_workdir.is_remote(folder))
            ) as checkpointer:
                read = checkpointer.restore(remote_workdir.storage_folder(folder) / "weights", weights)
            check_finite(read, folder / "weights", "training broke before they were saved; begin anew")
            return read
        with Checkpoints(folder) as checkpoints:
            if checkpoints.latest is not None:
                return checkpoints.restore_weights(checkpoints.latest, weights)
    except NonFiniteWeights:
        raise
    except ValueError as error:
        raise ValueError(f"config.base={folder}: its weights don't fit config.model: {error}") from error
    raise FileNotFoundError(
        f"config.base={folder}: neither a folder 'weights' nor a checkpoint in it; give the workdir of a "
        f"`python -m nft_jax.sft` or `python -m nft_jax.train` run, or the folder 'warm_start' of the latter"
    )
