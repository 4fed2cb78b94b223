"""The smoke test: its checks on eight simulated devices, what makes each of them fail, and that no hang is silent."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers.experiments import open_on_mesh, small
from nft_jax.models import attention_backends
from nft_jax.models.attention import decode_attention
from nft_jax.models.sharded import ShardedModel
from nft_jax.rollout.state import Round
from nft_jax.run import hardware_notes
from nft_jax.smoke import __main__ as smoke
from nft_jax.smoke import checks, kernels, loops
from nft_jax.smoke.loops import Failed
from nft_jax.types import Rollout

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    config = small(mesh__data=4, mesh__tensor=2, prompts_per_step=16, rollout__slots=4)
    experiment = open_on_mesh(config, tmp_path_factory.mktemp("smoke"))
    yield experiment
    experiment.verifier.pool.close()


def test_all_hosts_are_there():
    assert checks.hosts() == "1 × 8 cpu, which add up"


def test_loops_that_diverge_give_the_answers_of_loops_in_step(experiment):
    said = loops.same_answers(experiment)
    assert said.startswith("4 shards, ")
    fewest, most = (int(word) for word in said.split() if word.isdigit() and word != "4")
    assert fewest < most / 2


def test_lengths_differ_by_shard_and_never_reach_the_limit(experiment):
    length_B = loops.Workload(experiment).length_B
    by_shard = length_B.reshape(4, -1)
    assert by_shard.min() == 1 and by_shard.max() < experiment.config.rollout.max_answer_tokens
    assert np.all(np.diff(by_shard.max(axis=1)) > 0)


def test_what_was_seen_is_noted_for_the_kind_of_device(experiment, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("NFT_JAX_CACHE", str(tmp_path))
    for graded, noted in ((False, None), (True, {"shards": 4, "tensor": 2})):
        checker = lambda name, check, graded=graded: name == "loops" or graded  # noqa: E731
        checks.check_parts(checker, experiment)
        found = hardware_notes.read_note("cpu", hardware_notes.DIVERGING)
        assert found is None if noted is None else noted.items() <= found.items()
    assert "rollout.lockstep=auto" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"token_BT": 1}, "other tokens"),
        ({"length_B": 1}, "lengths not as they should be"),
        ({"logp_BT": 1}, "log-probs up to 1"),
        ({"capacity_X": 0}, "nothing diverged"),
    ],
)
def test_answers_that_differ_and_loops_that_do_not_are_seen(experiment, monkeypatch, change, message):
    work = loops.Workload(experiment)
    B, T = work.Q * work.K, experiment.config.rollout.max_answer_tokens

    def sampler(work, lockstep):
        values = {name: 0 if lockstep else value for name, value in change.items()}
        rollout = Rollout(
            token_BT=np.full((B, T), values.get("token_BT", 0), np.int32),
            logp_BT=np.full((B, T), values.get("logp_BT", 0), np.float32),
            length_B=work.length_B + values.get("length_B", 0),
            truncated_B=np.zeros(B, bool),
        )
        capacity_X = (16 + 8 * np.arange(4) * values.get("capacity_X", 1)).astype(np.int32)
        return lambda weights, asked: Round(rollout, capacity_X, np.zeros(4, np.int32))

    monkeypatch.setattr(loops, "_sampler", sampler)
    monkeypatch.setattr(ShardedModel, "random_weights", lambda *_: None)
    if message is None:
        assert loops.same_answers(experiment) == "4 shards, 4 to 10 trips, the same answers in step and not"
    else:
        with pytest.raises(Failed, match=message):
            loops.same_answers(experiment)


def test_every_answer_is_graded_once(experiment):
    assert loops.graded_once(experiment).startswith("64 answers, each graded once a run, 64 to 64 a host")


@pytest.mark.parametrize(
    ("graded", "longer", "message"),
    [
        (lambda rows: [rows, rows[:1]], 0, r"more or less often 1, unknown ones 0"),
        (lambda rows: [rows[1:]], 0, r"more or less often 1, unknown ones 0"),
        (lambda rows: [rows], 1, r"wrong verdicts \[[1-9].* unknown ones [1-9]"),
    ],
)
def test_answers_that_are_graded_twice_never_or_as_others_are_seen(experiment, monkeypatch, graded, longer, message):
    def grading(work, grader):
        B, T = work.Q * work.K, experiment.config.rollout.max_answer_tokens

        def run(weights, asked, code_B):
            found_B = np.array(code_B)
            for rows in graded(np.arange(B)):
                shape = len(rows), T
                length_b = work.length_B[rows] + longer
                given = work.request_QK.reshape(-1)[rows], rows // work.K, np.zeros(shape, np.int32), length_b
                found_B[rows] = grader(np.zeros(1), *given, np.ones(len(rows), bool))[0]
            return np.sum(found_B != code_B)

        return run

    monkeypatch.setattr(loops, "_grading", grading)
    monkeypatch.setattr(ShardedModel, "random_weights", lambda *_: None)
    with pytest.raises(Failed, match=message):
        loops.graded_once(experiment)


def test_a_kernel_is_compared_with_xla(experiment, monkeypatch):
    assert kernels.names(experiment.model.mesh) == []
    monkeypatch.setattr(kernels, "TOLERANCE", {"bfloat16": 5e-2})
    found = kernels.gaps("splash", experiment, interpret=True, tokens=128)
    assert 0 < found["bfloat16"] < 2e-2
    monkeypatch.setattr(kernels, "gaps", lambda *_: found)
    assert "bfloat16" in kernels.agrees("splash", experiment)
    monkeypatch.setattr(kernels, "gaps", lambda *_: {"bfloat16": 0.1})
    with pytest.raises(Failed, match="differs from XLA"):
        kernels.agrees("splash", experiment)


def test_the_decode_kernel_is_compared_too(experiment):
    model = dataclasses.replace(experiment.config.model, attention="triton", dtype="bfloat16", head_size=16)
    kernel = attention_backends.select_attention(model, experiment.model.mesh, interpret=True).decode
    assert kernel is not decode_attention

    def gap(attend):
        found, expected = (
            np.asarray(jax.jit(lambda one=one: kernels._decoded(one, model, experiment.model.mesh))(), np.float32)
            for one in (attend, decode_attention)
        )
        return np.abs(found - expected).max() / np.abs(expected).max()

    assert 0 < gap(kernel) < 2e-2
    assert gap(lambda query_SNH, column_S, *cached: kernel(query_SNH, column_S // 2, *cached)) > 0.1


def test_sizes_fit_the_devices(monkeypatch):
    for count, here, tensor in ((1, 1, 1), (2, 2, 1), (4, 4, 2), (8, 8, 4), (64, 4, 4), (6, 3, 1)):
        monkeypatch.setattr(jax, "device_count", lambda count=count: count)
        monkeypatch.setattr(jax, "local_device_count", lambda here=here: here)
        config = checks.fit(small(prompts_per_step=16))
        assert (config.mesh.tensor, config.prompts_per_step) == (tensor, 8 * count // tensor)


def test_a_check_that_fails_is_written_and_the_next_one_runs(tmp_path, capsys):
    checker = checks.Checker(tmp_path / "results.jsonl", 60)

    def wrong():
        raise Failed("two and two")

    def broken():
        raise OSError("no disk")

    assert [checker("one", lambda: "fine"), checker("two", wrong), checker("three", broken)] == [True, False, False]
    assert not checker.passed
    rows = [json.loads(row) for row in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row.get("said") for row in rows] == [None, "fine", None, "two and two", None, "OSError: no disk"]
    assert [row["began"] for row in rows[::2]] == ["one", "two", "three"]
    assert capsys.readouterr().out.splitlines()[1].startswith("FAILED two")


def test_a_check_that_hangs_ends_with_its_stack(tmp_path):
    program = """
