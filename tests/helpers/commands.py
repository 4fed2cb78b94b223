"""Commands of the package in processes of their own, as fast as they can start: forks of one that has the imports.

The imports take seconds, and are the same for all. A fork has another program name, environment and folder, and no
device yet; all else is as in `python -m MODULE`.
"""

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Seconds after which a process that has not ended is taken to hang.
HANGS = 600

# Reads one command per line. One fork runs it; another one waits for it and writes its number and its exit code.
SERVER = """
import gc, json, os, runpy, signal, sys
import matplotlib.pyplot, jax, nft_jax.evaluate, nft_jax.train

def write(path, value):
    with open(f"{path}.partial", "w") as out:
        out.write(str(value))
    os.rename(f"{path}.partial", path)

def become(words, environment, folder, out, err):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for path, numbers in ((os.devnull, [0]), (out, [1]), (err, [2])):
        opened = os.open(path, os.O_RDONLY if numbers == [0] else os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in numbers:
            os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for path in reversed(environment.get("PYTHONPATH", "").split(os.pathsep)):
        if path and path not in sys.path:
            sys.path.insert(1, path)
    jax.config.update("jax_platforms", environment.get("JAX_PLATFORMS") or None)
    is_script = words[0].endswith(".py")
    sys.argv = list(words)
    sys.orig_argv = [sys.executable, *([] if is_script else ["-m"]), *words]
    sys.modules.pop(words[0], None)
    if is_script:
        runpy.run_path(words[0], run_name="__main__")
    else:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    sys.exit(0)

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
# Neither a fork's collector nor its end then writes into the pages that it shares.
gc.collect()
gc.freeze()
for line in sys.stdin:
    path, *command = json.loads(line)
    if os.fork():
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        become(*command)
    write(f"{path}.pid", pid)
    write(f"{path}.code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)
"""


class Process:
    """A started command: what it printed, and how it ended.

    Args:
      path: Beside it are the files of its output, number and exit code.
    """

    def __init__(self, path: Path):
        self.path = path

    @property
    def printed(self) -> str:
        """The output by now, but for that on stderr where it has a file of its own."""
        return self.read("log")

    @property
    def pid(self) -> int:
        return int(self._read_when_written("pid"))

    @property
    def running(self) -> bool:
        return not self._file("code").exists()

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def code(self) -> int:
        """Waits for the end of the process and returns its exit code."""
        return int(self._read_when_written("code"))

    def read(self, kind: str) -> str:
        """What one of its files holds by now."""
        return self._file(kind).read_text() if self._file(kind).exists() else ""

    def _file(self, kind):
        return self.path.with_name(f"{self.path.name}.{kind}")

    def _read_when_written(self, kind):
        deadline = time.monotonic() + HANGS
        while not self._file(kind).exists():
            assert time.monotonic() < deadline, f"{self.path} hangs:\n{self.printed}"
            time.sleep(0.01)
        return self.read(kind)


def start(
    path: Path, words: Sequence[Any], environment: Mapping[str, str] | None = None, *, separate: bool = False
) -> Process:
    """Starts a command; `words` are a module or a script, and its arguments.

    Args:
      path: Where its output goes, with a suffix.
      environment: All of it; None: that of this process.
      separate: Whether stderr goes to a file of its own.
    """
    for kind in ("log", "err", "pid", "code"):  # of an earlier one
        Path(f"{path}.{kind}").unlink(missing_ok=True)
    files = [f"{path}.log", f"{path}.{'err' if separate else 'log'}"]
    command = [str(path), list(map(str, words)), dict(os.environ if environment is None else environment), str(ROOT)]
    _server().stdin.write(json.dumps([*command, *files]) + "\n")
    _server().stdin.flush()
    return Process(path)


def run(*words: Any, **changes: str) -> subprocess.CompletedProcess:
    """Runs a command to its end, with a changed environment."""
    with tempfile.TemporaryDirectory() as folder:
        process = start(Path(folder) / "command", words, os.environ | changes, separate=True)
        return subprocess.CompletedProcess(words, process.code(), process.read("log"), process.read("err"))


@functools.cache
def _server() -> subprocess.Popen:
    """The process with the imports; it ends with this one."""
    server = subprocess.Popen([sys.executable, "-c", SERVER], cwd=ROOT, stdin=subprocess.PIPE, text=True)
    atexit.register(server.communicate)
    return server
