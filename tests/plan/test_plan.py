"""The plan: compiled facts that agree with the arrays, an estimate that follows its assumptions, and refusals."""

import dataclasses
import json
import subprocess
from typing import NamedTuple

import jax
import pytest

from helpers import commands
from helpers.experiments import small
from helpers.model_folders import random_tensors, write_model
from nft_jax import compat
from nft_jax.data.random_prompts import random_dataset
from nft_jax.machine.chips import CHIPS, chip_of
from nft_jax.models.hf.config_json import read_model_settings
from nft_jax.plan import planner
from nft_jax.plan import topology as topologies
from nft_jax.plan.cost import Assumptions, estimate, read_assumptions
from nft_jax.plan.gpus import describe_gpu
from nft_jax.plan.hlo import Collective
from nft_jax.plan.page import as_json, find_copies, format_page
from nft_jax.plan.program import TooLarge
from nft_jax.verify.pool import pool

CHIP = CHIPS[1]
SIZES = {"model__vocab": 32, "data__train": "", "mesh__replica": 2, "mesh__data": 2, "mesh__tensor": 2}


@pytest.fixture(scope="module")
def found():
    config = small(**SIZES, model__dtype="bfloat16")
    return planner.plan_step(config, jax.devices()[:8], random_dataset(config, 1, prompts=64), "answer=5,prompt=4")


