"""Several processes of one program on this machine; they are forks of one process, because the imports take seconds."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Seconds after which a process that has not ended is taken to hang.
HANGS = 180

# Reads one command per line. One fork runs the command; another one waits for it and writes its exit code.
FORKS = """
import json, os, runpy, signal, sys
import matplotlib.pyplot, nft_jax.train, nft_jax.evaluate

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
for line in sys.stdin:
    words, environment, path = json.loads(line)
    if os.fork():
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        log = os.open(f"{path}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(environment)
        sys.argv = words
        run = runpy.run_path if words[0].endswith(".py") else runpy.run_module
        run(words[0], run_name="__main__", **({} if words[0].endswith(".py") else {"alter_sys": True}))
        sys.exit(0)
    for kind, value in (("pid", pid), ("code", None)):
        value = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if value is None else value
        with open(f"{path}.partial", "w") as out:
            out.write(str(value))
        os.rename(f"{path}.partial", f"{path}.{kind}")
    os._exit(0)
"""


def free_port() -> int:
    """Returns a free port of the loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Process:
    """A started process: what it printed, and how it ended."""

    def __init__(self, path: Path):
        self.path = path

    @property
    def printed(self) -> str:
        log = self.path.with_name(f"{self.path.name}.log")
        return log.read_text() if log.exists() else ""

    @property
    def pid(self) -> int:
        return int(self._read_when_written("pid"))

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    @property
    def running(self) -> bool:
        return not self.path.with_name(f"{self.path.name}.code").exists()

    def code(self) -> int:
        """Waits for the end of the process and returns its exit code."""
        return int(self._read_when_written("code"))

    def _read_when_written(self, kind):
        file = self.path.with_name(f"{self.path.name}.{kind}")
        deadline = time.monotonic() + HANGS
        while not file.exists():
            assert time.monotonic() < deadline, f"{self.path} hangs:\n{self.printed}"
            time.sleep(0.01)
        return file.read_text()


class Processes:
    """Starts processes of one program; leaving the context ends those that still run."""

    def __init__(self, folder: Path):
        self.folder, self.started = folder, []
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{folder}", "PYTHONWARNINGS": "ignore"}
        self.parent = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Processes":
        assert self.parent.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            if process.running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        self.parent.stdin.close()
        self.parent.wait(HANGS)
        self.parent.stdout.close()

    def one(self, words: Sequence[str], devices: int = 1, **environment: str) -> Process:
        """Starts one process; `words` are a module or a script, and its arguments."""
        process = Process(self.folder / f"process_{len(self.started)}")
        flags = os.environ.get("XLA_FLAGS", "").replace("device_count=8", f"device_count={devices}")
        command = [list(map(str, words)), {"XLA_FLAGS": flags} | environment, str(process.path)]
        self.parent.stdin.write(json.dumps(command) + "\n")
        self.parent.stdin.flush()
        self.started.append(process)
        return process

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
