"""Whole runs for tests: `train.main` in this process, and `nft_jax.train` in another process that can be killed."""

import contextlib
import io
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orbax.checkpoint as ocp
import psutil
import pytest

from helpers import commands
from helpers.commands import ROOT
from helpers.experiments import compilations
from nft_jax import train
from nft_jax.config import Config, to_dict

# Metrics that differ between two runs of the same steps.
MEASURED = {"seconds", "tokens_per_second", "compile_seconds", "host_rss_mib", "host_rss_peak_mib"}


class Ran(NamedTuple):
    """The folder of a run after a call of `main`, the output of that call, and what it compiled during the steps."""

    path: Path
    printed: str = ""
    compiled: list | None = None

    def rows(self, name: str) -> list[dict]:
        return [json.loads(row, parse_constant=refuse) for row in (self.path / name).read_text().splitlines()]

    def json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text(), parse_constant=refuse)

    def checkpoint(self, step: int) -> Any:
        """The checkpoint of a step, as NumPy arrays."""
        parts = {"weights": ocp.args.StandardRestore(), "rest": ocp.args.StandardRestore()}
        with ocp.CheckpointManager(self.path / "checkpoints") as manager:
            return dict(manager.restore(step, args=ocp.args.Composite(**parts)))

    @property
    def steps(self) -> list[int]:
        """The steps in `metrics.jsonl` by now; the last line of a running run may be incomplete."""
        path = self.path / "metrics.jsonl"
        whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
        return [json.loads(row)["step"] for row in whole.splitlines()]


def refuse(constant: str):
    raise ValueError(f"{constant} is no JSON")


def untimed(rows: list[dict]) -> list[dict]:
    assert all(row.keys() >= MEASURED | {"grading_seconds"} for row in rows)
    return [{name: row[name] for name in row.keys() - MEASURED - {"grading_seconds"}} for row in rows]


def run(config: Config, folder: Path, snapshot: Path, **replaced: Any) -> Ran:
    """Trains in `folder`, with some names of `nft_jax.train` replaced, and copies the folder to `snapshot`."""
    compiled: list = []
    proper = train.Trainer.run

    def watched(trainer, stop_signal):
        with compilations() as seen:
            proper(trainer, stop_signal)
        compiled.extend(seen)

    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(train.Trainer, "run", watched)
        for name, value in replaced.items():
            patch.setattr(train, name, value)
        train.main(config, folder)
    shutil.copytree(folder, snapshot)
    return Ran(snapshot, printed.getvalue(), compiled)


def environment(folder: Path) -> dict[str, str]:
    """Returns the environment of a process that finds the package, and the graders of `folder`."""
    return os.environ | {"PYTHONPATH": f"{ROOT}:{folder}"}


class Around:
    """A compiled program that calls `before(number, state)` first, and takes the state that this returns."""

    def __init__(self, program: Any, before: Callable[[int, Any], Any]):
        self.program, self.before, self.calls = program, before, 0

    def __call__(self, state: Any, *inputs: Any) -> Any:
        self.calls += 1
        return self.program(self.before(self.calls, state), *inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.program, name)


class Command:
    """`nft_jax.PROGRAM` in `workdir`, with the graders of `folder`; `run` is its workdir."""

    def __init__(self, config: Config, workdir: Path, folder: Path, program: str = "train"):
        self.run = Ran(workdir)
        file = workdir.with_name(f"{workdir.name}.json")
        file.write_text(json.dumps(to_dict(config)))
        words = [f"nft_jax.{program}", f"--config={file}", f"--workdir={workdir}"]
        self.process = commands.start(workdir, words, environment(folder))

    @property
    def printed(self) -> str:
        """The output by now."""
        return self.process.printed

    def wait(self, until: Callable[[], bool] = lambda: False) -> bool:
        """Waits for a condition; returns False if the process ends before."""
        deadline = time.monotonic() + commands.HANGS
        while not until():
            if not self.process.running:
                return False
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.01)
        return True

    def end(self, number: signal.Signals | None = None, then: Callable[[], Any] = lambda: None) -> int:
        """Sends a signal, if any, waits until the process and its children have ended, and returns the exit code.

        `then` is called when the signal is sent.
        """
        children = []
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
        if number is not None:
            self.process.kill(number)
        then()
        code = self.process.code()
        _, alive = psutil.wait_procs(children, timeout=120)
        assert alive == []
        return code