import sys, time
from pathlib import Path
from nft_jax.smoke.checks import Checker
def sits_there():
    time.sleep(60)
Checker(Path(sys.argv[1]), 1)("hangs", sits_there)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "results.jsonl")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert ran.returncode == 1
    assert "in sits_there" in ran.stderr
    assert (tmp_path / "results.jsonl").read_text() == '{"began": "hangs"}\n'


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
    {"began": "hosts"},
    {"check": "hosts", "passed": True, "seconds": 1.0, "said": "there"},
    {"facts": FACTS},
]
STEPS = [f"{step}/5 ━╌ reward 0.{step}" for step in (1, 2, 3)]


@pytest.fixture
def tested(tmp_path, monkeypatch, capfd):
    """Runs the smoke test with children that do as `fate` says: exit code, `smoke.json`, calls, what was printed."""

    def run(seconds=30, late=10.0, **fate):
        (tmp_path / "python").write_text(PYTHON.format(python=sys.executable))
        (tmp_path / "python").chmod(0o755)
        (tmp_path / "fate.json").write_text(json.dumps({"rows": ROWS, "train": [[*STEPS, "hangs"], []]} | fate))
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        monkeypatch.setattr(smoke, "LATE", late)
        words = [f"--workdir={tmp_path}/work", f"--seconds={seconds}", "--distributed=auto"]
        monkeypatch.setattr(sys, "argv", ["smoke", *words])
        code = smoke.main()
        path = tmp_path / "work" / "smoke.json"
        calls = [json.loads(row) for row in (tmp_path / "calls.jsonl").read_text().splitlines()]
        return code, json.loads(path.read_text()) if path.exists() else None, calls, capfd.readouterr()

    return run


