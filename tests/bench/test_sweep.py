"""Sweeps: what they change, measure and fit."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from helpers.bench import SIZES, row
from helpers.documents import ROOT
from helpers.experiments import small
from nft_jax.bench import sweep
from nft_jax.bench.sweep import Sweep, change_setting, fit_line, fit_lines, measure_values, read_sweep
from nft_jax.bench.tables import sweep_table


def test_read_sweep_and_change_setting():
    config = small(**SIZES)
    found = read_sweep("rollout.slots:4,16", config)
    assert [found.flag(value) for value in found.values] == ["--config.rollout.slots=4", "--config.rollout.slots=16"]
    assert read_sweep("lengths:fixed:4,ends:3", config).flag("ends:3") == "--lengths=ends:3"
    assert change_setting(config, "rollout.slots", "4") == small(**SIZES | {"rollout__slots": 4})
    assert change_setting(config, "prompts_per_step", "4") == small(**SIZES | {"prompts_per_step": 4})
    assert change_setting(config, "optimizer.learning_rate", "1") == small(**SIZES | {"optimizer__learning_rate": 1.0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rollout.slots", "write NAME:VALUE,VALUE"),
        ("rollout.slot:4", r"no setting 'rollout\.slot'; did you mean 'rollout\.slots'\?"),
        ("rollout.slots.more:4", "no setting 'rollout.slots.more'"),
        ("lenghts:full", "did you mean 'lengths'"),
        (
            "rollout.slots:4,many",
            r"--sweep=rollout\.slots:many: 'many' is not of type int, as config\.rollout\.slots is",
        ),
        ("rollout.slots:4,", "'' is not of type int"),
        ("model.dtype:1", r"config\.model\.dtype is not a number"),
        ("model.tied_embedding:1", "is not a number"),
        ("model:1", "no setting 'model'"),
        ("model.layers:1,0", r"config\.model\.layers=0: must be 1 or more"),
        ("lengths:fixed:4,fixed:13", "--lengths=fixed:13: use full"),
    ],
)
def test_read_sweep_refuses(text, message):
    with pytest.raises(ValueError, match=message):
        read_sweep(text, small(**SIZES))


def test_measure_values_runs_a_process_for_each_value(tmp_path, monkeypatch):
    stub = tmp_path / "python"
    stub.write_text(
        f"#!{sys.executable}\n"
        "import json, os, pathlib, sys\n"
        "words = dict(word.split('=', 1) for word in sys.argv[3:])\n"
        "assert len(words) == len(sys.argv[3:])\n"  # a workdir that is given twice is refused
        "if words['--config.rollout.slots'] == '13': sys.exit(2)\n"
        "folder = pathlib.Path(words['--workdir'])\n"
        "folder.mkdir(parents=True)\n"
        "(folder / 'bench.json').write_text(json.dumps({'words': words, 'process': os.getpid()}))\n"
    )
    stub.chmod(0o755)
    monkeypatch.setattr(sweep.sys, "executable", str(stub))
    words = ["--config=bench", f"--workdir={tmp_path}", "--config.rollout.slots=3", "--sweep=rollout.slots:4,8"]
    rows = measure_values(Sweep("rollout.slots", ("4", "8")), words, tmp_path)
    assert [row["value"] for row in rows] == ["4", "8"]
    assert rows[0]["process"] != rows[1]["process"]
    for found in rows:
        expected = {"--config": "bench", "--config.rollout.slots": found["value"]}
        assert found["words"] == expected | {"--workdir": f"{tmp_path}/rollout.slots={found['value']}"}
    with pytest.raises(ValueError, match=r"--sweep=rollout\.slots: the run with 13 ended with code 2"):
        measure_values(Sweep("rollout.slots", ("13",)), words, tmp_path)


def test_a_sweep_runs_the_same_command_with_each_value(tmp_path):
    # The benchmark with a measurement that takes no time: its words are parsed as always, here and in its processes.
    (tmp_path / "fake.py").write_text(
        "import sys\n"
        "from nft_jax import cli\n"
        "from nft_jax.bench import __main__ as bench\n"
        "sys.executable = __file__.replace('fake.py', 'python')\n"
        "def measure(config, workdir, lengths, peers):\n"
        "    return {'slots': config.rollout.slots, 'loss': dict(config.loss.options), 'ends': lengths.ends,\n"
        "            'median': {'tokens': 1}}\n"
        "bench.measure, bench.step_table, bench.sweep_table = measure, str, lambda *_: ''\n"
        "bench._define_flags()\n"
        "cli.run(bench.main, bench.__doc__, holds_workdir=True)\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} {tmp_path}/fake.py "$@"\n')
    python.chmod(0o755)
    (tmp_path / "mine.py").write_text("def fading(logp_BT, batch, *, width: float = 1.0):\n    return -logp_BT\n")
    words = ["-config", "bench", "--workdir", f"{tmp_path}/my runs", "--lengths=ends:3", "--json"]
    words += ["--config.loss.name=mine:fading", "--config.loss.own.width=0.3", "--config.rollout.slots=16"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [python, "-m", "nft_jax.bench", *words, "--sweep=rollout.slots:4,8"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    expected = [{"value": str(slots), "slots": slots, "loss": {"width": 0.3}, "ends": 3} for slots in (4, 8)]
    assert [{name: row[name] for name in expected[0]} for row in json.loads(ran.stdout)["rows"]] == expected


def test_fit_line():
    tokens = np.array([100.0, 200.0, 400.0, 800.0])
    found = fit_line(tokens, 0.5 + 0.01 * tokens)
    assert found == pytest.approx((0.5, 0.01, 0.0), abs=1e-9)
    # Of four points, the residuals that a line through the first three and (800, 8.5 + 1) has.
    bent = 0.5 + 0.01 * tokens + np.array([0, 0, 0, 1.0])
    found = fit_line(tokens, bent)
    line = found.seconds + found.per_token * tokens
    assert np.sum(line - bent) == pytest.approx(0, abs=1e-9)
    assert np.sum((line - bent) * tokens) == pytest.approx(0, abs=1e-6)
    assert found.residual == pytest.approx(np.max(np.abs(line - bent) / bent))


def test_fit_lines_and_sweep_table():
    rows = [row("fixed:1", 10, 1.0), row("fixed:2", 20, 2.0), row("fixed:4", 40, 4.0)]
    lengths = Sweep("lengths", ("fixed:1", "fixed:2", "fixed:4"))
    found = fit_lines(lengths, rows)
    assert found["update"] == pytest.approx((0, 0.05, 0), abs=1e-9)
    lines = sweep_table(lengths, rows, found).splitlines()
    names = ("lengths", "step s", "rollout s", "update s", "tokens", "slots", "compile s", "host MiB")
    assert lines[0].split() == " ".join(names).split()
    assert lines[2].split() == ["fixed:2", "2.000", "0.500", "1.000", "20", "100%", "2.0", "500"]
    assert lines[4].startswith("step: ")
    assert "+100000.0 µs a token" in lines[4]
    # No line through two points, nor through the same number of tokens, nor where it isn't lengths that vary.
    assert (
        fit_lines(lengths, rows[:2])
        == fit_lines(lengths, rows[:2] + rows[1:2])
        == fit_lines(Sweep("seed", ()), rows)
        == {}
    )
