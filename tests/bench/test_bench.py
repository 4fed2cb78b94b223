"""`python -m nft_jax.bench`: what it measures, its peers and sweeps, and what it refuses."""

import ast
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.experiments import small
from helpers.small_parts import ANSWER_LIMIT, one_device, random_prompts, small_config
from nft_jax.bench import sweep
from nft_jax.bench.measure import Bench, Measured, _chip_words, _of_chip, in_turns, summary, table
from nft_jax.bench.peers import process
from nft_jax.bench.peers.process import PEERS, Peer, compared, paired, peer_workload
from nft_jax.bench.sweep import Sweep, affine, changed, fits, measured, read_sweep, sweep_table
from nft_jax.bench.workload import Lengths, limit_answers, read_lengths
from nft_jax.machine import speed
from nft_jax.machine.chips import Chip
from nft_jax.step import Step

ROOT = Path(__file__).parents[2]
SIZES = {
    **{"model__vocab": 24, "rollout__slots": 8, "selection__max_rounds": 1, "loss__name": "grpo"},
    **{"verify__grader": "nft_jax.verify.coin:coin", "data__max_prompt_tokens": 8, "rollout__max_answer_tokens": 12},
}


# How long answers are.


def test_lengths():
    config = small(**SIZES)
    assert read_lengths("full", config) == ("full", 0, None)
    assert read_lengths("ends:3", config) == ("ends:3", 3, None)
    assert read_lengths("fixed:12", config).forced_B.tolist() == [12]
    found = read_lengths("lognormal:5:0.5", config).forced_B
    assert abs(np.median(found) - 5) <= 1
    assert (found.min() >= 1, found.max()) == (True, 12)


@pytest.mark.parametrize(
    "lengths",
    [
        *("", "ful", "full:1", "ends", "ends:0", "ends:24", "ends:x", "fixed", "fixed:0", "fixed:13", "fixed:5:5"),
        *("lognormal:50", "lognormal:0:1", "lognormal:a:b", "lognormal:5:-1"),
    ],
)
def test_lengths_that_are_none(lengths):
    with pytest.raises(ValueError, match=f"--lengths={lengths}: use full, ends:N"):
        read_lengths(lengths, small(**SIZES))


def test_limit_answers_goes_by_request_number():
    step = Step(small_config("grpo"), one_device(), None, None, None, None)
    assert limit_answers(step, Lengths("full")) is step
    limited = limit_answers(step, Lengths("fixed:1", forced_B=np.array([3, 5, 4], np.int32)))
    prompts = jax.tree.map(jnp.asarray, random_prompts(0, 20))
    found, own = (jax.jit(each.next_requests)(prompts, np.int32(7)) for each in (limited, step))
    np.testing.assert_array_equal(found.limit_QK, np.array([3, 5, 4])[found.request_QK % 3])
    assert set(np.ravel(own.limit_QK).tolist()) == {ANSWER_LIMIT}
    np.testing.assert_array_equal(found.request_QK, own.request_QK)


# A step.


def test_a_step_is_measured_by_its_own_events(tmp_path):
    config = small(**SIZES)
    lengths = read_lengths("lognormal:5:0.5", config)
    with Bench(config, tmp_path, lengths) as made:
        steps = [made.step() for _ in range(2)]
        found = summary(made, steps)
    for step in steps:
        assert step.rollout > 0
        assert step.update > 0
        assert step.rollout + step.grading + step.update == pytest.approx(step.step)
        assert 0 < step.slots <= 1
        assert step.trained == step.tokens
    # Requests are numbered on: the lengths are those of the first 32 answers, then of the next.
    assert [step.tokens for step in steps] == [lengths.forced_B[:32].sum(), lengths.forced_B[32:64].sum()]
    assert found["tokens_per_second"] == pytest.approx(np.median([s.tokens for s in steps]) / found["median"]["step"])
    assert found["share"]["rollout"] == pytest.approx(sum(s.rollout for s in steps) / sum(s.step for s in steps))
    assert found["share"]["other"] == pytest.approx(0, abs=1e-6)
    words = table(found)
    for part in ("step ", "rollout ", "update ", "slots useful", "GB/s", "compiled in", "MiB"):
        assert part in words
    assert "other" not in words
    assert "other    12% of the step" in table(found | {"share": found["share"] | {"other": 0.12}})


