"""launch/tpu: what the scripts on this machine have gcloud do. Stand-ins record how programs are called."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.launch import NAMES, ROOT, RUN, SLICE, WORDS, option


@pytest.mark.parametrize(
    ("type_", "version"),
    [
        ("v5litepod-64", "v2-alpha-tpuv5-lite"),
        ("v5p-128", "v2-alpha-tpuv5"),
        ("v6e-64", "v2-alpha-tpuv6e"),
        ("v4-128", "tpu-ubuntu2204-base"),
    ],
)
def test_create_takes_the_runtime_of_the_type(stand, type_, version):
    words = ("--project=mine", f"--type={type_}", "--spot", "--", "--network=quiet")
    assert stand.script("launch/tpu/create.sh", *SLICE, *words).returncode == 0
    where = ["pod", "--zone=us-west4-a", "--project=mine"]
    what = [f"--accelerator-type={type_}", f"--version={version}", "--spot", "--network=quiet"]
    assert stand.calls == [["gcloud", "compute", "tpus", "tpu-vm", "create", *where, *what]]


def test_create_refuses_unknown_types_and_two_ways_to_pay(stand):
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
def test_worker_and_dockerfile_install_what_reads_a_bucket(place):
    extras = re.search(r"(?:use_environment |\.\[)(tpu[\w,]*)", (ROOT / place).read_text())[1].split(",")
    assert {"gcs", "data", "isolation"} <= set(extras)


def test_setup_packs_what_a_worker_needs(stand, tmp_path):
    """The very archive that is copied."""
    keep = f'#!/usr/bin/env bash\n[ "$4" != scp ] || cp "$5" {tmp_path}/kept.tar.gz\n'
    stand.add(tmp_path / "bin" / "gcloud", keep)
    assert stand.script("launch/tpu/setup.sh", *SLICE).returncode == 0
    listed = subprocess.run(["tar", "-tzf", tmp_path / "kept.tar.gz"], capture_output=True, text=True).stdout.split()
    assert {"./setup.py", "./nft_jax/train.py", "./configs/tiny.py", "./launch/tpu/worker.sh"} <= set(listed)
    assert not [path for path in listed if path.startswith(("./.git/", "./.venv", "./runs/")) or "__pycache__" in path]


@pytest.mark.parametrize("slices", [1, 2])
def test_run_starts_on_all_workers_with_the_same_flags(stand, slices):
    words = (*SLICE, f"--slices={slices}", *RUN)
    assert stand.script("launch/tpu/run.sh", *words, LIBTPU_INIT_ARGS="--a --b").returncode == 0
    (call,) = stand.calls
    assert "--worker=all" in call
    there = shlex.split(option(call, "--command"))
    assert there[:4] == ["env", "LIBTPU_INIT_ARGS=--a --b", "bash", "nft_jax/launch/tpu/worker.sh"]
    assert there[4:] == ["--background", "--module=nft_jax.train", "--", *RUN]


def test_logs_stop_and_delete_call_gcloud(stand):
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
def test_queue_puts_code_and_flags_into_the_startup_script(stand, tmp_path, slices):
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


def test_queue_refuses_a_workdir_on_the_slice(stand):
    ran = stand.script("launch/tpu/queue.sh", *SLICE, "--type=v6e-8", "--config=tiny", "--workdir=runs/x")
    assert (ran.returncode, stand.calls) == (2, [])
    assert "gs://" in ran.stderr


def test_queue_keep_creates_a_slice_again_until_there_is_a_result(stand):
    stand.says("gcloud", "SUSPENDED\n")
    # No result yet, copy, create; describe, no result yet, delete, create; describe, the result is there, delete.
    stand.ends("gcloud", 1, 0, 0, 0, 1, 0, 0, 0, 0, 0)
    ran = stand.script("launch/tpu/queue.sh", *SLICE, "--type=v6e-8", "--keep", *RUN)
    assert ran.returncode == 0, ran.stderr
    done = [call[4] if call[1] == "compute" else call[2] for call in stand.calls]
    assert done == ["ls", "cp", "create", "describe", "ls", "delete", "create", "describe", "ls", "delete"]
    assert stand.calls[2] == stand.calls[6]
    assert "--force" in stand.calls[5] and "--quiet" in stand.calls[5]


def test_queue_keep_refuses_a_run_that_has_a_result(stand):
    ran = stand.script("launch/tpu/queue.sh", *SLICE, "--type=v6e-8", "--keep", *RUN)
    assert (ran.returncode, len(stand.calls)) == (2, 1)
    assert "result.json exists already" in ran.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcloud") is None, reason="needs Google's SDK, to ask whether it knows our flags")
def test_gcloud_knows_every_flag_of_the_tpu_scripts(stand, tmp_path):
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
        printed = stand.script(script, "--dry-run", *words, *WORDS[script], HF_TOKEN="x").stdout
        lines += [line for line in printed.splitlines() if line.startswith("gcloud")]
    lines = sorted({re.sub(r"/[^\s=]*/tmp\.\w+", "/tmp", line) for line in lines})
    assert len(lines) > 20
    environment = os.environ | {"CLOUDSDK_CONFIG": str(tmp_path)}
    for line in lines:
        command = ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={line}"]
        (found,) = json.loads(subprocess.run(command, env=environment, capture_output=True, text=True).stdout)
        assert found["success"], found["error_message"]
