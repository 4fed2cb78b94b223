"""Trackers of experiments: each gets the numbers of `metrics.jsonl` and the held-out scores, under the same names.

`config.record.trackers` names them. TensorBoard is a tracker of its own (tensorboard.py); wandb and trackio are
packages that log in the same way.
"""

import contextlib
import importlib
import importlib.util
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

from nft_jax.config import Config, to_dict
from nft_jax.run.tensorboard import TensorBoard, numbers

PROJECT = "nft_jax"


class Tracker(Protocol):
    """What a tracker does; only that of process 0 writes.

    `add` takes the numbers of a step: {"reward": 0.5} with the prefix "validation" is the curve validation/reward.
    """

    def add(self, step: int, values: Mapping[str, Any], prefix: str = "") -> None: ...

    def close(self) -> None: ...


class PackageTracker:
    """Logs to wandb or trackio. Where that fails, it prints one message on stderr, and the run goes on without it.

    Args:
      package: "wandb" or "trackio".
      workdir: Names the run. A resumed run goes on in the same curves: wandb finds it by an id that the workdir keeps,
        trackio by its name.
      resumes: Whether the run resumes from a checkpoint.
    """

    def __init__(self, package: str, workdir: Path, config: Config, resumes: bool):
        self._package, self._run = package, None
        options = {"project": PROJECT, "name": str(workdir), "config": to_dict(config)}
        options["resume"] = "allow" if resumes else "never"
        with self._giving_up():
            if package == "wandb":
                options |= {"id": _keep_id(workdir / "wandb", resumes), "dir": str(workdir)}
            self._run = importlib.import_module(package).init(**options)

    def add(self, step: int, values: Mapping[str, Any], prefix: str = "") -> None:
        """Logs each number of `values` under its name."""
        if self._run is not None:
            with self._giving_up():
                self._run.log(numbers(prefix, values), step=step)

    def close(self) -> None:
        """Ends the run of the tracker; it may still be sending."""
        run, self._run = self._run, None
        if run is not None:
            with self._giving_up():
                run.finish()

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the package's own, of its server or of the disk: none of them ends a run
            self._run = None
            print(f"{self._package} failed: {error!r}; the run goes on without it", file=sys.stderr, flush=True)


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker]):
        self._trackers = trackers

    def add(self, step: int, values: Mapping[str, Any], prefix: str = "") -> None:
        """Gives the numbers of a step to each."""
        for tracker in self._trackers:
            tracker.add(step, values, prefix)


@contextlib.contextmanager
def open_trackers(
    workdir: Path, config: Config, resume_from: int, kept: Mapping[str, Sequence[dict]]
) -> Iterator[Trackers]:
    """Opens the trackers of a run, and closes them when the block ends; arguments as those of `TensorBoard`."""
    trackers: list[Tracker] = []
    with contextlib.ExitStack() as stack:
        for name in config.record.tracker_names:
            if name == "tensorboard":
                trackers.append(TensorBoard(workdir / "tensorboard", resume_from, kept))
            elif jax.process_index() == 0:
                trackers.append(PackageTracker(name, workdir, config, bool(resume_from)))
            else:
                continue
            stack.callback(trackers[-1].close)
        yield Trackers(trackers)


def check_installed(names: Sequence[str]) -> None:
    """Checks that the packages of these trackers are installed.

    Raises:
      ValueError: When one is not, with the command that installs it.
    """
    for name in names:
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise ValueError(
                f"config.record.trackers names {name}, which is not installed: pip install -e .[{name}], or leave it "
                f"out; metrics.jsonl has the same numbers"
            )


def _keep_id(folder: Path, resumes: bool) -> str:
    """Returns the id by which wandb finds the run again, which a file keeps; a run that begins anew gets another."""
    path = folder / "run_id.txt"
    if not (resumes and path.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