def test_a_run_is_killed_and_resumed_by_the_same_command(tested, tmp_path):
    code, found, calls, printed = tested(
        train=[[*STEPS, "hangs"], ["resumed from step 2 in there", STEPS[2], "4/5 ━╌ reward 0.7"]]
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
    assert "8 × cpu, all as it should be" in printed.out


@pytest.mark.parametrize(
    ("fate", "check"),
    [
        ({"train": [STEPS[:2], []]}, "three steps"),
        ({"train": [[*STEPS, "hangs"], ["4/5 ━╌ reward 0.7"]]}, "resume"),
        ({"train": [[*STEPS, "hangs"], ["resumed from step 2", "3/5 ━╌ reward 0.9"]]}, "resume"),
        ({"rows": [*ROWS[:1], ROWS[1] | {"passed": False}], "code": 1}, "hosts"),
        ({"rows": [*ROWS, {"began": "loops"}], "code": 1}, "loops"),
        ({"rows": [], "code": 2}, "start"),
    ],
)
def test_what_fails_is_named_and_the_code_is_1(tested, fate, check):
    code, found, _, printed = tested(**fate)
    assert (code, found["passed"]) == (1, False)
    assert next(row["check"] for row in found["checks"] if not row["passed"]) == check
    assert f"FAILED {check}" in printed.out


def test_a_run_that_hangs_is_ended_in_time(tested):
    began = time.monotonic()
    code, found, _, printed = tested(seconds=0, late=1.0, train=[[*STEPS[:1], "hangs"], []])
    assert code == 1 and time.monotonic() - began < 30
    assert "no end after 0 s" in printed.err
    assert [row["check"] for row in found["checks"] if not row["passed"]] == ["three steps"]


def test_other_hosts_wait_for_the_end_and_report_only_failures(tested):
    rows = [*ROWS[:2], {"facts": FACTS | {"process": 1}}]
    code, found, calls, printed = tested(rows=rows, train=[[], []])
    assert (code, found, len(calls)) == (0, None, 3)
    assert "resume" not in printed.out


@pytest.mark.slow
def test_the_whole_smoke_test_on_eight_devices(tmp_path):
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
def test_the_whole_smoke_test_on_two_processes(tmp_path):
    environment = os.environ | {"NFT_JAX_CACHE": str(tmp_path / "cache"), "XLA_FLAGS": ""}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    script = ["bash", "launch/local_processes.sh", "2", "--devices=4", "--module=nft_jax.smoke"]
    command = [*script, f"--workdir={tmp_path / 'work'}"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "work" / "smoke.json").read_text())
    said = {row["check"]: row["said"] for row in found["checks"]}
    assert found["passed"] and found["processes"] == 2
    assert said["hosts"].startswith("2 × 4 cpu")
    assert "32 to 32 a host" in said["verifier"]
