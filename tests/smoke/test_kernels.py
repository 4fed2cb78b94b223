"""Attention kernels, emulated, against XLA."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from nft_jax.models import attention_backends, attention_kernels
from nft_jax.models.attention import decode_attention
from nft_jax.smoke import kernels
from nft_jax.smoke.result import CheckFailure


def test_check_kernel_compares_with_xla(experiment, monkeypatch):
    assert kernels.platform_kernels(experiment) == []
    monkeypatch.setattr(kernels, "TOLERANCE", {"bfloat16": 5e-2})
    found = kernels.largest_differences("splash", experiment, interpret=True, tokens=128)
    assert 0 < found["bfloat16"] < 2e-2
    monkeypatch.setattr(kernels, "largest_differences", lambda *_: found)
    assert "bfloat16" in kernels.check_kernel("splash", experiment)
    monkeypatch.setattr(kernels, "largest_differences", lambda *_: {"bfloat16": 0.1})
    with pytest.raises(CheckFailure, match="differs from XLA"):
        kernels.check_kernel("splash", experiment)


def test_platform_kernels_are_those_that_ran_and_the_one_of_the_config(experiment, monkeypatch):
    monkeypatch.setattr(attention_backends, "find_kernels", lambda _: ["cudnn", "cudnn_packed"])
    assert kernels.platform_kernels(experiment) == ["cudnn"]
    model = dataclasses.replace(experiment.config.model, attention="cudnn_packed")
    asked = types.SimpleNamespace(model=experiment.model, config=dataclasses.replace(experiment.config, model=model))
    assert kernels.platform_kernels(asked) == ["cudnn", "cudnn_packed"]


@pytest.mark.parametrize("name", ["cudnn_packed", "cudnn_only"])
def test_check_kernel_finds_a_packed_kernel_that_writes_too_little(name, experiment, monkeypatch):
    monkeypatch.setattr(kernels, "TOLERANCE", {"bfloat16": 5e-2})

    def difference():
        with jax.numpy_dtype_promotion("standard"):  # inside jax.nn, where it stands in for cuDNN
            return kernels.largest_differences(name, experiment, interpret=True, tokens=128)["bfloat16"]

    assert 0 < difference() < 2e-2
    # What no sequence holds is NaN, and the check must see that.
    monkeypatch.setattr(attention_kernels, "PACKED_SEQUENCES", 2)
    assert difference() == np.inf


def test_decode_kernel_is_compared_with_xla(experiment):
    model = dataclasses.replace(experiment.config.model, attention="triton", dtype="bfloat16", head_size=16)
    kernel = attention_backends.select_attention(model, experiment.model.mesh, interpret=True).decode
    assert kernel is not decode_attention

    def gap(attend):
        found, expected = (
            np.asarray(jax.jit(lambda one=one: kernels._decode(one, model, experiment.model.mesh))(), np.float32)
            for one in (attend, decode_attention)
        )
        return np.abs(found - expected).max() / np.abs(expected).max()

    assert 0 < gap(kernel) < 2e-2
    assert gap(lambda query_SNH, column_S, *cached: kernel(query_SNH, column_S // 2, *cached)) > 0.1
