"""The configs for one accelerator with 16 GB: what their step computes in, and what it keeps, byte for byte."""

import dataclasses

import jax
import pytest

from nft_jax import config_files
from nft_jax.config import load
from nft_jax.data.random_prompts import random_dataset
from nft_jax.experiment import Experiment
from nft_jax.machine.memory import device_bytes
from nft_jax.plan.program import NoGrader, build_planned_experiment
from nft_jax.types import Prompts

WEIGHTS = 494_032_768  # of Qwen2.5-0.5B, as its model card has it: 0.49B
GIB = 2**30
# What a T4 of 15 GiB lets JAX have by default.
T4_BY_DEFAULT = 0.75 * 15 * GIB


@pytest.fixture(scope="module")
def config():
    return load(config_files.config("qwen25_0p5b_colab"))


def experiment(config, **changes):
    """On one device, with random prompts; `layers=1` changes the model."""
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))
    return build_planned_experiment(config, jax.devices()[:1], random_dataset(config, 1, prompts=64))


def test_what_it_keeps(config):
    placed = experiment(config)
    assert placed.model.parameters == WEIGHTS
    held = device_bytes(placed)
    slot = 2 * 24 * 2 * 64 * (256 + 512) * 4
    assert held["weights"] == held["sampling_weights"] == 4 * WEIGHTS
    assert 0 <= held["moments"] - 8 * WEIGHTS < 64
    assert held["cache"] == 64 * slot
    # The view and the cache are gone when the gradient, and what a micro-batch adds to it, are there.
    kept = held["weights"] + held["moments"] + held["prompts"]
    assert kept + max(held["sampling_weights"] + held["cache"], 8 * WEIGHTS) < 0.9 * T4_BY_DEFAULT


def test_what_it_keeps_with_adapters():
    config = load(config_files.config("qwen25_0p5b_colab_lora"))
    placed = experiment(config)
    D, F, KV, rank = 896, 4864, 2 * 64, config.lora.rank
    adapters = 24 * rank * (2 * (D + D) + 2 * (D + KV) + 3 * (D + F))
    assert placed.model.parameters == WEIGHTS
    assert placed.model.adapters == adapters
    held = device_bytes(placed)
    assert (held["weights"], held["frozen"]) == (4 * adapters, 4 * WEIGHTS)
    assert held["sampling_weights"] == 4 * WEIGHTS
    assert 0 <= held["moments"] - 8 * adapters < 64
    # In int8, the matrices of the layers take a quarter, and 4 bytes for each of their outputs.
    outputs = 24 * (2 * D + 2 * KV + 2 * F + D)
    matrices = 24 * (2 * D * D + 2 * D * KV + 3 * D * F)
    rounded = experiment(dataclasses.replace(config, rollout=dataclasses.replace(config.rollout, weights="int8")))
    assert device_bytes(rounded)["sampling_weights"] == 4 * (WEIGHTS - matrices) + matrices + 4 * outputs


@pytest.mark.parametrize(("dtype", "halves"), [("float32", False), ("bfloat16", True)])
def test_a_t4_finds_no_number_of_16_bits_in_its_step(config, dtype, halves):
    """One layer has the dtypes of all; `bfloat16`, what a v5e-1 is told to take, shows that the text would tell."""
    assert config.model.dtype == "float32"
    text = lowered(experiment(config, layers=1, dtype=dtype))
    assert ("bf16" in text) == halves
    assert "f16>" not in text.replace("bf16", "")


def lowered(placed: Experiment) -> str:
    optimizer = placed.make_optimizer()
    step, prompts = placed.step(optimizer, NoGrader()), Prompts(*placed.dataset.tables["train"][:2])
    return jax.jit(lambda *state: step(*state)).lower(placed.abstract_state(optimizer), prompts).as_text()