def test_forward_flops_are_those_of_the_products():
    config = small(model__vocab=24)
    model = config.model
    D, F, N, G, H = model.width, model.mlp_width, model.heads, model.kv_heads, model.head_size
    layer = D * (N * H + 2 * G * H) + N * H * D + 3 * D * F
    products = model.layers * layer + D * model.vocab
    assert not model.tied_embedding
    found = speed.forward_flops(config, products + D * model.vocab, tokens=10, context=7)
    assert found == 10 * (2 * products + 4 * model.layers * N * H * 7)


def test_decoding_reads_weights_once_for_all_slots_and_each_token_s_own_context():
    config = small(model__vocab=24, model__dtype="bfloat16")
    model = config.model
    assert not model.tied_embedding
    column = 2 * model.layers * model.kv_heads * model.head_size
    found = speed.decode_bytes(config, 1000 + model.vocab * model.width, tokens=40, context=7, slots=8)
    assert found == 2 * (1000 * 40 / 8 + 40 * 7 * column)
    tied = dataclasses.replace(config, model=dataclasses.replace(model, tied_embedding=True))
    assert speed.decode_bytes(tied, 1000, tokens=40, context=7, slots=8) == found


def test_shares_of_a_known_chip_are_said(monkeypatch):
    chip = Chip("x1", "Some chip", flops=1e12, memory=1e9, bandwidth=1e9, links=1.0, network=0.0, source="")
    monkeypatch.setattr("nft_jax.bench.measure.chip_of", lambda kind: chip)
    found = _of_chip(read=0.25e9, update=0.5e12)
    assert found == {"chip": "Some chip", "rollout_share_of_bandwidth": 0.25, "update_mfu": 0.5}
    assert "Some chip: rollout 25% of its bandwidth" in _chip_words(found)[0]
    monkeypatch.setattr("nft_jax.bench.measure.chip_of", lambda kind: None)
    assert _chip_words(_of_chip(1.0, 1.0)) == []


def test_a_machine_s_limit_is_timed_on_what_the_call_before_gave():
    given = []
    assert speed._least_seconds(lambda x: given.append(x) or x + 1, 0, calls=2) > 0
    assert given == list(range(11))


def test_a_config_without_a_vocabulary_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config\.model\.vocab=0.*give the vocabulary's size"):
        Bench(small(), tmp_path, Lengths("full"))


COMMAND = [sys.executable, "-m", "nft_jax.bench", "--config=bench", "--repeats=1", "--warmup=0", "--json"]
SMALL = {
    **{"model.layers": 1, "model.width": 32, "model.mlp_width": 32, "model.unrolled_layers": 1, "model.vocab": 32},
    **{"prompts_per_step": 2, "rollout.max_answer_tokens": 8, "data.max_prompt_tokens": 4, "packing.row_tokens": 0},
    **{"mesh.data": 1},
}


def command(*words: str, **environment: str) -> subprocess.CompletedProcess:
    words = [*COMMAND, *(f"--config.{name}={value}" for name, value in SMALL.items()), *words]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=os.environ | environment)


def test_the_command(tmp_path):
    done = command(f"--workdir={tmp_path}", "--lengths=fixed:3")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed == json.loads((tmp_path / "bench.json").read_text())
    assert printed["median"]["tokens"] == 2 * 8 * 3
    assert printed["steps"][0].keys() == printed["median"].keys()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("--sweep=model.layer:1,2", "no setting 'model.layer'; did you mean 'model.layers'?"),
        ("--peer=trll", "--peer=trll: use trl, tunix, generate"),
    ],
)
def test_what_is_wrong_is_said_before_any_device_is_touched(tmp_path, word, says):
    done = command(f"--workdir={tmp_path}", word, JAX_PLATFORMS="no_such_platform")
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


# Peers.

