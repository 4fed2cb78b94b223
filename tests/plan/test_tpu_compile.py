"""The step that trains, compiled for TPU topologies by libtpu, without a TPU."""

import importlib.util
import os
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from helpers.experiments import small
from nft_jax.experiment import open_experiment
from nft_jax.machine.chips import GIB
from nft_jax.machine.memory import device_bytes
from nft_jax.models.int8 import Int8Matrix
from nft_jax.parallel import layout
from nft_jax.plan import hlo, planner
from nft_jax.plan.page import find_copies, format_page
from nft_jax.plan.program import TooLarge, build_planned_experiment, compile_planned_step, name_compiler
from nft_jax.plan.topology import find_devices
from nft_jax.rollout.state import Requests
from nft_jax.smoke import kernels, loops
from nft_jax.types import Prompts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install -e .[tpu]"),
]
# Tokens of a packed row, a number that no other axis has.
ROW_TOKENS = 2048


@pytest.fixture(scope="module", autouse=True)
def flags():
    """Gives the flags back of which libtpu knows nothing: the processes of later tests must have them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
        yield


@pytest.fixture(scope="module")
def devices():
    return find_devices("v5e:2x2")


@pytest.fixture(autouse=True)
def no_notes(tmp_path, monkeypatch):
    """Hides the notes on what has run on this machine's TPUs."""
    monkeypatch.setenv("NFT_JAX_CACHE", str(tmp_path))


def test_find_devices_of_a_single_chip():
    assert len(find_devices("v5e:1x1")) == 1


@pytest.mark.parametrize(
    ("data", "tensor", "dtype", "remat", "shared", "unrolled"),
    [
        (2, 2, "bfloat16", "offload", "auto", 1),
        (4, 1, "bfloat16", "attention", "yes", 1),
        # libtpu 0.0.42.1 aborts if the prompts' kernel stands in a function that is called for each unrolled layer.
        (2, 2, "float32", "full", "yes", 2),
    ],
)
def test_compile_planned_step_for_a_tpu_with_its_attention(devices, data, tensor, dtype, remat, shared, unrolled):
    rows = {"packing__row_tokens": ROW_TOKENS, "packing__rows_per_micro_batch": 1, "packing__share_prompts": shared}
    model = {"model__dtype": dtype, "model__remat": remat, "model__unrolled_layers": unrolled}
    config = small(mesh__data=data, mesh__tensor=tensor, **model, **rows)
    experiment = build_planned_experiment(config, devices)
    compiled = compile_planned_step(experiment)
    assert experiment.engine.lockstep, "shards of a TPU decode in step until loops of different lengths have run on one"
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes > 0
    assert (memory.host_temp_size_in_bytes > 0) == (remat == "offload")
    assert experiment.model.attention.name == "splash"
    assert experiment.config.prompts_are_shared == (shared == "yes")
    text = compiled.as_text()
    assert set(re.findall(r"splash_mha_(fwd|dq|dkv)", text)) == {"fwd", "dq", "dkv"}
    assert re.search(rf"[\[,]{ROW_TOKENS}[\],]", text)
    assert f"{ROW_TOKENS},{ROW_TOKENS}]" not in text


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_compile_planned_step_keeps_offloaded_moments_in_host_memory(devices, name):
    config = small(mesh__data=2, mesh__tensor=2, optimizer__offload=True, optimizer__name=name, updates_per_step=2)
    experiment = build_planned_experiment(config, devices)
    memory = compile_planned_step(experiment).memory_analysis()
    moments = jax.eval_shape(experiment.make_optimizer().init, experiment.model.shapes)
    least = sum(leaf.size * 4 for leaf in jax.tree.leaves(moments) if leaf.ndim > 1) // experiment.model.mesh.size
    # Inputs, outputs and donated arrays have the same size: neither side keeps a second copy.
    found = [getattr(memory, f"host_{part}_size_in_bytes") for part in ("argument", "output", "alias")]
    assert min(found) == max(found) >= least


SAMPLERS = {
    "one_head_a_device": ("v5e:2x2", 2, 128, "bfloat16"),
    "two_heads_a_device": ("v5e:2x2", 1, 128, "bfloat16"),
    "two_heads_of_half_a_tile": ("v5e:1x1", 1, 64, "bfloat16"),
    "two_heads_in_float32": ("v5e:1x1", 1, 64, "float32"),
}


@pytest.fixture(scope="module", params=SAMPLERS)
def sampler(request):
    """The rollout, compiled with a cache of several blocks that is larger than a chip's fast memory."""
    topology, tensor, head_size, dtype = SAMPLERS[request.param]
    devices = find_devices(topology)
    data = len(devices) // tensor
    shape = {"model__width": 256, "model__mlp_width": 512, "model__kv_heads": 2, "model__vocab_multiple": 1024}
    shape |= {"rollout__max_answer_tokens": 1024, "prompts_per_step": 128 * data, "rollout__slots": 128 * data}
    shape |= {"mesh__data": data, "mesh__tensor": tensor, "model__head_size": head_size, "model__dtype": dtype}
    config = small(**shape)
    Q, K, P = config.prompts_per_step, config.answers_per_prompt, config.data.max_prompt_tokens
    experiment = build_planned_experiment(config, devices)
    engine, weights = experiment.engine, experiment.model.abstract_weights()
    prompts = Prompts(jax.ShapeDtypeStruct((Q, P), jnp.int32), jax.ShapeDtypeStruct((Q,), jnp.int32))
    rows = [((Q,), jnp.int32), ((Q, K), jnp.uint32), ((Q, K), jnp.int32), ((Q, K), bool)]
    requests = Requests(prompts, *(jax.ShapeDtypeStruct(*row) for row in rows))

    def sample(weights, requests):
        rows = layout.split_rows(requests, experiment.model.mesh)
        return engine(engine.sampling_weights(weights), rows, jax.random.key(0))

    return experiment, jax.jit(sample).lower(weights, requests).compile()


