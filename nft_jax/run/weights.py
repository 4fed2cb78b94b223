"""The weights of a run without the rest of its state: written alone, and read from there or from a checkpoint."""

from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from nft_jax.models.finite import NonFiniteWeights, check_finite
from nft_jax.run import remote_workdir
from nft_jax.run.checkpoint import DIGESTS, Checkpoints, is_complete, temporary_path
from nft_jax.run.damage import DamagedWeights, check_digests, say_damage
from nft_jax.run.fingerprint import weights_digest
from nft_jax.run.saved_arrays import as_saved, cast, check_shapes


def save_weights(folder: Path, weights: Any) -> None:
    """Writes weights alone, and their digest, to `folder/weights`; returns when they are complete."""
    digests = {DIGESTS: {"weights": weights_digest(weights)}}
    with _checkpointer(folder) as checkpointer:
        checkpointer.save(_place(folder), weights, force=True, custom_metadata=digests)


def has_weights(folder: Path) -> bool:
    """Returns whether `folder/weights` exists and is complete."""
    path = _place(folder)
    return path.exists() and is_complete(path, remote_workdir.is_remote(folder))


def load_weights(folder: Path, weights: Any) -> Any:
    """Returns the weights of a run: `folder/weights`, else those of its newest checkpoint.

    Args:
      folder: The workdir.
      weights: Their shapes and layouts (ShapeDtypeStructs).

    Raises:
      FileNotFoundError: if there are none.
      ValueError: if they are of another model, damaged, or hold NaN or inf.
    """
    try:
        if has_weights(folder):
            check_shapes(_place(folder), weights)
            return _read(folder, weights)
        with Checkpoints(folder) as checkpoints:
            if checkpoints.latest is not None:
                return checkpoints.restore_weights(checkpoints.latest, weights)
    except NonFiniteWeights:
        raise
    except DamagedWeights as error:
        raise DamagedWeights(f"{error}: copy them anew, or remove the folder to train them again") from error
    except ValueError as error:
        raise ValueError(f"config.base={folder}: its weights don't fit config.model: {error}") from error
    raise FileNotFoundError(
        f"config.base={folder}: neither a folder 'weights' nor a checkpoint in it; give the workdir of a "
        f"`python -m nft_jax.sft` or `python -m nft_jax.train` run, or the folder 'warm_start' of the latter"
    )


def _read(folder: Path, weights: Any) -> Any:
    """Returns `folder/weights`, checked; raises DamagedWeights or NonFiniteWeights."""
    where = folder / "weights"
    with say_damage(where), _checkpointer(folder) as checkpointer:
        read = checkpointer.restore(_place(folder), as_saved(weights))
        digests = (checkpointer.metadata(_place(folder)).custom_metadata or {}).get(DIGESTS)
    check_digests(where, {"weights": weights_digest(read)}, digests)
    check_finite(read, where, "training broke before they were saved; begin anew")
    return cast(read, weights)


def _place(folder: Path) -> epath.Path:
    return remote_workdir.storage_folder(folder) / "weights"


def _checkpointer(folder: Path) -> ocp.StandardCheckpointer:
    return ocp.StandardCheckpointer(temporary_path_class=temporary_path(remote_workdir.is_remote(folder)))
