"""Whole runs for tests: `train.main` in this process, and `python -m nft_jax.train` in one that can be killed."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp
import psutil
import pytest

from helpers.experiments import compilations
from nft_jax import train
from nft_jax.config import Config, resolved

ROOT = Path(__file__).parents[2]
# What differs between two runs of the same steps: the clock's numbers and the machine's.
MEASURED = {"seconds", "tokens_per_second", "compile_seconds", "host_rss_mib"}
# Seconds after which a process that has not done what it should is taken to hang.
HANGS = 240


class Ran(NamedTuple):
    """A run's folder as a call of `main` left it, what that call printed, and what it compiled once it had begun."""

    path: Path
    printed: str = ""
    compiled: list | None = None

    def rows(self, name: str) -> list[dict]:
        return [json.loads(row, parse_constant=refuse) for row in (self.path / name).read_text().splitlines()]

    def json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text(), parse_constant=refuse)

    def checkpoint(self, step: int) -> Any:
        """Everything that was saved, as NumPy arrays."""
        parts = {"weights": ocp.args.StandardRestore(), "rest": ocp.args.StandardRestore()}
        with ocp.CheckpointManager(self.path / "checkpoints") as manager:
            return dict(manager.restore(step, args=ocp.args.Composite(**parts)))

    @property
    def steps(self) -> list[int]:
        """The steps in `metrics.jsonl` by now; a run that is under way may be in the midst of a line."""
        path = self.path / "metrics.jsonl"
        whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
        return [json.loads(row)["step"] for row in whole.splitlines()]


def refuse(constant: str):
    raise ValueError(f"{constant} is no JSON")


def untimed(rows: list[dict]) -> list[dict]:
    assert all(row.keys() >= MEASURED | {"grading_seconds"} for row in rows)
    return [{name: row[name] for name in row.keys() - MEASURED - {"grading_seconds"}} for row in rows]


def run(config: Config, folder: Path, snapshot: Path, **replaced: Any) -> Ran:
    """Trains in `folder`, some names of `nft_jax.train` replaced, and keeps a copy of the folder as it was then."""
    compiled: list = []
    proper = train.Trainer.run

    def watched(trainer, stopper):
        with compilations() as seen:
            proper(trainer, stopper)
        compiled.extend(seen)

    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(train.Trainer, "run", watched)
        for name, value in replaced.items():
            patch.setattr(train, name, value)
        train.main(config, folder)
    shutil.copytree(folder, snapshot)
    return Ran(snapshot, printed.getvalue(), compiled)


class Process:
    """`python -m nft_jax.train` in `workdir`, with the graders of `folder`; `run` is what it writes."""

    def __init__(self, config: Config, workdir: Path, folder: Path):
        self.run, self.log = Ran(workdir), workdir.with_name(f"{workdir.name}.log")
        file = workdir.with_name(f"{workdir.name}.json")
        file.write_text(json.dumps(resolved(config)))
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{folder}"}
        command = [sys.executable, "-m", "nft_jax.train", f"--config={file}", f"--workdir={workdir}"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        """All that it has printed by now."""
        return self.log.read_text()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Waits until something is so; False when the process has ended before."""
        deadline = time.monotonic() + HANGS
        while not until():
            if not self.running:
                return False
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)
        return True

    def end(self, number: signal.Signals | None = None) -> int:
        """Sends a signal, if any, and gives the exit code when it and all that it had started have ended."""
        children = []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(HANGS)
        _, alive = psutil.wait_procs(children, timeout=30)
        assert alive == []
        return code
