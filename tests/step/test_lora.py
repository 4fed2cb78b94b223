"""The step with adapters: they alone change, the sampler reads them merged, and frozen weights stay where they are."""

import jax
import numpy as np
import pytest

from helpers.experiments import Program, assert_same, grader, moved, on_host, small
from nft_jax.machine.memory import device_bytes
from nft_jax.models.sharded import count_weights
from nft_jax.run.metrics import step_metrics

SIZES = {
    "lora__rank": 4,
    "loss__kl_weight": 0.1,
    "optimizer__learning_rate": 0.003,
    "optimizer__weight_decay": 0.0,
}


ON_A_MESH = {"mesh__data": 2, "mesh__tensor": 2, "model__dtype": "bfloat16"}
CASES = {
    "float32": {},
    "int8 for the sampler": ON_A_MESH | {"rollout__weights": "int8"},
    "int8 base": ON_A_MESH | {"lora__base": "int8", "mesh__replica": 2},
}


@pytest.fixture(scope="module", params=CASES)
def program(request, folder):
    program = Program(small(verify__grader=grader("coin"), **SIZES, **CASES[request.param]), folder)
    yield program
    program.close()


def addresses(tree):
    return [shard.data.unsafe_buffer_pointer() for x in jax.tree.leaves(tree) for shard in x.addressable_shards]


def test_step_trains_adapters_alone(program):
    state = program.start()
    model, dtype = program.experiment.model, program.config.model.dtype
    frozen, before = on_host(state.frozen), on_host(state.weights)
    is_int8 = program.config.lora.base == "int8"
    assert {str(x.dtype) for x in jax.tree.leaves(state.frozen)} == ({dtype, "int8", "float32"} if is_int8 else {dtype})
    assert {str(x.dtype) for x in jax.tree.leaves((state.weights, state.reference))} == {"float32"}
    records = program.take()
    places = addresses(program.state.frozen)
    records += program.take()
    assert [step_metrics(record)["updates_taken"] for record in records] == [1, 1]
    assert moved(before, on_host(program.state.weights))
    assert_same(on_host(program.state.frozen), frozen)
    assert addresses(program.state.frozen) == places  # neither copied nor laid out anew
    assert_same(on_host(program.state.reference), before)
    # Adam's two moments, and the gradient that this program keeps.
    moments = [x for x in jax.tree.leaves(program.state.optimizer_state) if x.ndim]
    assert sum(x.size for x in moments) == 3 * count_weights(state.weights)
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(program.gradient)))
    np.testing.assert_allclose(records[-1].applied.gradient_norm[-1], norm, rtol=1e-5)
    size = 1 if is_int8 else np.dtype(dtype).itemsize
    assert device_bytes(program.experiment)["frozen"] * model.mesh.size >= model.parameters * size


def test_step_samples_what_it_trains_and_measures_kl_from_the_base(program):
    """The sampler reads merged weights, or the base in int8 and the adapters as training does."""
    program.start()
    first, *rest = program.take(3)
    tolerance = 1e-3 if program.config.model.dtype == "float32" else 0.3
    for record in (first, *rest):
        assert record.applied.statistics.gap_max.max() < tolerance
    assert first.applied.statistics.kl[0] == 0
    assert rest[-1].applied.statistics.kl[0] > 1e-3 * rest[-1].totals.tokens[0]


def test_step_without_adapters_has_no_frozen_weights(plain):
    assert plain.state.frozen is None
    assert plain.state.model_weights is plain.state.weights
    assert "frozen" not in device_bytes(plain.experiment)
    assert plain.experiment.model.graph == plain.experiment.model.base.graph