def test_engine_decode_loop_gathers_no_weight(sampler):
    experiment, compiled = sampler
    text, layers = compiled.as_text(), experiment.model.shapes["blocks"]
    smallest = min(leaf.size // experiment.config.model.layers for leaf in jax.tree.leaves(layers) if leaf.ndim > 2)

    def largest(lines):
        return max(
            (hlo.element_count(line) for line in lines if hlo.operation(line).startswith("all-gather")), default=0
        )

    assert largest(hlo.loop_instructions(text)) < smallest
    # The sampling weights are gathered before the loop, where this reading finds the gathers.
    assert experiment.model.mesh.size == 1 or smallest <= largest(text.splitlines())


def test_engine_decode_loop_keeps_one_cache(sampler):
    """No copy of a layer's keys in the loop, and in 16 bits no second cache beside it, by any libtpu."""
    experiment, compiled = sampler
    version, cache = name_compiler("tpu"), device_bytes(experiment)["cache"]
    copies = find_copies(compiled.as_text(), cache // experiment.config.model.layers // 2)
    assert not copies, f"{version} copies the cache at every token: {copies}"
    # A vector of a tile has 128 numbers, which heads of fewer leave empty.
    padded = cache * 128 // experiment.config.model.head_size
    needed = compiled.memory_analysis().temp_size_in_bytes
    if experiment.config.model.dtype == "bfloat16":
        assert padded < needed < 1.25 * padded, f"{version} holds {needed / padded:.2f} caches"


@pytest.mark.parametrize("layers", [1, 4])
def test_a_loop_over_int8_weights_keeps_no_copy_of_them_in_the_compute_dtype(layers):
    """One layer is constant in the loop over tokens, so a compiler could convert it before; a scan converts each."""
    device = SingleDeviceSharding(find_devices("v5e:1x1")[0])

    def shape(*sizes, dtype):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=device)

    def loop(x_MD, weights):
        def token(_, x_MD):
            return jax.lax.scan(lambda x, weight: (x @ weight[...], None), x_MD, weights)[0]

        return jax.lax.fori_loop(0, 100, token, x_MD)

    D = 2048
    matrix = Int8Matrix(shape(layers, D, D, dtype=jnp.int8), shape(layers, 1, D, dtype=jnp.float32))
    memory = jax.jit(loop).lower(shape(64, D, dtype=jnp.bfloat16), matrix).compile().memory_analysis()
    assert memory.argument_size_in_bytes < 1.2 * layers * D * D
    assert memory.temp_size_in_bytes < D * D


def test_smoke_programs_compile_for_a_tpu(devices, tmp_path):
    config = small(mesh__data=2, mesh__tensor=2, prompts_per_step=16, rollout__slots=4)
    with open_experiment(config, tmp_path, devices) as experiment:
        work, weights = loops.Workload(experiment), experiment.model.abstract_weights()
        assert not work.engine(False).lockstep
        loops._sampler(work, False).lower(weights, work.requests).compile()
        code_B = jax.ShapeDtypeStruct((work.Q * work.K,), jnp.int32)
        loops._grading(work, experiment.grader([""] * work.Q)).lower(weights, work.requests, code_B).compile()
        assert kernels.platform_kernels(experiment) == ["splash"]
        programs = kernels.comparisons("splash", experiment)
        assert programs.keys() == {"bfloat16", "float32"}
        text = programs["bfloat16"].lower().compile().as_text()
    assert set(re.findall(r"splash_mha_(fwd|dq|dkv)", text)) == {"fwd", "dq", "dkv"}


@pytest.mark.parametrize(("data", "tensor"), [(2, 2), (4, 1)])
def test_plan_step_counts_what_a_decoded_token_moves(devices, data, tensor):
    shape = {"model__width": 512, "model__mlp_width": 512, "model__head_size": 64, "model__vocab_multiple": 1024}
    # Several blocks of columns, as real answers have.
    shape |= {"model__dtype": "bfloat16", "rollout__max_answer_tokens": 1024}
    found = planner.plan_step(small(mesh__data=data, mesh__tensor=tensor, **shape), devices, None)
    page = format_page(found, "v5e:2x2")
    assert "WARNING" not in page, page
    assert "Estimated, not measured" in page
    moved = sum(one.bytes * one.times for one in found.phase_transfers("decode")) / found.slots
    # After attention and after the MLP of each layer, and once for the embedding; the head's part is small.
    model = found.experiment.config.model
    activations = (2 * model.layers + 1) * model.width * 2
    assert moved == (pytest.approx(activations, rel=0.1) if tensor > 1 else 0)
    assert found.chip.name == "v5e"
    assert max(found.held.values()) < found.program.peak < found.chip.memory


def test_plan_step_refuses_a_step_that_does_not_fit(devices):
    config = small(mesh__data=4, rollout__slots=2048, prompts_per_step=2048, rollout__max_answer_tokens=8192)
    with pytest.raises(TooLarge) as refused:
        planner.plan_step(config, devices, None)
    assert refused.value.bytes > refused.value.limit == int(15.75 * GIB)
    # The cache does not fit, and the message names it.
    largest = refused.value.buffers[0]
    assert "bf16[" in largest.shape or "f32[" in largest.shape
    assert f"{largest.name}, {largest.scope}" in str(refused.value)
    assert name_compiler("tpu") in str(refused.value)
