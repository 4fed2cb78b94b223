"""The step that trains, compiled for GPUs by the compiler of JAX's plugin for CUDA, without a GPU."""

import re

import jax
import jax.numpy as jnp
import pytest

from helpers.experiments import small
from nft_jax.config import ModelConfig
from nft_jax.config.sizes import PACKED_SEQUENCES, row_tokens
from nft_jax.models import attention_kernels, decode_kernel, kernel_blocks
from nft_jax.models.attention_backends import select_attention
from nft_jax.models.cache import Cache
from nft_jax.parallel import scopes
from nft_jax.parallel.mesh import make_mesh
from nft_jax.plan import gpus, hlo, planner
from nft_jax.plan.gpus import cuda_plugin
from nft_jax.plan.page import find_copies, format_page
from nft_jax.plan.program import TooLarge
from nft_jax.plan.topology import find_devices

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(cuda_plugin() is None, reason="needs JAX's plugin for CUDA: pip install -e .[cuda12]"),
]
# A layer's decode: two norms, four products, rotation and cache of q, k and v, attention, SwiGLU, the residual.
MOST_LAUNCHES = 12
# The head, the draw, the answer's arrays, the loop's end: 14, and less than one more for each of four layers.
OTHER_LAUNCHES = 17
SIZES = {"model__dtype": "bfloat16", "model__attention": "triton", "model__layers": 4, "model__unrolled_layers": 4}
SIZES |= {"model__width": 256, "model__heads": 4, "model__kv_heads": 2, "model__head_size": 64, "model__mlp_width": 512}
# The loop has one number of slots, and several blocks of the cache.
ALONE = {"rollout__max_halvings": 0, "rollout__max_answer_tokens": 512}


@pytest.fixture(scope="module")
def found():
    config = small(**SIZES, **ALONE)
    return planner.plan_step(config, find_devices("h200:1"), None)


def test_a_decoded_token_starts_few_kernels(found):
    assert 0 < found.kernels <= MOST_LAUNCHES * SIZES["model__layers"] + OTHER_LAUNCHES
    assert f"a decoded token starts {found.kernels} kernels" in format_page(found, "h200:1")


