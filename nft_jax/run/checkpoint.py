"""Checkpoints of the whole state, and weights by themselves, through Orbax."""

import logging
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.path import atomicity, atomicity_types

from nft_jax.processes import distributed, ending
from nft_jax.run import remote_workdir
from nft_jax.state import State

_LOG = logging.getLogger(__name__)

UNFINISHED = ".orbax-checkpoint-tmp"


class Checkpoints:
    """The checkpoints of one run, in `<workdir>/checkpoints`: the state after a step, and what the run is (JSON).

    A checkpoint is written in the background under a temporary name and renamed when it is complete, and only then is
    an older one deleted: whenever the process dies, the newest complete one is whole. (A bucket can't rename: there a
    file `commit_success.txt`, written last, says that one is complete.) With `keep` this is the run that writes them,
    the last `keep` and the one of step `best`, and clears away what a killed run had half written; without, a reader
    beside it, which changes nothing.
    """

    def __init__(self, workdir: Path, keep: int | None = None):
        self.folder = remote_workdir.home(workdir) / "checkpoints"
        self.keep = keep
        self.best: int | None = None
        self._marked = remote_workdir.is_remote(workdir)
        if keep is not None and jax.process_index() == 0:
            self._clear_unfinished()

    @cached_property
    def manager(self) -> ocp.CheckpointManager:
        """Orbax's manager, made when it is first needed: a reader may be there before the first checkpoint."""
        # Not Orbax's read_only, of which it warns twice: a manager that is never asked to save changes nothing.
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self, create=self.keep is not None, temporary_path_class=_temporary(self._marked)
        )
        return ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None and ending.is_multiprocess():
            # Orbax would wait for the others, of which one may be the cause, and gone.
            return
        try:
            if "manager" in self.__dict__:
                self.manager.close()
        except Exception:
            # One that could not be written was or is being said; a second error would hide the first.
            if kind is None:
                raise

    @property
    def steps(self) -> list[int]:
        """Steps with a complete checkpoint on disk, ascending; safe to ask while one is being written."""
        return sorted(int(path.name) for path in self._numbered() if _is_complete(path, self._marked))

    @property
    def latest(self) -> int | None:
        """The newest step with a complete checkpoint."""
        return max(self.steps, default=None)

    def resumes(self) -> str:
        """Where the run goes on when it is started again, in words."""
        if self.latest is None:
            return "the same command begins anew: no step is saved yet"
        return f"the same command resumes from step {self.latest} ({self.folder / str(self.latest)})"

    def save(self, step: int, state: State, run: dict) -> None:
        """Starts saving the state after `step` steps; returns when it is copied, so that the state may be donated.

        Raises:
          OSError: when this one or the one before could not be written; older ones are whole.
        """
        if step in self.steps:
            return
        rest = {name: part for name, part in state._asdict().items() if name != "weights" and part is not None}
        items = ocp.args.Composite(
            weights=ocp.args.StandardSave(state.weights), rest=ocp.args.StandardSave(rest), run=ocp.args.JsonSave(run)
        )
        self._written(lambda: self.manager.save(step, args=items))

    def wait(self) -> None:
        """Waits until all is written; raises as `save` does."""
        self._written(self.manager.wait_until_finished)

    def check(self) -> None:
        """Raises as `save` does if the last one failed in the background."""
        self._written(self.manager.check_for_errors)

    def restore(self, state: State, fits: Callable[[dict], None]) -> tuple[int, State] | None:
        """The newest checkpoint that can be read, into the shapes and layouts of `state`; None where there is none.

        `fits(run)` raises if the checkpoint is of another run. One that can't be read is set aside with a warning.

        Raises:
          ValueError: when there are some and none can be read: starting anew would bury them.
        """
        damaged = []
        for step in reversed(self.steps):
            try:
                run = self._read(step, run=ocp.args.JsonRestore())["run"]
            except Exception as error:
                damaged.append((step, error))
                continue
            fits(run)
            try:
                restored = self._state(step, state)
            except Exception as error:
                damaged.append((step, error))
                continue
            self._set_aside(damaged)
            return step, restored
        if damaged:
            said = "\n  ".join(f"{step}: {_cause(error)}" for step, error in damaged)
            raise ValueError(f"no checkpoint in {self.folder} can be read; take another --workdir\n  {said}")
        return None

    def restore_weights(self, step: int, weights: Any) -> Any:
        """The weights after `step` steps, into the shapes and layouts of `weights` (ShapeDtypeStructs).

        Raises:
          FileNotFoundError: when there is no such checkpoint, with the steps there are.
        """
        if step not in self.steps:
            there = ", ".join(map(str, self.steps)) or "none"
            raise FileNotFoundError(f"no checkpoint of step {step} in {self.folder}; the steps there: {there}")
        return self._read(step, weights=ocp.args.StandardRestore(weights))["weights"]

    def _state(self, step, state):
        parts = {name: part for name, part in state._asdict().items() if part is not None}
        weights = parts.pop("weights")
        read = self._read(step, weights=ocp.args.StandardRestore(weights), rest=ocp.args.StandardRestore(parts))
        return state._replace(weights=read["weights"], **read["rest"])

    def _read(self, step, **items):
        return self.manager.restore(step, args=ocp.args.Composite(**items))

    def _written(self, act):
        try:
            act()
        except Exception as error:
            newest = "none" if self.latest is None else f"that of step {self.latest}"
            raise OSError(
                f"a checkpoint could not be written ({_cause(error)}); the newest complete one: {newest}"
            ) from error

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Which of these, the newest last, stay: Orbax asks when it has begun to save another."""
        first = len(checkpoints) - self.keep
        return [place >= first or one.step == self.best for place, one in enumerate(checkpoints)]

    def _numbered(self):
        """All that bears the name of a step, complete or not."""
        return [path for path in self.folder.iterdir() if path.name.isdigit()] if self.folder.is_dir() else []

    def _clear_unfinished(self):
        there = list(self.folder.iterdir()) if self.folder.is_dir() else []
        unmarked = [path for path in self._numbered() if not _is_complete(path, self._marked)]
        for path in sorted([path for path in there if UNFINISHED in path.name] + unmarked):
            _LOG.warning("%s was not finished when its run ended; it is skipped, and removed", path)
            path.rmtree()

    def _set_aside(self, damaged):
        def rename():
            for step, error in damaged:
                aside = self.folder / f"{step}.damaged"
                if aside.is_dir():
                    aside.rmtree()
                (self.folder / str(step)).rename(aside)
                said = _cause(error)
                _LOG.warning("checkpoint %d can't be read and is skipped; it lies at %s: %s", step, aside, said)

        if damaged:
            distributed.on_process_0(rename, "damaged checkpoints")
            self.manager.reload()


def save_weights(folder: Path, weights: Any) -> None:
    """Writes weights alone to `folder/weights` and waits until they are there."""
    with ocp.StandardCheckpointer(temporary_path_class=_temporary(remote_workdir.is_remote(folder))) as checkpointer:
        checkpointer.save(remote_workdir.home(folder) / "weights", weights, force=True)


def has_weights(folder: Path) -> bool:
    """Whether `folder/weights` is there, and whole."""
    path = remote_workdir.home(folder) / "weights"
    return path.exists() and _is_complete(path, remote_workdir.is_remote(folder))


def load_weights(folder: Path, weights: Any) -> Any:
    """Weights of a run: `folder/weights`, else those of its newest checkpoint, as `weights` (ShapeDtypeStructs) lie.

    Raises:
      FileNotFoundError: when there are none.
      ValueError: when they are of another model.
    """
    try:
        if has_weights(folder):
            with ocp.StandardCheckpointer(
                temporary_path_class=_temporary(remote_workdir.is_remote(folder))
            ) as checkpointer:
                return checkpointer.restore(remote_workdir.home(folder) / "weights", weights)
        with Checkpoints(folder) as checkpoints:
            if checkpoints.latest is not None:
                return checkpoints.restore_weights(checkpoints.latest, weights)
    except ValueError as error:
        raise ValueError(f"config.base={folder}: its weights don't fit config.model: {error}") from error
    raise FileNotFoundError(
        f"config.base={folder}: neither a folder 'weights' nor a checkpoint in it; give the workdir of a "
        f"`python -m nft_jax.sft` or `python -m nft_jax.train` run, or the folder 'warm_start' of the latter"
    )


def _temporary(marked: bool) -> type[atomicity_types.TemporaryPath]:
    """How Orbax tells what is complete from what isn't yet."""
    return atomicity.CommitFileTemporaryPath if marked else atomicity.AtomicRenameTemporaryPath


def _is_complete(path: epath.Path, marked: bool) -> bool:
    return not marked or (path / atomicity_types.COMMIT_SUCCESS_FILE).exists()


def _cause(error):
    """What went wrong at the bottom, in a line: TensorStore says it between its paths and its settings."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = re.split(r"\n| \[\w+=", str(error).strip())[0]
    return line if len(line) <= 320 else f"{line[:140]} … {line[-180:]}"
