"""NaN and inf in weights are found wherever they are, and named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.small_parts import MODEL, eight_devices, lively_weights
from nft_jax.models.finite import NonFiniteWeights, check_finite, find_nonfinite
from nft_jax.models.sharded import build_model

VOCABULARY = 21
SEED = 18


@pytest.fixture(scope="module")
def weights():
    return lively_weights(MODEL)


def test_find_nonfinite_finds_nothing_in_numbers(weights):
    largest = jax.tree.map(lambda x: np.full_like(x, np.finfo(np.float32).max), weights)
    assert find_nonfinite(weights) == find_nonfinite(largest) == []
    assert find_nonfinite({"whole": np.arange(3), "none": np.zeros((0, 2), np.float32)}) == []


@pytest.mark.parametrize("kind", [np.nan, np.inf, -np.inf])
def test_find_nonfinite_finds_one_number_in_any_weight(weights, kind):
    random = np.random.default_rng(SEED)
    for place, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(weights)):
        spoiled = [np.array(x) for x in jax.tree.leaves(weights)]
        index = tuple(int(random.integers(size)) for size in leaf.shape)
        spoiled[place][index] = kind
        (found,) = find_nonfinite(jax.tree.unflatten(jax.tree.structure(weights), spoiled))
        assert found.path == tuple(part.key for part in path), f"seed {SEED}"
        assert found.layer == (index[0] if "blocks" in found.path else None)
        assert found.size == (leaf[0].size if "blocks" in found.path else leaf.size)
        assert found.count == 1


def test_find_nonfinite_reads_weights_of_any_layout_and_dtype(weights):
    mesh = eight_devices()
    abstract = build_model(MODEL, VOCABULARY, mesh).abstract_weights()
    placed = jax.tree.map(lambda x, like: jax.device_put(x.astype(jnp.bfloat16), like.sharding), weights, abstract)
    assert find_nonfinite(placed) == []
    up = placed["blocks"]["up"]
    placed["blocks"]["up"] = up.at[1, 3].set(jnp.inf)
    (found,) = find_nonfinite(placed)
    assert (found.name, found.count) == ("blocks.up of layer 1", MODEL.mlp_width)


def test_check_finite_names_the_first_weights_and_counts_the_others(weights):
    check_finite(weights, "here", "do this")
    with pytest.raises(NonFiniteWeights) as raised:
        check_finite(jax.tree.map(lambda x: np.full_like(x, np.nan), weights), "here", "do this")
    message = str(raised.value)
    assert message.startswith("here: NaN or inf in blocks.")
    assert message.endswith("; do this")
    assert f" and {len(jax.tree.leaves(weights)) - 4} more" in message
    assert "\n" not in message
