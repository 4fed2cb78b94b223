"""Checkpoints of the whole state, written and read by Orbax."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.path import atomicity, atomicity_types

from nft_jax.models.finite import check_finite, describe_nonfinite, find_nonfinite
from nft_jax.processes import distributed, ending
from nft_jax.run import remote_workdir
from nft_jax.run.damage import (
    check_damage,
    check_digests,
    check_names,
    make_digests,
    root_cause,
    say_damage,
    say_removal,
)
from nft_jax.run.fingerprint import text_digest, weights_digest
from nft_jax.run.saved_arrays import as_saved, cast, check_shapes
from nft_jax.state import State

_LOG = logging.getLogger(__name__)

UNFINISHED = ".orbax-checkpoint-tmp"
DIGESTS = "digests"


class _SavedRun(NamedTuple):
    """What a checkpoint keeps beside the state; `digests` is None where an older version saved it."""

    run: dict
    digests: dict[str, str] | None


class Checkpoints:
    """The checkpoints of one run in `<workdir>/checkpoints`: the state after a step, and the run's fingerprint (JSON).

    It also keeps digests of both, which are compared when it is read: Orbax and TensorStore check the indexes of their
    files, and not the numbers.

    A checkpoint is written in the background under a temporary name and renamed when it is complete; only then is an
    older one deleted. So whenever the process dies, the newest complete one can be read. (A bucket can't rename: there
    the file `commit_success.txt`, written last, marks a complete one.)

    Args:
      keep: How many checkpoints the run that writes them keeps, besides that of step `best`. It also removes what a
        killed run left unfinished. None: a reader, which changes nothing, and may read while a run writes here.

    Attributes:
      best: The step that is kept, or None.
    """

    def __init__(self, workdir: Path, keep: int | None = None):
        self.folder = remote_workdir.storage_folder(workdir) / "checkpoints"
        self.keep = keep
        self.best: int | None = None
        self._has_markers = remote_workdir.is_remote(workdir)
        if keep is not None and jax.process_index() == 0:
            self._clear_unfinished()

    @cached_property
    def manager(self) -> ocp.CheckpointManager:
        """Orbax's manager, made when the first checkpoint is written."""
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self, temporary_path_class=temporary_path(self._has_markers)
        )
        return ocp.CheckpointManager(self.folder, options=options)

    @cached_property
    def _reader(self) -> ocp.Checkpointer:
        # The manager would look at all steps, of which the run that writes them may just be removing one.
        return ocp.Checkpointer(ocp.CompositeCheckpointHandler())

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None and ending.is_multiprocess():
            # Orbax would wait for the other processes, one of which may be lost.
            return
        try:
            for name in ("manager", "_reader"):
                if name in self.__dict__:
                    getattr(self, name).close()
        except Exception:
            # A second error would hide the first.
            if kind is None:
                raise

    @property
    def steps(self) -> list[int]:
        """The steps with a complete checkpoint, ascending; also while another one is being written."""
        return sorted(int(path.name) for path in self._step_folders() if is_complete(path, self._has_markers))

    @property
    def latest(self) -> int | None:
        """The newest step with a complete checkpoint."""
        return max(self.steps, default=None)

    def describe_resume(self) -> str:
        """Returns a text that names the step from which the run resumes."""
        # Read once: another may be complete a moment later.
        if (latest := self.latest) is None:
            return "the same command begins anew: no step is saved yet"
        return f"the same command resumes from step {latest} ({self.folder / str(latest)})"

    def save(self, step: int, state: State, run: dict) -> None:
        """Starts saving the state after `step` steps; returns when it is copied, so that it can be donated.

        Raises:
          OSError: if this checkpoint or the one before could not be written; older ones are complete.
          FloatingPointError: if the state holds NaN or inf; nothing is written, and no older one is deleted.
        """
        if step in self.steps:
            return
        if found := find_nonfinite(state.saved_parts):
            raise FloatingPointError(f"step {step} is not saved: {describe_nonfinite(found)}")
        run = run | {DIGESTS: make_digests(state) | {"run": text_digest(run)}}
        items = ocp.args.Composite(
            weights=ocp.args.StandardSave(state.weights),
            rest=ocp.args.StandardSave(state.rest),
            run=ocp.args.JsonSave(run),
        )
        with self._write_errors():
            self.manager.save(step, args=items)

    def wait(self) -> None:
        """Waits until all is written; raises as `save` does."""
        with self._write_errors():
            self.manager.wait_until_finished()

    def check(self) -> None:
        """Raises as `save` does if the last checkpoint failed in the background."""
        with self._write_errors():
            self.manager.check_for_errors()

    def restore(self, state: State, check_run: Callable[[dict], None]) -> tuple[int, State] | None:
        """Returns the step and state of the newest readable checkpoint; None without any.

        Newer ones that can't be read are skipped, with a warning; the run that writes here renames them to
        `<step>.damaged`.

        Args:
          state: The shapes and layouts of the state (ShapeDtypeStructs); what no checkpoint holds is returned as
            it is.
          check_run: Raises if the saved fingerprint is that of another run.

        Raises:
          OSError: if one can't be read although nothing shows that it is damaged; nothing is changed.
          ValueError: if there are checkpoints but none can be read; a new run would overwrite them. Or if the newest
            readable one holds NaN or inf.
        """
        damaged = []
        for step in reversed(self.steps):
            try:
                run, digests = self._read_run(step)
            except Exception as error:
                check_damage(step, error)
                damaged.append((step, error))
                continue
            check_run(run)
            try:
                restored = self._read_state(step, state)
                check_digests(self.folder / str(step), make_digests(restored), digests)
            except Exception as error:
                check_damage(step, error)
                damaged.append((step, error))
                continue
            check_finite(restored.saved_parts, self.folder / str(step), self._remedy(step))
            self._skip_damaged(damaged)
            return step, restored
        if damaged:
            causes = "\n  ".join(f"{step}: {root_cause(error)}" for step, error in damaged)
            raise ValueError(f"no checkpoint in {self.folder} can be read; give another --workdir\n  {causes}")
        return None

    def restore_weights(self, step: int, weights: Any) -> Any:
        """Returns the trained weights after `step` steps, in the shapes and layouts of `weights` (ShapeDtypeStructs).

        Raises:
          FileNotFoundError: if there is no such checkpoint; the message names the saved steps.
          ValueError: if they are of another model, damaged, or hold NaN or inf.
        """
        if step not in self.steps:
            saved = ", ".join(map(str, self.steps)) or "none"
            raise FileNotFoundError(f"no checkpoint of step {step} in {self.folder}; saved steps: {saved}")
        with say_removal(self.folder / str(step)):
            check_shapes(self.folder / str(step) / "weights", weights)
            with say_damage(self.folder / str(step)):
                digests = self._read_run(step).digests
                read = self._read(step, weights=ocp.args.StandardRestore(as_saved(weights)))["weights"]
        check_digests(self.folder / str(step), {"weights": weights_digest(read)}, digests)
        check_finite(read, self.folder / str(step), self._remedy(step))
        return cast(read, weights)

    def _remedy(self, step: int) -> str:
        """Returns what to do with a checkpoint that holds NaN or inf."""
        older = [other for other in self.steps if other < step]
        if not older:
            return "training broke before it was saved; begin anew in another --workdir"
        return f"training broke before it was saved; step {older[-1]} is older: move this folder away to use that"

    def read_run(self, step: int) -> dict:
        """Returns the fingerprint that the checkpoint of a step keeps."""
        with say_removal(self.folder / str(step)), say_damage(self.folder / str(step)):
            return self._read_run(step).run

    def _read_run(self, step: int) -> "_SavedRun":
        run = dict(self._read(step, run=ocp.args.JsonRestore())["run"])
        digests = run.pop(DIGESTS, None)
        if digests is not None and digests["run"] != text_digest(run):
            raise ValueError("its settings are not those that were saved: their digest differs")
        return _SavedRun(run, digests)

    def _read_state(self, step, state):
        weights, rest = ocp.args.StandardRestore(state.weights), ocp.args.StandardRestore(state.rest)
        read = self._read(step, weights=weights, rest=rest)
        return state._replace(weights=read["weights"], **read["rest"])

    def _read(self, step, **items):
        return self._reader.restore(self.folder / str(step), args=ocp.args.Composite(**items))

    @contextlib.contextmanager
    def _write_errors(self) -> Iterator[None]:
        """Turns whatever Orbax raises into an OSError that names the newest complete checkpoint."""
        try:
            yield
        except Exception as error:
            newest = "none" if (latest := self.latest) is None else f"that of step {latest}"
            raise OSError(
                f"a checkpoint could not be written ({root_cause(error)}); the newest complete one: {newest}"
            ) from error

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Returns which of these checkpoints, the newest last, to keep; Orbax calls it while it saves another."""
        first = len(checkpoints) - self.keep
        return [place >= first or one.step == self.best for place, one in enumerate(checkpoints)]

    def _step_folders(self):
        """Returns the folders that are named after a step, complete or not; raises as `check_names`."""
        found = [path for path in self.folder.iterdir() if path.name.isdigit()] if self.folder.is_dir() else []
        check_names(found)
        return found

    def _clear_unfinished(self):
        found = list(self.folder.iterdir()) if self.folder.is_dir() else []
        unmarked = [path for path in self._step_folders() if not is_complete(path, self._has_markers)]
        for path in sorted([path for path in found if UNFINISHED in path.name] + unmarked):
            _LOG.warning("%s was not finished when its run ended; it is removed", path)
            path.rmtree()

    def _skip_damaged(self, damaged):
        def skip():
            for step, error in damaged:
                done = "skipped" if self.keep is None else f"skipped and renamed to {self._set_aside(step)}"
                _LOG.warning("checkpoint %d can't be read; it is %s: %s", step, done, root_cause(error))

        if damaged:
            distributed.on_process_0(skip, "damaged checkpoints")
            if "manager" in self.__dict__:
                self.manager.reload()

    def _set_aside(self, step):
        aside = self.folder / f"{step}.damaged"
        if aside.is_dir():
            aside.rmtree()
        elif aside.exists():
            aside.unlink()
        return (self.folder / str(step)).rename(aside)


def remove_checkpoints(folder: Path) -> None:
    """Removes all checkpoints of a workdir, of which nothing else is needed."""
    path = remote_workdir.storage_folder(folder) / "checkpoints"
    if jax.process_index() == 0 and path.is_dir():
        path.rmtree()


def temporary_path(has_markers: bool) -> type[atomicity_types.TemporaryPath]:
    """Returns Orbax's way of showing that a folder is complete: a marker file, or its final name."""
    return atomicity.CommitFileTemporaryPath if has_markers else atomicity.AtomicRenameTemporaryPath


def is_complete(path: epath.Path, has_markers: bool) -> bool:
    return not has_markers or (path / atomicity_types.COMMIT_SUCCESS_FILE).exists()
