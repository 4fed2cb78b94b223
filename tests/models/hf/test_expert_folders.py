"""Folders of models with experts: one tensor for each expert, and the same weights on any mesh."""

import dataclasses

import jax
import numpy as np
import pytest

from helpers.model_folders import load_folder, stored_tensors, write_tokenizer
from helpers.small_parts import MODEL, VOCABULARY, eight_devices, lively_weights, one_device
from nft_jax.data.tokenizer import load_tokenizer
from nft_jax.models import hf

CONFIG = dataclasses.replace(MODEL, qkv_bias=False, qk_norm="head", experts=3, experts_per_token=2, layers=2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder, and the weights that were written to it."""
    folder, weights = tmp_path_factory.mktemp("experts"), lively_weights(CONFIG)
    hf.write_settings(folder, CONFIG, load_tokenizer(write_tokenizer(folder / "tokenizer")))
    hf.save_weights(folder, weights, vocab=VOCABULARY)
    return folder, weights


def test_save_weights_writes_a_tensor_for_each_expert(saved):
    folder, weights = saved
    tensors = stored_tensors(folder)
    for layer in range(2):
        prefix = f"model.layers.{layer}.mlp"
        np.testing.assert_array_equal(tensors[f"{prefix}.gate.weight"], weights["blocks"]["router"][layer].T)
        for expert in range(3):
            for name in ("gate", "up", "down"):
                found = tensors[f"{prefix}.experts.{expert}.{name}_proj.weight"]
                np.testing.assert_array_equal(found, weights["blocks"][name][layer, expert].T)
    assert not [name for name in tensors if name.endswith("mlp.gate_proj.weight")]


@pytest.mark.parametrize("mesh", [one_device, eight_devices])
def test_load_weights_reads_what_was_written(saved, mesh):
    folder, weights = saved
    found = load_folder(folder, mesh())
    cut = {name: np.asarray(weights[name])[:VOCABULARY] for name in ("embedding", "head")}
    for name, table in cut.items():
        np.testing.assert_array_equal(np.asarray(found[name])[:VOCABULARY], table)
    jax.tree.map(np.testing.assert_array_equal, found["blocks"], weights["blocks"])


def test_load_weights_names_experts_that_are_not_finite(saved, tmp_path):
    folder, weights = saved
    up = weights["blocks"]["up"].copy()
    up[1, 2, 3, 4] = np.nan
    broken = weights | {"blocks": weights["blocks"] | {"up": up}}
    hf.write_settings(tmp_path, CONFIG, load_tokenizer(folder / "tokenizer"), folder)
    hf.save_weights(tmp_path, broken, vocab=VOCABULARY)
    with pytest.raises(ValueError, match="layers.1.mlp.experts.0.up_proj.weight or that of another expert"):
        load_folder(tmp_path, one_device())
