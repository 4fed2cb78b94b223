"""Which attention is selected for a platform, dtype and head size, and which selections are refused."""

import dataclasses
import types

import numpy as np
import pytest

from helpers.small_parts import MODEL
from nft_jax.models import attention_backends
from nft_jax.parallel.mesh import DATA, TENSOR


def model(attention, dtype, head_size):
    return dataclasses.replace(MODEL, attention=attention, dtype=dtype, heads=4, kv_heads=2, head_size=head_size)


GPUS = {"gpu": ("9.0", "NVIDIA H100"), "l4": ("8.9", "NVIDIA L4"), "t4": ("7.5", "Tesla T4")}


def on(platform):
    """The parts of a mesh that the selection reads; "t4" stands for a GPU that is too old for Triton."""
    device = types.SimpleNamespace(platform="gpu" if platform in GPUS else platform)
    if platform in GPUS:
        device.compute_capability, device.device_kind = GPUS[platform]
    return types.SimpleNamespace(devices=np.array([device]), shape={DATA: 1, TENSOR: 1})


TABLE = [
    ("cpu", "float32", 64, "xla"),
    ("cpu", "bfloat16", 64, "xla"),
    ("tpu", "float32", 64, "splash"),
    ("tpu", "bfloat16", 128, "splash"),
    ("tpu", "float16", 128, "xla"),
    ("gpu", "float32", 64, "xla"),
    ("gpu", "bfloat16", 64, "triton for packed rows, cudnn for prompts"),
    ("gpu", "float16", 128, "triton for packed rows, cudnn for prompts"),
    ("gpu", "bfloat16", 256, "triton"),
    ("gpu", "bfloat16", 20, "triton"),
    ("l4", "bfloat16", 256, "triton"),
    ("gpu", "bfloat16", 512, "xla"),
    ("t4", "float32", 64, "xla"),
    ("t4", "float16", 64, "xla"),
]


@pytest.mark.parametrize(("platform", "dtype", "head_size", "name"), TABLE)
def test_select_attention_auto_is_the_platforms_own(platform, dtype, head_size, name):
    assert attention_backends.select_attention(model("auto", dtype, head_size=head_size), on(platform)).name == name


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("cudnn_packed", "cudnn for packed rows and prompts"),
        ("cudnn_only", "cudnn for packed rows, prompts and decoding"),
    ],
)
def test_select_attention_takes_cudnn_where_it_is_asked_to(asked, name):
    assert attention_backends.select_attention(model(asked, "bfloat16", 64), on("gpu")).name == name


@pytest.mark.parametrize(("platform", "dtype", "head_size", "name"), TABLE)
def test_select_attention_accepts_by_name_what_auto_selects(platform, dtype, head_size, name):
    asked = "cudnn" if "cudnn" in name else name
    assert attention_backends.select_attention(model(asked, dtype, head_size=head_size), on(platform)).name == name


@pytest.mark.parametrize(
    ("asked", "platform", "dtype", "head_size", "words"),
    [
        ("splash", "cpu", "float32", 64, ["runs on a TPU", "devices are cpu", "'xla'"]),
        ("triton", "tpu", "bfloat16", 64, ["runs on a GPU", "devices are tpu", "'auto'"]),
        ("cudnn", "cpu", "bfloat16", 64, ["runs on a GPU", "devices are cpu"]),
        ("splash", "tpu", "float16", 64, ["float32 or bfloat16", "config.model.dtype='float16'"]),
        ("cudnn", "gpu", "float32", 64, ["bfloat16 or float16", "config.model.dtype='float32'"]),
        ("triton", "t4", "float16", 64, ["8.0 or newer", "Tesla T4 (7.5)", "'xla'"]),
        ("cudnn", "t4", "float16", 64, ["needs Triton", "Tesla T4"]),
        ("triton", "l4", "float32", 256, ["shared memory", "head_size=256 in float32", "NVIDIA L4"]),
        ("triton", "gpu", "bfloat16", 512, ["shared memory", "head_size=512 in bfloat16", "NVIDIA H100"]),
        ("cudnn", "gpu", "bfloat16", 20, ["multiple of 8", "config.model.head_size=20"]),
        ("cudnn_packed", "gpu", "bfloat16", 256, ["multiple of 8 up to 128", "config.model.head_size=256"]),
        ("cudnn_packed", "gpu", "float32", 64, ["bfloat16 or float16", "config.model.dtype='float32'"]),
        ("cudnn_packed", "l4", "bfloat16", 64, ["9.0 or newer", "NVIDIA L4 (8.9)", "'auto'"]),
        ("cudnn_packed", "t4", "float16", 64, ["9.0 or newer", "Tesla T4 (7.5)", "'auto'"]),
        ("cudnn_only", "cpu", "bfloat16", 64, ["runs on a GPU", "devices are cpu"]),
        ("cudnn_only", "gpu", "float32", 64, ["bfloat16 or float16", "config.model.dtype='float32'"]),
        ("cudnn_only", "gpu", "bfloat16", 136, ["multiple of 8 up to 128", "config.model.head_size=136"]),
        ("cudnn_only", "l4", "bfloat16", 64, ["9.0 or newer", "NVIDIA L4 (8.9)", "'auto'"]),
    ],
)
def test_select_attention_refuses_a_kernel_that_cannot_run(asked, platform, dtype, head_size, words):
    with pytest.raises(ValueError, match=f"config.model.attention='{asked}'") as error:
        attention_backends.select_attention(model(asked, dtype, head_size=head_size), on(platform))
    assert all(word in str(error.value) for word in words)


def test_find_kernels_are_those_that_run_on_a_device():
    found = {name: attention_backends.find_kernels(on(name).devices[0]) for name in ("cpu", "tpu", *GPUS)}
    older = ["triton", "cudnn"]
    newer = [*older, "cudnn_packed", "cudnn_only"]
    assert found == {"cpu": [], "tpu": ["splash"], "gpu": newer, "l4": older, "t4": []}
