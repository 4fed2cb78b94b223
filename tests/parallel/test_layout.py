"""Layouts: a rule for every axis of every weight, generation apart from `data`, and errors that say what would work."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from helpers.small_parts import MODEL, VOCABULARY, eight_devices, lively_weights, one_device
from nft_jax.config import LoraConfig
from nft_jax.models import transformer
from nft_jax.parallel import layout

_, ABSTRACT, AXES = transformer.abstract_model(MODEL, VOCABULARY)


def by_name(tree):
    """`{weight: leaf}`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, PartitionSpec))
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def specs_of(rules):
    return by_name(layout.specs(AXES, rules))


def mesh_axes(spec):
    """The mesh axes that a PartitionSpec names."""
    return [axis for entry in spec if entry for axis in (entry if isinstance(entry, tuple) else (entry,))]


def test_specs_have_a_rule_for_each_axis_of_every_weight():
    weights = by_name(ABSTRACT)
    for rules in (layout.TRAINING, layout.GENERATION):
        found = specs_of(rules)
        assert found.keys() == weights.keys()
        assert all(len(spec) == weights[name].ndim for name, spec in found.items())
    _, _, adapted = transformer.abstract_model(MODEL, VOCABULARY, lora=LoraConfig(rank=2))
    _, _, mixed = transformer.abstract_model(dataclasses.replace(MODEL, experts=2, experts_per_token=1), VOCABULARY)
    used = {axis for model in (adapted, mixed) for axes in by_name(model).values() for axis in axes}
    assert used == layout.TRAINING.keys() == layout.GENERATION.keys(), "a rule that no weight uses, or the reverse"


def test_specs_split_training_over_all_devices_and_generation_over_tensor_alone():
    training, generation = specs_of(layout.TRAINING), specs_of(layout.GENERATION)
    for name in training:
        expected = [] if name.endswith("norm") else ["tensor"] if name.endswith("bias") else ["data", "tensor"]
        assert sorted(mesh_axes(training[name])) == expected
        assert mesh_axes(generation[name]) == [axis for axis in mesh_axes(training[name]) if axis == "tensor"]
    assert "data" not in str(generation)


def test_constrain_lays_out_weights_by_the_rules():
    mesh = eight_devices()
    weights = jax.jit(lambda w: layout.constrain(w, mesh, layout.specs(AXES, layout.TRAINING)))(lively_weights(MODEL))
    D, F = MODEL.width, MODEL.mlp_width
    shard = {name: value.addressable_shards[0].data.shape for name, value in weights["blocks"].items()}
    assert shard["gate"] == (MODEL.layers, D // 4, F // 2)
    assert shard["down"] == (MODEL.layers, F // 8, D)
    assert shard["mlp_norm"] == (MODEL.layers, D)
    assert weights["embedding"].addressable_shards[0].data.shape == (MODEL.vocab // 8, D)


def test_layer_placement_gathers_a_layer_unchanged():
    mesh = eight_devices()
    placement = layout.layer_placement(mesh, AXES["blocks"])
    layer = jax.tree.map(lambda x: x[0], lively_weights(MODEL)["blocks"])
    gathered = jax.jit(placement.weights)(layer)
    jax.tree.map(np.testing.assert_array_equal, gathered, layer)
    assert gathered["gate"].addressable_shards[0].data.shape == (MODEL.width, MODEL.mlp_width // 2)


def test_split_rows_splits_the_given_axis():
    mesh, values = eight_devices(), {"x": np.zeros((2, 8, 3)), "y": np.zeros((4, 4))}
    found = jax.jit(lambda tree: layout.split_rows(tree, mesh, axis=1))(values)
    assert found["x"].addressable_shards[0].data.shape == (2, 2, 3)
    assert found["y"].addressable_shards[0].data.shape == (4, 1)


def test_check_divisible_names_all_weights_that_do_not_fit_with_sizes_that_do():
    layout.check_divisible(ABSTRACT, AXES, eight_devices())
    odd = dataclasses.replace(MODEL, vocab=21, width=30, mlp_width=44, heads=3, kv_heads=3, head_size=7)
    _, abstract, axes = transformer.abstract_model(odd, VOCABULARY)
    layout.check_divisible(abstract, axes, one_device())
    with pytest.raises(ValueError, match="does not divide over the mesh") as error:
        layout.check_divisible(abstract, axes, eight_devices())
    text = str(error.value)
    named = {re.match(r"  ([\w/]+): ", line).group(1) for line in text.splitlines()[1:]}
    assert named == {name for name in by_name(abstract) if not name.endswith("norm")}
    assert "embedding: its axis 'vocab' of size 21 is split into 8 parts" in text
    # Each fault's suggestions work: the nearest multiples below and above.
    for fault in re.findall(r"of size (\d+) is split into (\d+) parts .*; use (\d+) or (\d+)", text):
        size, parts, below, above = map(int, fault)
        assert below % parts == above % parts == 0
        assert below < size < above == below + parts


def test_check_divisible_suggests_no_empty_axis():
    _, abstract, axes = transformer.abstract_model(dataclasses.replace(MODEL, mlp_width=6), VOCABULARY)
    with pytest.raises(ValueError, match="blocks/down: its axis 'mlp_in' of size 6 .* 8 parts .* use 8") as error:
        layout.check_divisible(abstract, axes, eight_devices())
    assert "use 0" not in str(error.value)