def test_decoding_calls_the_kernel_once_a_layer_and_copies_no_cache(found):
    decoding = [
        one for one in hlo.instructions(found.program.text) if one.looped and scopes.is_within(scopes.DECODE, one.scope)
    ]
    kernels = [one for one in decoding if hlo.operation(one.line) == "custom-call" and "pallas_call" in one.scope]
    assert sum(one.times for one in kernels) == SIZES["model__layers"]
    assert find_copies(found.program.text, found.held["cache"] // SIZES["model__layers"] // 2) == []


def test_plan_has_memory_and_an_estimate(found):
    assert max(found.held.values()) < found.program.peak < found.chip.memory
    assert found.chip.name == "h200"
    assert found.estimate.step > 0
    assert "cuda" in found.program.compiler


def test_plan_for_two_gpus_moves_activations_over_tensor():
    found = planner.plan_step(small(**SIZES, mesh__data=1, mesh__tensor=2), find_devices("h100:2"), None)
    moved = found.phase_transfers(scopes.DECODE)
    assert moved
    assert all(one.axes == {"tensor"} for one in moved)
    assert "WARNING" not in format_page(found, "h100:2")


def test_an_update_copies_neither_weights_nor_moments(found):
    """XLA copies what a `cond` hands on; in a bfloat16 model, only these are float32."""
    smallest = found.experiment.config.model.width**2 * 4
    lines = [one for one in hlo.instructions(found.program.text) if scopes.is_within(scopes.OPTIMIZER, one.scope)]
    assert lines
    copies = [one.line for one in lines if hlo.operation(one.line).startswith("copy")]
    assert [line for line in copies if hlo.result_bytes(line) >= smallest] == []


def test_step_reads_packed_rows_by_cudnn_without_repeated_keys():
    """Rows, and the prompts that they share, forward and backward: each call has the keys and values as they are."""
    kernels = {"model__attention": "cudnn_packed", "packing__share_prompts": "yes", "packing__rows_per_micro_batch": 2}
    found = planner.plan_step(small(**SIZES | kernels), find_devices("h100:1x1"), None)
    calls = re.findall(r' = .* custom_call_target="__cudnn\$fmha.*', found.program.text)
    in_training = [line for line in calls if "micro_batch" in line]
    assert "mha_forward" not in found.program.text
    config = found.experiment.config
    T, P = row_tokens(config, found.experiment.loss.unit, True), config.data.max_prompt_tokens
    G, H, kinds = config.model.kv_heads, config.model.head_size, set()
    for line in in_training:
        name = re.search(r'target="__cudnn\$fmha(\w+)"', line)[1]
        mask, most = (re.search(rf'"{key}": ?"?(\w+)', line)[1] for key in ("mask_type", "max_seg_per_batch"))
        query, key, value = re.findall(r"bf16\[([\d,]+)\]", line.partition("operand_layout_constraints=")[2])[:3]
        assert query == f"2,{T},{config.model.heads},{H}"
        assert key == value == f"2,{T if mask == 'PADDING_CAUSAL' else P},{G},{H}"
        kinds.add((name, mask, int(most)))
    masks = ("PADDING_CAUSAL", PACKED_SEQUENCES), ("PADDING", 1)
    assert kinds == {(name, *mask) for name in ("Softmax", "SoftmaxBackward") for mask in masks}


def test_decoding_calls_cudnn_once_a_layer_and_moves_no_cache():
    found = planner.plan_step(small(**SIZES | ALONE | {"model__attention": "cudnn_only"}), find_devices("h100:1"), None)
    text, config = found.program.text, found.experiment.config
    assert "triton_gpu" not in text
    assert "xla.gpu.triton" not in text
    looped = [one for one in hlo.instructions(text) if one.looped and not one.fused]
    # What the compiler adds has no scope of its own.
    bodies = {one.within for one in looped if scopes.is_within(scopes.DECODE, one.scope)}
    decoding = [one for one in looped if one.within in bodies]
    calls = [one for one in decoding if '"__cudnn$fmhaSoftmax"' in one.line]
    assert sum(one.times for one in calls) == config.model.layers
    slots, tokens = found.slots, config.data.max_prompt_tokens + config.rollout.max_answer_tokens
    heads, kv_heads, size = config.model.heads, config.model.kv_heads, config.model.head_size
    for one in calls:
        operands = one.line.partition("operand_layout_constraints=")[2]
        query, *keys = re.findall(r"bf16\[([\d,]+)\]\{3,2,1,0\}", operands)[:3]
        assert query == f"{slots},1,{heads},{size}"
        assert keys == [f"{slots},{tokens},{kv_heads},{size}"] * 2
    # What is as large as a layer's keys is written in place, and nowhere else.
    large = [one for one in decoding if hlo.result_bytes(one.line) >= 2 * slots * tokens * kv_heads * size]
    kinds = {"scatter" if "scatter" in one.line else hlo.operation(one.line) for one in large}
    assert kinds - {*hlo.NO_KERNEL} == {"scatter"}
    assert find_copies(text, found.held["cache"] // config.model.layers // 2) == []
    assert 0 < found.kernels <= MOST_LAUNCHES * config.model.layers + OTHER_LAUNCHES


def test_plan_refuses_host_memory_of_gpus_that_are_not_present():
    with pytest.raises(ValueError, match=r"config\.optimizer\.offload=true: JAX knows no host memory"):
        planner.plan_step(small(**SIZES, optimizer__offload=True), find_devices("h200:1"), None)


def test_plan_refuses_a_step_that_does_not_fit():
    config = small(**SIZES, rollout__slots=2048, prompts_per_step=2048, rollout__max_answer_tokens=8192)
    with pytest.raises(TooLarge, match="cuda") as refused:
        planner.plan_step(config, find_devices("l4:1"), None)
    assert refused.value.bytes > refused.value.limit
    # The cache does not fit, and the message names it.
    assert "bf16[" in refused.value.buffers[0].shape
    assert str(refused.value.buffers[0]) in str(refused.value)


def test_find_devices_counts_machines_and_gpus():
    devices = find_devices("h100:2x8")
    assert len(devices) == 16
    assert len({device.process_index for device in devices}) == 2
    assert jax.devices()[0].platform == "cpu"


def shapes(device, head_size, dtype="bfloat16", heads=4, kv_heads=2, tokens=256, slots=4):
    """Query, key, value and segments of rows; query, columns, keys and values of a cache, and the layer of decoding."""
    place = jax.sharding.SingleDeviceSharding(device)
    rows = [(1, tokens, number, head_size) for number in (heads, kv_heads, kv_heads)]
    cache = (2, 2, slots, kv_heads)
    floats = [*rows, (slots, heads, head_size), (*cache, head_size, 64), (*cache, 64, head_size)]
    query, key, value, one, keys, values = (jax.ShapeDtypeStruct(x, dtype, sharding=place) for x in floats)
    segments, columns, layer = (jax.ShapeDtypeStruct(x, jnp.int32, sharding=place) for x in ((1, tokens), (slots,), ()))
    return (query, key, value, segments), (one, columns, keys, values, layer)


@pytest.mark.parametrize(
    ("head_size", "dtype"), [(32, "bfloat16"), (64, "bfloat16"), (128, "bfloat16"), (256, "bfloat16"), (128, "float32")]
)
@pytest.mark.parametrize("gpu", ["l4", "a100", "h200"])
def test_chosen_kernels_compile(gpu, head_size, dtype):
    device = find_devices(f"{gpu}:1")[0]
    config = ModelConfig(heads=4, kv_heads=2, head_size=head_size, dtype=dtype, attention="triton")
    attention = select_attention(config, make_mesh(1, devices=[device]))

    def total(query, key, value, segments):
        return jnp.sum(attention.rows(query, key, value, segments).astype(jnp.float32))

    def program(rows, decoding):
        query, columns, keys, values, layer = decoding
        decoded = attention.decode(query, columns, Cache((keys,), (values,)), 0, layer)
        return attention.rows(*rows), jax.grad(total, argnums=(0, 1, 2))(*rows), decoded

    text = jax.jit(program).lower(*shapes(device, head_size, dtype)).compile().as_text()
    expected = {"mha_forward", "mha_backward"} | ({"decode_attention"} if dtype == "bfloat16" else set())
    assert expected <= set(re.findall(r"mha_\w+ward|decode_attention", text))


@pytest.mark.parametrize("gpu", ["l4", "a100", "h200"])
def test_kernels_ask_for_no_more_shared_memory_than_is_computed(monkeypatch, gpu):
    """A GPU with 1 KiB makes the compiler say how much a kernel asks for."""
    monkeypatch.setitem(gpus.PROPERTIES, gpu, gpus.PROPERTIES[gpu]._replace(largest_shared=1))
    device, generation = find_devices(f"{gpu}:1")[0], int(gpus.PROPERTIES[gpu].capability.partition(".")[0])
    rows, (query, columns, keys, values, layer) = shapes(device, 128)

    def asked(function, *operands):
        with pytest.raises(jax.errors.JaxRuntimeError, match="Shared memory size limit exceeded") as error:
            jax.jit(function).lower(*operands).compile()
        return int(re.search(r"requested (\d+)", str(error.value))[1])

    def decode(query, columns, keys, values, layer):
        return decode_kernel.decode_attention(query, columns, Cache((keys,), (values,)), 0, layer)

    computed = kernel_blocks.forward_bytes(128, 128, 128, "bfloat16", generation)
    assert computed - 1024 <= asked(attention_kernels.triton, *rows) <= computed
    computed = kernel_blocks.decode_bytes(*kernel_blocks.DECODE[0], 16, 128, generation)
    assert computed - 1024 <= asked(decode, query, columns, keys, values, layer) <= computed
