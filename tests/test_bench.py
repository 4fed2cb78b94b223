"""`python -m nft_jax.bench`: what it measures, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from experiments import small

from nft_jax import bench
from nft_jax.bench import Bench, Peer, compared, read_lengths, summary, table

ROOT = Path(__file__).parents[1]
SIZES = {
    **{"model__vocab": 24, "rollout__slots": 8, "selection__max_rounds": 1, "loss__name": "grpo"},
    **{"verify__grader": "nft_jax.verify.coin:coin", "data__prompt_limit": 8, "rollout__answer_limit": 12},
}


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [("full", (0, None)), ("ends:3", (3, None)), ("lognormal:50:0.8", (0, (50.0, 0.8)))],
)
def test_lengths(lengths, expected):
    assert read_lengths(lengths, small(model__vocab=24)) == expected


@pytest.mark.parametrize(
    "lengths",
    ["", "ful", "full:1", "ends", "ends:0", "ends:24", "ends:x", "lognormal:50", "lognormal:0:1", "lognormal:a:b"],
)
def test_lengths_that_are_none(lengths):
    with pytest.raises(ValueError, match=f"--lengths={lengths}: use full, ends:N"):
        read_lengths(lengths, small(model__vocab=24))


def test_a_step_is_measured_by_its_own_events(tmp_path):
    config = small(**SIZES)
    with Bench(config, tmp_path, "lognormal:5:0.5") as made:
        steps = [made.step() for _ in range(2)]
        found = summary(made, steps)
    for step in steps:
        assert step.rollout > 0
        assert step.update > 0
        assert step.rollout + step.grading + step.update == pytest.approx(step.step)
        assert 0 < step.slots <= 1
        assert step.trained == step.tokens
    drawn = np.clip(np.round(5 * np.exp(0.5 * np.random.default_rng(0).normal(size=4096))), 1, 12)
    # Requests are numbered on: the lengths are those of the first 32 answers, then of the next.
    assert [step.tokens for step in steps] == [drawn[:32].sum(), drawn[32:64].sum()]
    assert found["tokens_per_second"] == pytest.approx(np.median([s.tokens for s in steps]) / found["median"]["step"])
    words = table(found)
    for part in ("step ", "rollout ", "update ", "slots useful", "compiled in", "MiB"):
        assert part in words


def test_forward_flops_are_those_of_the_products():
    config = small(model__vocab=24)
    model = config.model
    D, F, N, G, H = model.width, model.mlp_width, model.heads, model.kv_heads, model.head_size
    layer = D * (N * H + 2 * G * H) + N * H * D + 3 * D * F
    products = model.layers * layer + D * model.vocab
    assert not model.tied_embedding
    found = bench.forward_flops(config, products + D * model.vocab, tokens=10, context=7)
    assert found == 10 * (2 * products + 4 * model.layers * N * H * 7)


def test_a_config_without_a_vocabulary_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config\.model\.vocab=0.*give the vocabulary's size"):
        Bench(small(), tmp_path, "full")


def test_the_command(tmp_path):
    words = ["--config=bench", f"--workdir={tmp_path}", "--repeats=1", "--warmup=0", "--json"]
    small_one = {"model.layers": 1, "model.width": 32, "model.mlp_width": 32, "prompts_per_step": 2, "model.unroll": 1}
    small_one |= {
        "rollout.answer_limit": 8,
        "data.prompt_limit": 4,
        "packing.row_tokens": 0,
        "model.vocab": 32,
        "mesh.data": 1,
    }
    words += [f"--config.{name}={value}" for name, value in small_one.items()]
    done = subprocess.run(
        [sys.executable, "-m", "nft_jax.bench", *words], cwd=ROOT, capture_output=True, text=True, env=os.environ.copy()
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed == json.loads((tmp_path / "bench.json").read_text())
    assert printed["median"]["tokens"] == 2 * 8 * 8
    assert printed["steps"][0].keys() == printed["median"].keys()


# A peer.


def fake_python(folder: Path, says: str) -> str:
    """A program that stands for another Python: it notes its workload, and says something at each line it gets."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\necho "$3" > {folder}/workload\nwhile read line; do {says}; done\n')
    path.chmod(0o755)
    return str(path)


def test_a_peer_is_told_the_workload_and_asked_for_one_step_at_a_time(tmp_path):
    config = small(**SIZES)
    python = fake_python(tmp_path, """echo noise; echo '{"step": 1.5, "tokens": 7}'""")
    with Peer("trl", python, config, "ends:3", tmp_path) as peer:
        assert [peer.step() for _ in range(3)] == [{"step": 1.5, "tokens": 7}] * 3
    told = json.loads((tmp_path / "workload").read_text())
    assert told == {
        **{"vocab": 24, "layers": 2, "width": 32, "mlp_width": 48, "heads": 4, "kv_heads": 2, "ends": 3},
        **{"prompts_per_step": 8, "answers_per_prompt": 4, "prompt_limit": 8, "answer_limit": 12, "micro_batch": 16},
    }


def test_a_peer_that_ends_says_where_to_look(tmp_path):
    with (
        Peer("trl", fake_python(tmp_path, "exit 3"), small(**SIZES), "full", tmp_path) as peer,
        pytest.raises(ValueError, match=f"ended; {tmp_path}/trl.log says why"),
    ):
        peer.step()


def test_a_peer_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="--peer_python=/nowhere/python"):
        Peer("trl", "/nowhere/python", small(**SIZES), "full", tmp_path)
    with pytest.raises(ValueError, match="can't be told how long"):
        Peer("trl", "python3", small(**SIZES), "lognormal:5:0.5", tmp_path)


def test_a_ratio_is_of_medians():
    found = compared("trl", {"median": {"step": 2.0}}, [{"step": s, "tokens": 5} for s in (3.0, 5.0, 9.0)])["peer"]
    assert (found["ratio"], found["step"], found["spread"]) == (2.5, 5.0, [3.0, 9.0])
