"""The optimizer: its schedule in numbers, what Muon may touch, and where its state lies."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from helpers.small_parts import MODEL, VOCABULARY
from nft_jax.config import OptimizerConfig
from nft_jax.models import transformer
from nft_jax.parallel import layout
from nft_jax.update.optimizer import learning_rate, make_optimizer, state_specs

_, ABSTRACT, AXES = transformer.abstract_model(MODEL, VOCABULARY)
SPECS = layout.specs(AXES, layout.TRAINING)
MATRICES = {"query", "key", "value", "output", "router", "gate", "up", "down"}


def is_spec(leaf):
    return isinstance(leaf, PartitionSpec)


@pytest.mark.parametrize("warmup", [0, 1, 4])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_learning_rate_warms_up_from_its_first_update_and_decays_to_zero(schedule, warmup):
    peak, updates = 0.5, 20
    rate = learning_rate(OptimizerConfig(learning_rate=peak, schedule=schedule, warmup_updates=warmup), updates)

    def expected(update):
        if update < warmup:
            return peak * (update + 1) / warmup
        done = min((update - warmup) / (updates - warmup), 1)
        return peak * {"constant": 1, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[schedule]

    with jax.numpy_dtype_promotion("standard"):  # inside optax
        found = [float(rate(jnp.int32(update))) for update in range(updates + 3)]
    np.testing.assert_allclose(found, [expected(update) for update in range(updates + 3)], rtol=1e-6, atol=1e-7)


def test_learning_rate_allows_a_warm_up_longer_than_the_run():
    rate = learning_rate(OptimizerConfig(learning_rate=1.0, schedule="linear", warmup_updates=10), 5)
    np.testing.assert_allclose([float(rate(jnp.int32(i))) for i in range(5)], [0.1, 0.2, 0.3, 0.4, 0.5], rtol=1e-6)


def test_learning_rate_climbs_by_stairs_from_zero():
    """As a scheduler of torch that is advanced after every 4 updates: its rate is peak · min(advances / 3, 1)."""
    rate = learning_rate(OptimizerConfig(learning_rate=0.6, warmup_updates=12, warmup_stair=4), 100)
    with jax.numpy_dtype_promotion("standard"):  # inside optax
        found = [float(rate(jnp.int32(update))) for update in range(20)]
    np.testing.assert_allclose(found, [0.6 * min(update // 4 / 3, 1) for update in range(20)], rtol=1e-6)


def adamw(value, steps):
    """One number under AdamW by the book, its gradient 0.3, no clipping; returns it after `steps`."""
    first = second = 0.0
    for step in range(1, steps + 1):
        first, second = 0.8 * first + 0.2 * 0.3, 0.9 * second + 0.1 * 0.09
        change = first / (1 - 0.8**step) / (math.sqrt(second / (1 - 0.9**step)) + 1e-3) + 0.1 * value
        value -= 0.01 * change
    return value


def test_make_optimizer_adamw_uses_the_configured_numbers():
    config = OptimizerConfig(
        learning_rate=0.01, warmup_updates=0, beta1=0.8, beta2=0.9, epsilon=1e-3, weight_decay=0.1, clip_norm=1e9
    )
    optimizer = make_optimizer(config, 10, None)
    weights, state = {"x": jnp.float32(2.0)}, optimizer.init({"x": jnp.float32(2.0)})
    for _ in range(3):
        change, state = optimizer.update({"x": jnp.float32(0.3)}, state, weights)
        weights = optax.apply_updates(weights, change)
    np.testing.assert_allclose(weights["x"], adamw(2.0, 3), rtol=1e-5)


def test_make_optimizer_clips_gradients_by_their_global_norm():
    config = OptimizerConfig(learning_rate=1.0, warmup_updates=0, weight_decay=0.0, epsilon=1.0, clip_norm=0.1)
    optimizer = make_optimizer(config, 10, None)
    weights = {"x": jnp.zeros(2), "y": jnp.zeros(3)}
    gradient = {"x": jnp.full(2, 3.0), "y": jnp.full(3, -4.0)}
    change, _ = optimizer.update(gradient, optimizer.init(weights), weights)
    clipped = 0.1 / math.sqrt(2 * 9 + 3 * 16) * np.array([3.0, -4.0])
    # The first update of Adam is g / (|g| + ε); ε = 1 lets the size show.
    np.testing.assert_allclose([change["x"][0], change["y"][0]], -clipped / (np.abs(clipped) + 1), rtol=1e-5)


@pytest.mark.parametrize("sizes", [{}, {"experts": 3, "experts_per_token": 2}], ids=["dense", "experts"])
def test_make_optimizer_muon_gets_only_the_matrices_of_the_layers(sizes):
    config = OptimizerConfig(name="muon", learning_rate=1.0, warmup_updates=0, weight_decay=0.0, clip_norm=1e9)
    _, abstract, axes = transformer.abstract_model(dataclasses.replace(MODEL, **sizes), VOCABULARY)
    optimizer = make_optimizer(config, 10, axes)
    random = np.random.default_rng(0)
    gradient = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32) * 1e-2, abstract)
    weights = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), abstract)
    change, _ = jax.jit(optimizer.update)(gradient, optimizer.init(weights), weights)
    gradient_of = {path[-1].key: value for path, value in jax.tree_util.tree_leaves_with_path(gradient)}
    for path, moved in jax.tree_util.tree_leaves_with_path(change):
        name = path[-1].key
        if name in MATRICES:
            # Orthogonalised, each layer and expert by itself: singular values about alike, not signs.
            for matrix in moved.reshape(-1, *moved.shape[-2:]):
                size = np.linalg.svd(matrix, compute_uv=False)
                assert size.min() > 0.25 * size.max(), name
                assert np.abs(matrix).std() > 0.1 * np.abs(matrix).mean(), name
        else:
            # Adam's first update: signs (optax's Muon runs Adam with Nesterov momentum, so they are larger than 1).
            np.testing.assert_allclose(moved, -1.4737 * np.sign(gradient_of[name]), rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_make_optimizer_decays_all_weights(name):
    config = OptimizerConfig(name=name, learning_rate=0.5, warmup_updates=0, weight_decay=0.1)
    optimizer = make_optimizer(config, 10, AXES)
    ones, zeros = (jax.tree.map(lambda x, n=n: np.full(x.shape, n, np.float32), ABSTRACT) for n in (1, 0))
    change, _ = jax.jit(optimizer.update)(zeros, optimizer.init(ones), ones)
    for path, moved in jax.tree_util.tree_leaves_with_path(change):
        np.testing.assert_allclose(moved, -0.05, rtol=1e-6, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_specs_are_those_of_the_weights(name):
    optimizer = make_optimizer(OptimizerConfig(name=name), 10, AXES)
    found = state_specs(optimizer, ABSTRACT, SPECS)
    state = jax.eval_shape(optimizer.init, ABSTRACT)
    assert jax.tree.structure(found, is_leaf=is_spec) == jax.tree.structure(state)
    spec_of = {
        jax.tree_util.keystr(path): (leaf.shape, spec)
        for (path, leaf), spec in zip(
            jax.tree_util.tree_leaves_with_path(ABSTRACT), jax.tree.leaves(SPECS, is_leaf=is_spec), strict=True
        )
    }
    mirrored = []
    for (path, leaf), spec in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(found, is_leaf=is_spec), strict=True
    ):
        owners = [weight for weight in spec_of if jax.tree_util.keystr(path).endswith(weight)]
        owner = max(owners, key=len, default=None)
        if owner is not None and leaf.ndim:
            assert spec_of[owner] == (leaf.shape, spec), path
            mirrored.append(owner)
        else:
            assert spec == PartitionSpec(), path
    # Adam keeps two moments of each weight, Muon one of each matrix; counts and Muon's coefficients are replicated.
    counts = {weight: 1 if name == "muon" and weight.split("'")[-2] in MATRICES else 2 for weight in spec_of}
    assert {weight: mirrored.count(weight) for weight in spec_of} == counts
