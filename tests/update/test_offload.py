"""Moments that wait in the host's memory between updates: where they lie, and that nothing else changes."""

import types

import jax
import numpy as np
import pytest

from helpers.experiments import assert_same, build_on_mesh, on_host, small
from helpers.small_parts import lively_weights
from nft_jax.experiment import build_experiment
from nft_jax.parallel import layout
from nft_jax.run.checkpoint import Checkpoints
from nft_jax.supervised import SupervisedStep, make_sequences
from nft_jax.update.optimizer import make_optimizer

SIZES = {"mesh__data": 2, "mesh__tensor": 2, "warm_start__steps": 2, "warm_start__examples_per_update": 8}


def kinds(state):
    return jax.tree.map(lambda x: x.sharding.memory_kind, state)


class Trained:
    """A state after two supervised updates in one program."""

    def __init__(self, config, folder):
        self.experiment = experiment = build_on_mesh(config, folder)
        self.optimizer = make_optimizer(config.optimizer, config.steps, experiment.model.axes)
        step, examples = SupervisedStep(experiment, self.optimizer), make_sequences(experiment.dataset.examples)
        weights = experiment.place(lively_weights(experiment.config.model), experiment.model.weight_specs)
        state, shardings = experiment.initial_state(self.optimizer, weights), experiment.state_shardings(self.optimizer)

        def train(state):
            return jax.lax.scan(lambda state, _: step(state, examples), state, length=2)

        self.program = jax.jit(train, in_shardings=(shardings,), out_shardings=(shardings, None), donate_argnums=0)
        self.state, (self.applied, _) = self.program(state)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Without and with offload."""
    folder = tmp_path_factory.mktemp("runs")
    return [Trained(small(optimizer__offload=offload, **SIZES), folder) for offload in (False, True)]


def test_make_optimizer_offload_takes_the_same_updates(trained):
    kept, offloaded = trained
    assert np.all(kept.applied.taken == 1)
    # Two programs, so that XLA may add up the gradient's norm in another order: equal to rounding.
    found, expected = (on_host((one.applied, one.state)) for one in (offloaded, kept))
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        # Attention does not see the keys' bias, so that its gradient is rounding alone.
        largest = 1 if "key_bias" in (name := jax.tree_util.keystr(path)) else np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * largest, err_msg=name)


def test_on_host_keeps_only_moments_on_the_host(trained):
    kept, offloaded = (one.state for one in trained)
    for x in jax.tree.leaves(offloaded.optimizer_state):
        assert x.sharding.memory_kind == ("pinned_host" if x.ndim > 1 else "device")
        assert len(x.sharding.device_set) == 4
    waiting = [x for x in jax.tree.leaves(offloaded.optimizer_state) if x.sharding.memory_kind == "pinned_host"]
    assert sum(x.size for x in waiting) > 1.99 * sum(x.size for x in jax.tree.leaves(offloaded.weights))
    assert set(jax.tree.leaves(kinds(offloaded._replace(optimizer_state=None)))) == {"device"}
    assert set(jax.tree.leaves(kinds(kept))) == {"device"}


def test_on_host_state_is_restored_to_the_hosts_memory(trained, tmp_path):
    _, offloaded = trained
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(2, offloaded.state, {})
        checkpoints.wait()
        abstract = offloaded.experiment.abstract_state(offloaded.optimizer)
        _, restored = checkpoints.restore(abstract, lambda run: None)
    assert kinds(restored) == kinds(offloaded.state)
    assert_same(on_host(restored), on_host(offloaded.state))
    offloaded.program(restored)


def test_check_host_memory_refuses_devices_without_pinned_memory():
    memory = types.SimpleNamespace(kind="unpinned_host")
    device = types.SimpleNamespace(platform="abacus", addressable_memories=lambda: [memory])
    mesh = types.SimpleNamespace(devices=np.array([device]))
    with pytest.raises(ValueError, match=r"config.a=true: needs .*'pinned_host'.*\(abacus\) have only unpinned_host"):
        layout.check_host_memory(mesh, {"config.a=true": True, "config.b=true": False})
    layout.check_host_memory(mesh, {"config.a=true": False})


@pytest.mark.parametrize(
    "setting", [{"optimizer__offload": True}, {"warm_start__optimizer__offload": True}, {"model__remat": "offload"}]
)
def test_check_host_memory_checks_every_setting_that_needs_it(monkeypatch, tmp_path, setting):
    monkeypatch.setattr(layout, "HOST_MEMORY", "none_such")
    path, value = setting.popitem()
    with pytest.raises(
        ValueError, match=f"config.{path.replace('__', '.')}={'true' if value is True else repr(value)}:"
    ):
        build_experiment(small(**{path: value}), tmp_path, jax.devices()[:1])
