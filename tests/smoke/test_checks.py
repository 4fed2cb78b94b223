"""The checks that need devices, and how a check that fails or hangs ends."""

import json
import subprocess
import sys
from pathlib import Path

import jax

from helpers.experiments import small
from nft_jax.run import hardware_notes
from nft_jax.smoke import checks
from nft_jax.smoke.result import CheckFailure

ROOT = Path(__file__).parents[2]


def test_check_hosts_finds_all_devices():
    assert checks.check_hosts() == "1 × 8 cpu, which sum correctly"


def test_check_parts_notes_what_passed_for_the_kind_of_device(experiment, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("NFT_JAX_CACHE", str(tmp_path))
    for graded, noted in ((False, None), (True, {"shards": 4, "tensor": 2})):
        checker = lambda name, check, graded=graded: name == "loops" or graded  # noqa: E731
        checks.check_parts(checker, experiment)
        found = hardware_notes.read_note("cpu", hardware_notes.DIVERGING)
        assert found is None if noted is None else noted.items() <= found.items()
    assert "rollout.lockstep=auto" in capsys.readouterr().out


def test_fit_devices_chooses_the_tensor_axis_and_the_prompts(monkeypatch):
    for count, here, tensor in ((1, 1, 1), (2, 2, 1), (4, 4, 2), (8, 8, 4), (64, 4, 4), (6, 3, 1)):
        monkeypatch.setattr(jax, "device_count", lambda count=count: count)
        monkeypatch.setattr(jax, "local_device_count", lambda here=here: here)
        config = checks.fit_devices(small(prompts_per_step=16))
        assert (config.mesh.tensor, config.prompts_per_step) == (tensor, 8 * count // tensor)


def test_checker_writes_a_failure_and_runs_the_next_check(tmp_path, capsys):
    checker = checks.Checker(tmp_path / "results.jsonl", 60)

    def wrong():
        raise CheckFailure("two and two")

    def broken():
        raise OSError("no disk")

    assert [checker("one", lambda: "fine"), checker("two", wrong), checker("three", broken)] == [True, False, False]
    assert not checker.passed
    rows = [json.loads(row) for row in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row.get("message") for row in rows] == [None, "fine", None, "two and two", None, "OSError: no disk"]
    assert [row["started"] for row in rows[::2]] == ["one", "two", "three"]
    assert capsys.readouterr().out.splitlines()[1].startswith("FAILED two")


def test_checker_ends_a_check_that_hangs_with_its_stack(tmp_path):
    program = """
import sys, time
from pathlib import Path
from nft_jax.smoke.checks import Checker
def sits_there():
    time.sleep(3600)
Checker(Path(sys.argv[1]), 1)("hangs", sits_there)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "results.jsonl")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 1
    assert "in sits_there" in ran.stderr
    assert (tmp_path / "results.jsonl").read_text() == '{"started": "hangs"}\n'
