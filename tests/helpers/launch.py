"""A folder of stand-ins for the programs that launch scripts call; each records how it is called."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "launch").rglob("*.sh"))
NAMES = [str(script.relative_to(ROOT)) for script in SCRIPTS]
RECORDED = ("gcloud", "kubectl", "sbatch", "srun", "scontrol", "python", "ruff", "sudo", "nohup", "setsid")
# Writes its words as one line of JSON, keeps its files and standard input, and ends with the next given exit code.
STUB = """#!/usr/bin/env bash
name="$(basename "$0")"
"$STUB_PYTHON" -I -S "$STUB_FOLDER/record.py" "$STUB_FOLDER" "$name" "$@"
cat "$STUB_FOLDER/says.$name" 2>/dev/null
code="$(head -n 1 "$STUB_FOLDER/codes.$name" 2>/dev/null)"
sed -i 1d "$STUB_FOLDER/codes.$name" 2>/dev/null
exit "${code:-0}"
"""
RECORD = """
import json, os, select, sys
folder, *words = sys.argv[1:]
kept = {}
for word in words:
    path = word.rpartition("=")[2]
    if os.path.isfile(path) and path.endswith((".sh", "token")):
        kept[path] = open(path).read() + f"mode {os.stat(path).st_mode & 0o777:o}"
given = sys.stdin.read() if words[0] == "kubectl" else ""
names = [name for name in os.environ if name.startswith(("NFT_JAX", "JAX", "XLA_FLAGS", "LIBTPU"))]
call = {"words": words, "files": kept, "input": given, "environment": {name: os.environ[name] for name in names}}
with open(os.path.join(folder, "calls.jsonl"), "a") as out:
    out.write(json.dumps(call) + "\\n")
"""
SLICE = ("--name=pod", "--zone=us-west4-a")
RUN = ("--config=tiny", "--workdir=gs://bucket/runs/one", "--config.data.train=a file's, name")
# The words that each script needs.
WORDS = {
    "launch/local_processes.sh": ("2", *RUN),
    "launch/gke/run.sh": (
        *("--name=run", "--image=eu/repo/nft:1", "--accelerator=tpu-v5-lite-podslice", "--topology=8x8"),
        *RUN,
    ),
    "launch/gpus.sh": RUN,
    "launch/gpu_bench.sh": ("--tiny", "--vllm_python=python3", "--smollm2=smollm2", "--config.seed=3"),
    "launch/slurm.sh": RUN,
    "launch/tpu/create.sh": (*SLICE, "--type=v5litepod-64"),
    "launch/tpu/queue.sh": (*SLICE, "--type=v5litepod-64", *RUN),
    "launch/tpu/run.sh": (*SLICE, *RUN),
    "launch/tpu/smoke.sh": (*SLICE, "--workdir=gs://bucket/smoke"),
    "launch/tpu/startup.sh": (),
    "launch/tpu/worker.sh": RUN,
} | {f"launch/tpu/{name}.sh": SLICE for name in ("setup", "logs", "stop", "delete")}


class Stand:
    """A folder whose `bin` comes first in PATH, with a stand-in for every program that a script could reach."""

    def __init__(self, folder: Path):
        self.folder, self.venv = folder, folder / "venv"
        for place in (folder / "bin", self.venv / "bin"):
            place.mkdir(parents=True)
        (folder / "record.py").write_text(RECORD)
        for name in RECORDED:
            self.add(folder / "bin" / name)
        # An environment that is there already: nothing is installed.
        requirements = subprocess.run(["cksum"], input=(ROOT / "setup.py").read_bytes(), capture_output=True)
        (self.venv / ".installed").write_text(f"any {requirements.stdout.decode()}")
        own = ("JAX", "NFT_JAX", "XLA", "LIBTPU", "SLURM")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        self.environment = kept | {
            "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
            "STUB_PYTHON": sys.executable,
            "STUB_FOLDER": str(folder),
            "VENV": str(self.venv),
            "EXTRAS": "any",
            "PAUSE": "0",
            "EVERY": "0",
            "TMPDIR": str(folder),
        }
        self.environment.pop("HF_TOKEN", None)

    def add(self, path: Path, text: str = STUB) -> None:
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def ends(self, name: str, *codes: int) -> None:
        """The exit codes of the next calls of a program."""
        (self.folder / f"codes.{name}").write_text("".join(f"{code}\n" for code in codes))

    def says(self, name: str, text: str) -> None:
        (self.folder / f"says.{name}").write_text(text)

    def script(self, name: str, *words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
        command = ["bash", str(ROOT / name), *words]
        environment = self.environment | environment
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)

    def starts(self, name: str, *words: str, **environment: str) -> subprocess.Popen:
        command = ["bash", str(ROOT / name), *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        # A job in the background ignores Ctrl-C, as these tests may be one; and no shell can change that for itself.
        heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
        environment = self.environment | environment
        return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes, **heard)

    @property
    def records(self) -> list[dict[str, Any]]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def calls(self) -> list[list[str]]:
        return [record["words"] for record in self.records]


def option(words: list[str], name: str) -> str:
    """The value of `--name=…`, of which there is one."""
    (value,) = [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]
    return value


def worker_folder(stand: Stand) -> Path:
    """A copy of the scripts, which write their log, lock and number beside them, with an environment."""
    copy = stand.folder / "nft_jax"
    shutil.copytree(ROOT / "launch", copy / "launch")
    shutil.copy(ROOT / "setup.py", copy)
    return copy


SLEEPS = """#!/usr/bin/env bash
trap 'echo "$1 TERM" >>"{folder}/signals"; exit 75' TERM
trap 'echo "$1 INT" >>"{folder}/signals"; exit 75' INT
echo started >>"{folder}/started"
for _ in $(seq 600); do sleep 0.05; done
"""


def until(so, process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + 120
    while not so():
        assert time.monotonic() < deadline and (process is None or process.poll() is None), so
        time.sleep(0.02)