STUB = '''#!{python}
"""Stands for another Python: notes its workload and its turns, and does something at each line it gets."""
import pathlib, sys
folder, name = pathlib.Path("{folder}"), pathlib.Path(sys.argv[2]).stem
assert sys.argv[1] == "-P"
(folder / (name + ".workload")).write_text(sys.argv[3])
for line in sys.stdin:
    with open(folder / "turns", "a") as turns:
        print(name, file=turns)
    {deed}
'''
STEPS = r"""print('noise\n{"step": 1.5, "rollout": 0.5, "tokens": 7}', flush=True)"""


def fake_python(folder: Path, deed: str) -> str:
    path = folder / "python"
    path.write_text(STUB.format(python=sys.executable, folder=folder, deed=deed))
    path.chmod(0o755)
    return str(path)


class OurTurns:
    """Stands for a `Bench`: notes its turns where the stubs do."""

    def __init__(self, folder: Path):
        self.turns = folder / "turns"

    def step(self) -> str:
        with open(self.turns, "a") as turns:
            print("ours", file=turns)
        return "a step of ours"


def test_turns_are_taken_one_after_another(tmp_path):
    python, workload = fake_python(tmp_path, STEPS), peer_workload(small(**SIZES), Lengths("ends:3", ends=3))
    with Peer("trl", python, workload, tmp_path) as one, Peer("tunix", python, workload, tmp_path) as other:
        ours, theirs = in_turns(OurTurns(tmp_path), [one, other], warmup=1, repeats=2)
    assert (tmp_path / "turns").read_text().split() == ["ours", "grpo_trl", "grpo_tunix"] * 3
    assert ours == ["a step of ours"] * 2
    assert theirs == [[{"step": 1.5, "rollout": 0.5, "tokens": 7}] * 2] * 2
    told = {
        **{"vocab": 24, "layers": 2, "width": 32, "mlp_width": 48, "heads": 4, "kv_heads": 2, "head_size": 8},
        **{"tied_embedding": False, "prompts_per_step": 8, "answers_per_prompt": 4},
        **{"max_prompt_tokens": 8, "max_answer_tokens": 12, "ends": 3},
    }
    for name in ("grpo_trl", "grpo_tunix"):
        assert json.loads((tmp_path / f"{name}.workload").read_text()) == told


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (
            "print('loading', file=sys.stderr); sys.exit('no module named trl\\n\\n')",
            "its last words: no module named trl",
        ),
        ("break", "without a word"),
    ],
)
def test_a_peer_that_ends_says_why_and_where_to_look(tmp_path, deed, words):
    with (
        Peer("tunix", fake_python(tmp_path, deed), {}, tmp_path) as peer,
        pytest.raises(ValueError, match=f"--peer=tunix: the other process ended, {words} \\({tmp_path}/tunix.log"),
    ):
        peer.step()


def test_a_python_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="--peer_python=/nowhere/python: .*name the Python that has google-tunix"):
        Peer("tunix", "/nowhere/python", {}, tmp_path)


def test_peers_and_their_pythons():
    assert paired([], ["python3"]) == []
    assert paired(["trl", "generate"], ["a"]) == [("trl", "a"), ("generate", "a")]
    assert paired(["trl", "tunix", "generate"], ["a", "b", "c"]) == [("trl", "a"), ("tunix", "b"), ("generate", "c")]
    for names, pythons, says in (
        (["trll"], ["a"], r"--peer=trll: use trl, tunix, generate.*did you mean 'trl'"),
        (["trl", "trl"], ["a"], "--peer=trl,trl: name each peer once"),
        (["trl", "tunix", "generate"], ["a", "b"], "--peer_python=a,b: 2 for 3 peers"),
    ):
        with pytest.raises(ValueError, match=says):
            paired(names, pythons)


