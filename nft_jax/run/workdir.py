"""The folder of a run: its config, versions, metrics, rollouts and results."""

import dataclasses
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil

from nft_jax.config import Config, to_dict
from nft_jax.files import atomically, json_text
from nft_jax.printing import visible
from nft_jax.run import remote_workdir
from nft_jax.run.json_files import read_lines

# Parts of a run that several modules name.
RESULT_FILE, HELD_OUT_FOLDER, PAGE_FILE, PICTURE_FILE = "result.json", "held_out", "report.html", "curves.png"
WARM_START_FOLDER, RUN_FILE = "warm_start", "run.json"

PACKAGES = (
    "nft_jax",
    "jax",
    "jaxlib",
    "libtpu",
    "flax",
    "optax",
    "orbax-checkpoint",
    "transformers",
    "sentencepiece",
    "ml_collections",
    "numpy",
)


class Workdir:
    """Writes `config.json`, `run.json`, `metrics.jsonl` and `rollouts/` of one run; only process 0 does.

    Attributes:
      path: The folder; of a run in a bucket, its local mirror.
      run: The workdir of the run of which this folder is a part; the folder itself if it is no part.
      is_writer: Whether this is process 0.

    Raises:
      ValueError: if the folder can't be written or read again, before anything is compiled.
    """

    def __init__(self, path: Path, run: Path | None = None):
        self.path, self.run = path, run or path
        self.is_writer = jax.process_index() == 0
        if visible(str(path)) != str(path):
            raise ValueError(f"--workdir={path} has control characters, and no checkpoint is found there; rename it")
        if not self.is_writer:
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path) as probe:
                probe.write(bytes(2**16))
        except OSError as error:
            raise ValueError(f"--workdir={path} can't be written: {error}") from error

    def write_run(self, config: Config, attention: str, start: str = "") -> None:
        """Writes `run.json` and `config.json`, once it is known that the folder can hold this run.

        Args:
          start: What the run says of itself at its start: settings, and the sizes that follow from them.
        """
        if self.is_writer:
            self.write_json(RUN_FILE, provenance(config, attention) | ({"start": start} if start else {}))
            self.write_json("config.json", to_dict(config))

    def check_space(self, state_bytes: int) -> None:
        """Checks that the disk has space for a checkpoint of `state_bytes`.

        Raises:
          ValueError: if it has less, before anything is compiled.
        """
        if remote_workdir.is_remote(self.path):
            return  # a bucket has no limit
        # Process 0 makes the folder; another process may be here before it.
        there = next(folder for folder in (self.path, *self.path.parents) if folder.is_dir())
        free = shutil.disk_usage(there).free
        if free < state_bytes:
            raise ValueError(
                f"--workdir={self.path}: a checkpoint of this run takes up to {state_bytes / 2**20:,.0f} MiB, and "
                f"{free / 2**20:,.0f} MiB are free; make room, or give a --workdir on another disk"
            )

    def append(self, values: dict, *, file: str = "metrics.jsonl") -> None:
        """Appends one line to a JSONL file."""
        if self.is_writer:
            with open(self.path / file, "a", encoding="utf-8") as out:
                out.write(json_text(values) + "\n")

    def write_json(self, name: str, values: dict, indent: int | None = 2) -> None:
        """Writes a JSON file, atomically."""
        if self.is_writer:
            with atomically(self.path / name) as temporary:
                temporary.write_text(json_text(values, indent) + "\n", encoding="utf-8")

    def write_arrays(self, name: str, values: dict[str, np.ndarray]) -> None:
        """Writes an `.npz` file, atomically."""
        if self.is_writer:
            with atomically(self.path / name) as temporary:
                np.savez_compressed(temporary, **values)

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        if self.is_writer:
            (self.path / name).unlink(missing_ok=True)

    def push(self) -> None:
        """Copies what is new to the run's bucket, if it has one; prints a failure, and the next push tries again."""
        if self.is_writer:
            try:
                remote_workdir.push(self.run)
            except OSError as error:
                print(f"{error}; the run goes on, and tries again later", file=sys.stderr, flush=True)

    def remove_after(self, step: int, *, file: str = "metrics.jsonl") -> list[int]:
        """Removes the lines of steps after `step`, which a resumed run writes again; returns these steps.

        Raises:
          ValueError: as `read_lines` does.
        """
        path = self.path / file
        if not self.is_writer or not path.exists():
            return []
        rows = read_lines(path, {"step": int})
        with atomically(path) as temporary:
            kept = "".join(json_text(row) + "\n" for row in rows if row["step"] <= step)
            temporary.write_text(kept, encoding="utf-8")
        return [row["step"] for row in rows if row["step"] > step]

    def write_rollouts(self, step: int, groups: Iterable[dict]) -> None:
        """Writes a line for each group, from `rollouts.describe_groups`."""
        if not self.is_writer:
            return
        path = self.path / "rollouts" / f"step_{step:06d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        with open(path, "w", encoding="utf-8") as out:
            out.writelines(json_text(group) + "\n" for group in groups)


def run_of(folder: Path) -> Path:
    """Returns the folder of the run of which a folder is a part; else the folder."""
    real = folder.resolve()
    return real.parent if real.name == WARM_START_FOLDER else folder


def is_kept_model(path: Path) -> bool:
    """Returns whether a path is the folder of a workdir that keeps a model's settings and tokenizer alone."""
    return path.name == "model" and (path.parent / "config.json").is_file() and not any(path.glob("*.safetensors"))


def provenance(config: Config, attention: str) -> dict:
    """Returns what is needed to repeat the run: versions, commit, seed, flags, devices, and the attention in use."""
    return {
        "command": sys.orig_argv,
        "seed": config.seed,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "devices": [str(device) for device in jax.devices()],
        "attention": attention,
        "processes": jax.process_count(),
    }


def versions() -> dict[str, str | None]:
    """Returns the versions of `PACKAGES`; None for one that is not installed."""
    return {name: _version(name) for name in PACKAGES}


def host_rss_mib() -> float:
    """Returns the resident memory of this process in MiB."""
    return psutil.Process().memory_info().rss / 2**20


def host_rss_peak_mib() -> float:
    """Returns the largest resident memory that this process has had, in MiB."""
    # In KiB on Linux, in bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def as_json(value: Any) -> Any:
    """Returns a NamedTuple or dataclass as a dict."""
    return value._asdict() if hasattr(value, "_asdict") else dataclasses.asdict(value)


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit():
    folder = Path(__file__).resolve().parent
    git = subprocess.run(["git", "-C", folder, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return git.stdout.strip() or None
