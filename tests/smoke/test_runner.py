"""The smoke test with stand-ins for its child processes, and as a command."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nft_jax.run.metrics import format_progress
from nft_jax.smoke import __main__ as smoke
from nft_jax.smoke import runner

ROOT = Path(__file__).parents[2]


# What stands in for `python` as it runs the children.
PYTHON = """#!{python} -IS
import json, os, re, signal, sys, time
here = os.path.dirname(os.path.abspath(__file__))
words = sys.argv[1:]
module = words[words.index("-m") + 1]
with open(os.path.join(here, "calls.jsonl"), "a") as out:
    out.write(json.dumps(words) + "\\n")
fate = json.load(open(os.path.join(here, "fate.json")))
results = [word[len("--results="):] for word in words if word.startswith("--results=")]
if results:
    with open(results[0], "w") as out:
        for row in fate["rows"]:
            out.write(json.dumps(row) + "\\n")
    sys.exit(fate.get("code", 0))
count = len(open(os.path.join(here, "calls.jsonl")).readlines())
for line in fate["train"][count - 2]:
    if line == "hangs":
        time.sleep(60)
    print(line, flush=True)
    time.sleep(0.05)
"""
FACTS = {"process": 0, "processes": 1, "devices": 8, "kind": "cpu", "tensor": 2, "prompts": 32, "stamp": 7}
ROWS = [
    {"started": "hosts"},
    {"check": "hosts", "passed": True, "seconds": 1.0, "message": "there"},
    {"facts": FACTS},
]
NUMBERS = {"tokens_per_second": 9.0, "seconds": 1.0, "updates_nonfinite": 0, "updates_taken": 1}


def line(step, reward, width=None):
    """Returns the line that a run prints after a step, into a pipe or a terminal of that width."""
    return format_progress(step, 5, NUMBERS | {"reward": reward}, {"reward": "reward {:.3f}"}, 1.0, width)


STEPS = [line(1, 0.1), line(2, 0.2, 80), line(3, 0.3)]


@pytest.fixture
def tested(tmp_path, monkeypatch, capfd):
    """Runs the smoke test with children that do as `fate` says: exit code, `smoke.json`, calls, what was printed."""

    def run(seconds=30, late=10.0, **fate):
        (tmp_path / "python").write_text(PYTHON.format(python=sys.executable))
        (tmp_path / "python").chmod(0o755)
        (tmp_path / "fate.json").write_text(json.dumps({"rows": ROWS, "train": [[*STEPS, "hangs"], []]} | fate))
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        check_devices = runner.SmokeTest.check_devices

        def check_devices_in_time(test):
            check_devices(test)
            monkeypatch.setattr(runner, "GRACE_SECONDS", late)

        monkeypatch.setattr(runner.SmokeTest, "check_devices", check_devices_in_time)
        words = [f"--workdir={tmp_path}/work", f"--seconds={seconds}", "--distributed=auto"]
        monkeypatch.setattr(sys, "argv", ["smoke", *words])
        code = smoke.main()
        path = tmp_path / "work" / "smoke.json"
        calls = [json.loads(row) for row in (tmp_path / "calls.jsonl").read_text().splitlines()]
        return code, json.loads(path.read_text()) if path.exists() else None, calls, capfd.readouterr()

    return run


def test_smoke_kills_a_run_and_resumes_it_by_the_same_command(tested, tmp_path):
    code, found, calls, printed = tested(
        train=[[*STEPS, "hangs"], ["resumed from step 2 in there", STEPS[2], line(4, 0.7)]]
    )
    assert (code, found["passed"]) == (0, True)
    assert [row["check"] for row in found["checks"]] == ["hosts", "three steps", "resume"]
    assert found["kind"] == "cpu"
    first, second = calls[1:]
    assert first == second
    assert "--distributed=auto" in calls[0] and "--distributed=auto" in first
    assert first[first.index("-m") :][:3] == ["-m", "nft_jax.train", "--config=smoke"]
    given = {f"--workdir={tmp_path}/work/smoke_7", "--config.mesh.tensor=2", "--config.prompts_per_step=32"}
    assert given <= set(first)
    assert "8 × cpu, all checks passed" in printed.out


@pytest.mark.parametrize(
    ("fate", "check"),
    [
        ({"train": [STEPS[:2], []]}, "three steps"),
        ({"train": [[*STEPS, "hangs"], [line(4, 0.7)]]}, "resume"),
        ({"train": [[*STEPS, "hangs"], ["resumed from step 2", line(3, 0.9)]]}, "resume"),
        ({"rows": [*ROWS[:1], ROWS[1] | {"passed": False}], "code": 1}, "hosts"),
        ({"rows": [*ROWS, {"started": "loops"}], "code": 1}, "loops"),
        ({"rows": [], "code": 2}, "start"),
    ],
)
def test_smoke_names_what_fails_and_exits_with_code_1(tested, fate, check):
    code, found, _, printed = tested(**fate)
    assert (code, found["passed"]) == (1, False)
    assert next(row["check"] for row in found["checks"] if not row["passed"]) == check
    assert f"FAILED {check}" in printed.out


def test_smoke_ends_a_run_that_hangs_in_time(tested):
    began = time.monotonic()
    code, found, _, printed = tested(seconds=0, late=1.0, train=[[*STEPS[:1], "hangs"], []])
    assert code == 1 and time.monotonic() - began < 50
    assert "no end after 0 s" in printed.err
    assert [row["check"] for row in found["checks"] if not row["passed"]] == ["three steps"]


def test_smoke_reports_only_failures_on_other_hosts(tested):
    rows = [*ROWS[:2], {"facts": FACTS | {"process": 1}}]
    code, found, calls, printed = tested(rows=rows, train=[[], []])
    assert (code, found, len(calls)) == (0, None, 3)
    assert "resume" not in printed.out


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["-workdir", "here", "--config=tiny"], "--config=tiny: the smoke test has its own config; leave this out"),
        (["--workdir=a", "--workdir=b"], "--workdir is given twice: 'a' and 'b'"),
        ([], "--workdir=DIR is needed; on a slice, a folder that all hosts share"),
    ],
)
def test_smoke_refuses_words_before_it_starts_anything(words, fault, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["smoke", *words])
    assert smoke.main() == 2
    assert capsys.readouterr().err == f"error: {fault}\n"


def test_smoke_refuses_a_file_as_its_workdir(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").touch()
    for workdir, fault in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "in", "Not a directory")):
        monkeypatch.setattr(sys, "argv", ["smoke", f"--workdir={workdir}"])
        assert smoke.main() == 2
        assert capsys.readouterr().err == f"error: --workdir={workdir}: {fault}; give another folder\n"


@pytest.mark.slow
def test_smoke_command_on_eight_devices(tmp_path):
    environment = os.environ | {"NFT_JAX_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "nft_jax.smoke", f"--workdir={tmp_path / 'work'}"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "work" / "smoke.json").read_text())
    assert found["passed"]
    assert [row["check"] for row in found["checks"]] == ["hosts", "model", "loops", "verifier", "three steps", "resume"]
    noted = json.loads((tmp_path / "cache" / "executed" / "cpu.json").read_text())["diverging_loops"]
    assert (noted["shards"], noted["tensor"]) == (2, 4)


@pytest.mark.slow
def test_smoke_command_on_two_processes(tmp_path):
    environment = os.environ | {"NFT_JAX_CACHE": str(tmp_path / "cache"), "XLA_FLAGS": ""}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    script = ["bash", "launch/local_processes.sh", "2", "--devices=4", "--module=nft_jax.smoke"]
    command = [*script, f"--workdir={tmp_path / 'work'}"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "work" / "smoke.json").read_text())
    messages = {row["check"]: row["message"] for row in found["checks"]}
    assert found["passed"] and found["processes"] == 2
    assert messages["hosts"].startswith("2 × 4 cpu")
    assert "32 to 32 a host" in messages["verifier"]