def test_plan_step_starts_no_process(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a plan starts no process")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(pool.Pool, "__init__", refuse)
    monkeypatch.setattr(planner, "analyze_step", lambda experiment: Analyzed(1, ""))
    config = small(**SIZES, verify__grader="no_such_module:f")
    plan = planner.plan_step(config, jax.devices()[:8], random_dataset(config, 1, prompts=64))
    assert plan.program == Analyzed(1, "")


class Analyzed(NamedTuple):
    """The part of a compiled step that a plan for an unknown chip reads."""

    peak: int
    text: str


def test_device_bytes_equal_those_of_arrays(found):
    experiment = found.experiment
    weights = experiment.model.random_weights(experiment.config.seed)
    device = experiment.model.mesh.devices.flat[3]

    def held(tree):
        shards = [shard for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]
        return sum(shard.data.nbytes for shard in shards if shard.device == device)

    assert found.held["weights"] == held(weights)
    assert found.held["sampling_weights"] == held(jax.jit(experiment.engine.sampling_weights)(weights))
    # AdamW's two moments, and its counters.
    assert 0 <= found.held["moments"] - 2 * held(weights) < 64
    assert 0 < found.held["cache"] < found.program.peak


def test_plan_step_decode_moves_two_activations_a_layer(found):
    model, moved = found.experiment.config.model, found.phase_transfers("decode")
    # XLA on CPUs sums bfloat16 in float32.
    least = 2 * model.layers * model.width * 2
    reduced = sum(one.bytes * one.times for one in moved if one.kind == "all-reduce") / found.slots
    assert least <= reduced <= 4 * least
    assert all(one.axes == {"tensor"} for one in moved)
    text = format_page(found, "")
    assert "WARNING" not in text
    assert "a decoded token moves, a slot" in text


def test_plan_step_sums_gradients_over_replicas_once_an_update(found):
    inside = {axis for one in found.phase_transfers("micro_batch") for axis in one.axes}
    assert inside == {"data", "tensor"}
    summed = [one for one in found.transfers if one.axes == {"replica"} and one.kind == "all-reduce"]
    gradient = found.held["weights"] * found.experiment.config.updates_per_step
    assert gradient <= sum(one.bytes * one.times for one in summed) < 1.5 * gradient


def test_format_page_warns_of_a_weight_gathered_at_every_token(found):
    bad = Collective("all-gather", 10**6, 1, frozenset({"data"}), 2, "jit(step)/while/body/decode/dot_general")
    text = format_page(found._replace(transfers=[bad]), "")
    assert "WARNING: a weight is gathered at every token: 1.0 MB" in text
    assert "WARNING: a transfer crosses data at every token" in text


def test_as_json_has_all_figures_and_no_estimate_for_a_cpu(found):
    kept = json.loads(json.dumps(as_json(found, "")))
    assert kept["mesh"] == {"replica": 2, "data": 2, "tensor": 2}
    assert kept["estimate"] is kept["chip"] is None
    assert kept["bytes"]["peak"] == found.program.peak
    assert "no data sheet" in format_page(found, "")


def seconds(found, kernels=0, **changes):
    base = {"prompt": 100, "answer": 900}
    return estimate(found.experiment, CHIP, found.held, found.transfers, Assumptions(**(base | changes)), kernels)


def test_estimate_follows_its_assumptions(found):
    plain = seconds(found)
    assert plain.step == pytest.approx(plain.read + plain.decode + plain.update)
    assert seconds(found, answer=1800).sampled == 2 * plain.sampled
    assert seconds(found, answer=1800).flops["decode"] > 2 * plain.flops["decode"]
    assert seconds(found, useful=0.4).decode == pytest.approx(2 * plain.decode)
    assert seconds(found, mixed=0.05).rounds > plain.rounds
    assert seconds(found, latency=1e-3).decode > plain.decode
    assert seconds(found, 300, kernel=1e-5).decode == pytest.approx(plain.decode + 300 * 1e-5 * plain.trips)
    slow = CHIP._replace(bandwidth=CHIP.bandwidth / 2)
    assert estimate(found.experiment, slow, found.held, [], Assumptions(100, 900)).decode > (
        estimate(found.experiment, CHIP, found.held, [], Assumptions(100, 900)).decode
    )
    known = found._replace(chip=CHIP, estimate=plain, assumptions=Assumptions(100, 900), kernels=24)
    page = format_page(known, "v5e:2x4")
    config = found.experiment.config
    layers = config.model.layers
    starts = f"starts 24 kernels, {24 / layers:.1f} for each layer"
    assert f"{starts}, which copy its weights: set config.model.unrolled_layers={layers}\n" in page
    model = dataclasses.replace(config.model, unrolled_layers=layers)
    unrolled = dataclasses.replace(found.experiment, config=dataclasses.replace(config, model=model))
    assert f"{starts}\n" in format_page(known._replace(experiment=unrolled), "v5e:2x4")
    assert "Estimated, not measured (data sheet: cloud.google.com/tpu/docs/v5e)" in page
    assert "record.grace_seconds" in page


def test_estimate_counts_each_loop_of_an_update_by_its_own_number(found):
    assert found.phase_transfers("micro_batch")
    assert found.phase_transfers("prompt_batch")
    page = format_page(found, "")
    assert "a micro-batch moves, a device" in page
    assert "a batch of shared prompts moves, a device" in page
    # On each of 4 data shards 40 answer tokens in rows of 16, which fill 0.9 of them, and 2 prompts of up to 16 tokens.
    config = found.experiment.config
    packing = dataclasses.replace(config.packing, rows_per_micro_batch=1)
    experiment = dataclasses.replace(found.experiment, config=dataclasses.replace(config, packing=packing))
    moved = Collective("all-gather", 10**9, 1, frozenset({"data"}), 2, "")

    def estimated(*scopes):
        transfers = [moved._replace(scope=f"jit(step)/{scope}/while/body/dot_general") for scope in scopes]
        return estimate(experiment, CHIP, found.held, transfers, Assumptions(4, 5))

    nothing, once = estimated(), moved.sent / (CHIP.links * Assumptions(4, 5).links)
    assert (nothing.micro_batches, nothing.prompt_batches) == (3, 2)
    for scopes, times in ((["micro_batch"], 3), (["prompt_batch"], 2), (["micro_batch", "prompt_batch"], 5)):
        assert estimated(*scopes).update - nothing.update == pytest.approx(times * once, rel=0.01)


def test_fill_model_shape_reads_no_weights(tmp_path):
    write_model(tmp_path, random_tensors())
    (tmp_path / "model.safetensors").unlink()
    model = planner.fill_model_shape(small(model__path=str(tmp_path), model__layers=4, model__kv_heads=2)).model
    given = read_model_settings(tmp_path)
    assert (model.width, model.heads, model.layers, model.path) == (given["width"], given["heads"], given["layers"], "")
    assert model.vocab >= given["vocab"]


def test_find_copies_finds_a_cache_by_its_size():
    line = '  %c = f32[{}]{{0{}}} copy(%p), metadata={{op_name="jit(step)/while/body/{}/copy"}}'
    copied = (1000, "", "decode"), (10, "", "decode"), (1000, ":S(1)", "decode"), (1000, "", "micro_batch")
    without_scope, of_updates = "  %c = f32[1000]{0} copy(%p)", line.format(1000, "", "optimizer")

    def computation(name, lines):
        return f"{name} (p: f32[1000]) -> f32[1000] {{\n" + "\n".join(lines) + "\n}\n"

    loop = '  %w = f32[1000]{{0}} while(%p), condition=%{0}, body=%{0}, metadata={{op_name="jit(step)/{0}"}}'
    text = computation("%tokens", [*(line.format(*one) for one in copied), without_scope])
    text += computation("%updates", [of_updates, without_scope])
    text += computation("ENTRY %main", [loop.format("tokens"), loop.format("updates"), without_scope])
    # Twice: the pretended loop's condition is its body.
    assert find_copies(text, 4000) == ["jit(step)/while/body/decode/copy", "jit(step)/tokens"] * 2


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("anwser=3", "unknown assumption 'anwser'.*answer.*did you mean 'answer'"),
        ("answer=0", "answer='0' must be a positive"),
        ("latency=inf", "latency='inf' must be a positive"),
        ("mixed=40", "mixed='40' is a share; give a number above 0, and 1 at most"),
    ],
)
def test_read_assumptions_refuses_unknown_assumptions(found, told, words):
    with pytest.raises(ValueError, match=words):
        read_assumptions(told, found.experiment)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--slices=2", "--slices=2: name the slice by --topology"),
        ("--slices=0", "--slices=0"),
        ("--prompts=0", "--prompts=0"),
        ("--json=tests", "--json=tests is a folder; name a file"),
    ],
)
def test_plan_command_refuses_flags_before_it_uses_a_device(flag, message):
    done = commands.run("nft_jax.plan", "--config=tiny", flag, JAX_PLATFORMS="no_such_platform")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v5x:8x8", "did you mean"),
        ("v5e", "write a chip and a shape, such as v5e:8x8"),
        ("h300:8", "chips: v4, v5e, v5p, v6e, t4, l4, a100, h100, h200"),
        ("h100", "such as h100:8, or machines and the GPUs of each, such as h100:4x8"),
        ("h100:2x2x2", "such as h100:8"),
    ],
)
def test_find_devices_refuses_unknown_names(name, words, monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda _: object())
    with pytest.raises(ValueError, match=words):
        topologies.find_devices(name)