def test_what_peers_are_told():
    config = small(**SIZES)
    assert peer_workload(config, read_lengths("full", config))["max_answer_tokens"] == 12
    assert peer_workload(config, read_lengths("fixed:5", config))["max_answer_tokens"] == 5
    with pytest.raises(ValueError, match="--lengths=lognormal:5:0.5: a peer can't be told each answer's"):
        peer_workload(config, read_lengths("lognormal:5:0.5", config))
    for changes in ({"model__dtype": "bfloat16"}, {"updates_per_step": 2}, {"rollout__temperature": 0.5}):
        with pytest.raises(ValueError, match=f"config.{next(iter(changes)).replace('__', '.')}=.*compare with that"):
            peer_workload(small(**SIZES | changes), Lengths("full"))


def test_a_ratio_is_of_medians_and_of_the_same_part():
    ours = {"step": 2.0, "rollout": 0.5}
    steps = [{"step": s, "rollout": 1.0, "tokens": 5} for s in (3.0, 5.0, 9.0)]
    found = compared(SimpleNamespace(name="trl", part="step"), steps, ours)
    assert (found["ratio"], found["median"]["step"], found["spread"]) == (2.5, 5.0, [3.0, 9.0])
    steps = [{"rollout": s, "tokens": 5} for s in (3.0, 5.0, 9.0)]
    found = compared(SimpleNamespace(name="generate", part="rollout"), steps, ours)
    assert (found["ratio"], found["spread"]) == (10.0, [3.0, 9.0])


def test_the_peers_files_import_nothing_of_this_package():
    for script in PEERS.values():
        tree = ast.parse(Path(process.__file__).with_name(script.file).read_text())
        plain = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        from_ = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names = [*plain, *(node.module for node in from_)]
        assert names
        assert not [name for name in names if name.startswith("nft_jax")]
        assert not any(node.level for node in from_)


# Sweeps.


def test_a_sweep_changes_what_the_flag_would():
    config = small(**SIZES)
    found = read_sweep("rollout.slots:4,16", config)
    assert [found.flag(value) for value in found.values] == ["--config.rollout.slots=4", "--config.rollout.slots=16"]
    assert read_sweep("lengths:fixed:4,ends:3", config).flag("ends:3") == "--lengths=ends:3"
    assert changed(config, "rollout.slots", "4") == small(**SIZES | {"rollout__slots": 4})
    assert changed(config, "prompts_per_step", "4") == small(**SIZES | {"prompts_per_step": 4})
    assert changed(config, "optimizer.learning_rate", "1") == small(**SIZES | {"optimizer__learning_rate": 1.0})


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("rollout.slots", "write NAME:VALUE,VALUE"),
        ("rollout.slot:4", r"no setting 'rollout\.slot'; did you mean 'rollout\.slots'\?"),
        ("rollout.slots.more:4", "no setting 'rollout.slots.more'"),
        ("lenghts:full", "did you mean 'lengths'"),
        ("rollout.slots:4,many", r"--sweep=rollout\.slots:many: 'many' is no int, as config\.rollout\.slots is"),
        ("rollout.slots:4,", "'' is no int"),
        ("model.dtype:1", r"config\.model\.dtype is no number"),
        ("model.tied_embedding:1", "is no number"),
        ("model:1", "no setting 'model'"),
        ("model.layers:1,0", r"config\.model\.layers=0: must be 1 or more"),
        ("lengths:fixed:4,fixed:13", "--lengths=fixed:13: use full"),
    ],
)
def test_a_sweep_that_cannot_be(told, says):
    with pytest.raises(ValueError, match=says):
        read_sweep(told, small(**SIZES))


def row(value: str, tokens: float, step: float, **more) -> dict:
    median = Measured(step, step / 4, 0.0, step / 2, tokens, tokens, 1.0, 0.0, 0.0)._asdict()
    return {"value": value, "median": median, "compile_seconds": 2.0, "peak_memory_mib": {"host": 500.0}} | more


