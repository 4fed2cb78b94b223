"""Several processes of one program on this machine."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from helpers.commands import HANGS, ROOT, Process, start

_given: set[int] = set()  # the ports that `free_port` has returned


def free_port() -> int:
    """Returns a free port of the loopback, each time another one: it stays free until its process listens there."""
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


class Processes:
    """Starts processes of one program; leaving the context ends those that still run."""

    def __init__(self, folder: Path):
        self.folder, self.started = folder, []

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            if process.running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def one(self, words: Sequence[str], devices: int = 1, **environment: str) -> Process:
        """Starts one process; `words` are a module or a script, and its arguments."""
        flags = os.environ.get("XLA_FLAGS", "").replace("device_count=8", f"device_count={devices}")
        paths = f"{ROOT}:{ROOT / 'tests'}:{self.folder}"
        given = os.environ | {"PYTHONPATH": paths, "XLA_FLAGS": flags} | environment
        self.started.append(start(self.folder / f"process_{len(self.started)}", words, given))
        return self.started[-1]

    def several(self, commands: Sequence[Sequence[str]], devices: int = 1) -> list[Process]:
        """Starts one process of each of `commands`, which find one another."""
        shared = {"NFT_JAX_DISTRIBUTED": f"127.0.0.1:{free_port()}", "NFT_JAX_PROCESSES": str(len(commands))}
        return [
            self.one(words, devices, **shared, NFT_JAX_PROCESS=str(process)) for process, words in enumerate(commands)
        ]

    def tasks(self, commands: Sequence[Sequence[str]]) -> list[Process]:
        """Starts one process of each of `commands`, as SLURM's `srun` does."""
        shared = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": str(len(commands))}
        shared |= {"JAX_COORDINATOR_PORT": str(free_port())}
        return [
            self.one(words, **shared, SLURM_PROCID=str(process), SLURM_LOCALID=str(process))
            for process, words in enumerate(commands)
        ]


def wait(until: Callable[[], bool], processes: Sequence[Process]) -> None:
    """Waits until `until()` is true; fails if one of the processes ends before."""
    deadline = time.monotonic() + HANGS
    while not until():
        output = "\n".join(f"{process.path}:\n{process.printed}" for process in processes)
        assert all(process.running for process in processes), output
        assert time.monotonic() < deadline, output
        time.sleep(0.01)
