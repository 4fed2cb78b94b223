"""`python -m nft_jax.bench` as a command."""

import json
from subprocess import CompletedProcess

import pytest

from helpers import commands

COMMAND = ["nft_jax.bench", "--config=bench", "--repeats=1", "--warmup=0", "--json"]
SMALL = {
    **{"model.layers": 1, "model.width": 32, "model.mlp_width": 32, "model.unrolled_layers": 1, "model.vocab": 32},
    **{"prompts_per_step": 2, "rollout.max_answer_tokens": 8, "data.max_prompt_tokens": 4, "packing.row_tokens": 0},
    **{"mesh.data": 1},
}


def command(*words: str, **environment: str) -> CompletedProcess:
    small = (f"--config.{name}={value}" for name, value in SMALL.items())
    return commands.run(*COMMAND, *small, *words, **environment)


def test_bench_command(tmp_path):
    done = command(f"--workdir={tmp_path}", "--lengths=fixed:3")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed == json.loads((tmp_path / "bench.json").read_text())
    assert printed["median"]["tokens"] == 2 * 8 * 3
    assert printed["steps"][0].keys() == printed["median"].keys()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--sweep=model.layer:1,2", "no setting 'model.layer'; did you mean 'model.layers'?"),
        ("--peer=trll", "--peer=trll: use trl, tunix, generate"),
        ("--profile=setup.py/trace", "--profile=setup.py/trace: setup.py is a file; name a folder for the trace"),
    ],
)
def test_bench_command_refuses_flags_before_it_uses_a_device(tmp_path, flag, message):
    done = command(f"--workdir={tmp_path}", flag, JAX_PLATFORMS="no_such_platform")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
def test_bench_command_sweeps(tmp_path):
    done = command(f"--workdir={tmp_path}", "--sweep=lengths:fixed:2,fixed:4,full", "--lengths=fixed:1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == json.loads((tmp_path / "bench.json").read_text())
    assert [row["median"]["tokens"] for row in found["rows"]] == [2 * 8 * length for length in (2, 4, 8)]
    assert found["fits"].keys() == {"step", "rollout", "update"}