def test_each_value_has_a_process_of_its_own(tmp_path, monkeypatch):
    stub = tmp_path / "python"
    stub.write_text(
        f"#!{sys.executable}\n"
        "import json, os, pathlib, sys\n"
        "words = dict(word.split('=', 1) for word in sys.argv[3:])\n"  # the last of a name counts, as with flags
        "if words['--config.rollout.slots'] == '13': sys.exit(2)\n"
        "folder = pathlib.Path(words['--workdir'])\n"
        "folder.mkdir(parents=True)\n"
        "(folder / 'bench.json').write_text(json.dumps({'words': words, 'process': os.getpid()}))\n"
    )
    stub.chmod(0o755)
    monkeypatch.setattr(sweep.sys, "executable", str(stub))
    words = ["--config=bench", f"--workdir={tmp_path}", "--config.rollout.slots=3", "--sweep=rollout.slots:4,8"]
    rows = measured(Sweep("rollout.slots", ("4", "8")), words, tmp_path)
    assert [row["value"] for row in rows] == ["4", "8"]
    assert rows[0]["process"] != rows[1]["process"]
    for found in rows:
        told = {"--config": "bench", "--config.rollout.slots": found["value"], "--sweep": ""}
        assert found["words"] == told | {"--workdir": f"{tmp_path}/rollout.slots={found['value']}"}
    with pytest.raises(ValueError, match=r"--sweep=rollout\.slots: the run with 13 ended with code 2"):
        measured(Sweep("rollout.slots", ("13",)), words, tmp_path)


def test_seconds_are_a_line_in_tokens():
    tokens = np.array([100.0, 200.0, 400.0, 800.0])
    found = affine(tokens, 0.5 + 0.01 * tokens)
    assert found == pytest.approx((0.5, 0.01, 0.0), abs=1e-9)
    # Of four points, the residuals that a line through the first three and (800, 8.5 + 1) has.
    bent = 0.5 + 0.01 * tokens + np.array([0, 0, 0, 1.0])
    found = affine(tokens, bent)
    line = found.seconds + found.per_token * tokens
    assert np.sum(line - bent) == pytest.approx(0, abs=1e-9)
    assert np.sum((line - bent) * tokens) == pytest.approx(0, abs=1e-6)
    assert found.residual == pytest.approx(np.max(np.abs(line - bent) / bent))


def test_a_sweep_is_a_row_a_value():
    rows = [row("fixed:1", 10, 1.0), row("fixed:2", 20, 2.0), row("fixed:4", 40, 4.0)]
    lengths = Sweep("lengths", ("fixed:1", "fixed:2", "fixed:4"))
    found = fits(lengths, rows)
    assert found["update"] == pytest.approx((0, 0.05, 0), abs=1e-9)
    lines = sweep_table(lengths, rows, found).splitlines()
    names = ("lengths", "step s", "rollout s", "update s", "tokens", "slots", "compile s", "host MiB")
    assert lines[0].split() == " ".join(names).split()
    assert lines[2].split() == ["fixed:2", "2.000", "0.500", "1.000", "20", "100%", "2.0", "500"]
    assert lines[4].startswith("step: ")
    assert "+100000.0 µs a token" in lines[4]
    # No line through two points, nor through the same number of tokens, nor where it isn't lengths that vary.
    assert fits(lengths, rows[:2]) == fits(lengths, rows[:2] + rows[1:2]) == fits(Sweep("seed", ()), rows) == {}


def test_a_sweep_shows_devices_and_peers():
    peers = [
        compared(SimpleNamespace(name="trl", part="step"), [{"step": 8.0, "rollout": 1.0, "tokens": 3}], {"step": 2.0})
    ]
    memory = {"host": 500.0, "TPU_0": 70.0, "TPU_1": 90.0}
    lines = sweep_table(
        Sweep("seed", ("1",)), [row("1", 10, 2.0, peers=peers, peak_memory_mib=memory)], {}
    ).splitlines()
    assert lines[0].split()[-6:] == ["host", "MiB", "device", "MiB", "trl", "s"]
    assert lines[1].split()[-3:] == ["500", "90", "8.000"]


@pytest.mark.slow
def test_a_sweep_by_the_command(tmp_path):
    done = command(f"--workdir={tmp_path}", "--sweep=lengths:fixed:2,fixed:4,full", "--lengths=fixed:1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == json.loads((tmp_path / "bench.json").read_text())
    assert [row["median"]["tokens"] for row in found["rows"]] == [2 * 8 * length for length in (2, 4, 8)]
    assert found["fits"].keys() == {"step", "rollout", "update"}