def test_find_devices_without_libtpu_names_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install -e \.\[tpu\]"):
        topologies.find_devices("v5e:8x8")


def test_find_devices_without_the_cuda_plugin_names_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install -e \.\[cuda12\]"):
        topologies.find_devices("h100:8")
    with pytest.raises(ValueError, match="1 for GPUs"):
        topologies.find_devices("h100:8", slices=2)


def test_describe_gpu_knows_every_gpu_of_the_data_sheets():
    for chip in CHIPS:
        if not chip.kind.startswith("TPU"):
            text = describe_gpu(chip, "12")
            assert f'device_description_str: "{chip.kind}"' in text
            assert f"device_memory_size: {chip.memory:.0f}" in text
            assert chip_of(chip.kind) == chip


def test_planned_callbacks_have_the_shapes_of_real_ones():
    """What is compiled for a GPU that is not present has the call, and no function."""
    shapes = {"code": jax.ShapeDtypeStruct((3,), jax.numpy.int32), "reward": None}

    def call(x):
        return compat.io_callback(lambda x: {"code": x, "reward": None}, shapes, x)

    x = jax.ShapeDtypeStruct((3,), jax.numpy.int32)
    with compat.plan_for_gpus():
        planned = jax.make_jaxpr(call)(x)
    assert [one.primitive.name for one in planned.eqns] == ["ffi_call"]
    real = jax.make_jaxpr(lambda x: call(x))(x)
    assert [one.primitive.name for one in real.eqns] == ["io_callback"]
    assert planned.out_avals == real.out_avals


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("Tesla T4", "t4"),
    ],
)
def test_chip_of_a_kind(kind, name):
    assert chip_of(kind).name == name
    assert chip_of("cpu") is None


def test_search_plan_takes_slots_and_then_rows_that_fit(monkeypatch):
    """On a pretended machine whose memory holds 24 slots with 4 rows; nothing is compiled."""
    config = small(**SIZES, prompts_per_step=16, answers_per_prompt=8, rollout__slots=8)
    room, compiled_sizes = 1000, []

    def pretend(experiment):
        sizes = experiment.config.rollout.slots, experiment.config.packing.rows_per_micro_batch
        compiled_sizes.append(sizes)
        needed = 30 * sizes[0] + 70 * sizes[1]
        if needed > room + 100:
            raise TooLarge(needed, room, "")
        return Analyzed(needed, "")

    monkeypatch.setattr(planner, "analyze_step", pretend)
    monkeypatch.setattr(planner, "chip_of", lambda _: CHIP._replace(memory=room))
    config = dataclasses.replace(config, packing=dataclasses.replace(config.packing, rows_per_micro_batch=1))
    best = planner.search_plan(config, jax.devices()[:8], random_dataset(config, 1, prompts=64)).experiment.config
    assert (best.rollout.slots, best.packing.rows_per_micro_batch) == (24, 4)
    assert len(compiled_sizes) <= 7
