"""The very step that trains, compiled for TPU topologies that nobody holds: libtpu's compiler needs no TPU."""

import importlib.util
import os

import jax
import jax.numpy as jnp
import pytest
from experiments import small

from nft_jax.experiment import Experiment
from nft_jax.step import State, compile_step
from nft_jax.training.optimizer import make_optimizer
from nft_jax.types import Prompts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install libtpu"),
]


@pytest.fixture(scope="module")
def devices():
    from jax.experimental import topologies

    # libtpu ends the process over flags of XLA that it doesn't know; jaxlib has read its own by now.
    jax.devices("cpu")
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "xla_cpu_use_fusion_emitters" not in flag]
    os.environ["XLA_FLAGS"] = " ".join(flags)
    # Off a TPU VM there is no metadata server to ask, and another process may hold the library's lock.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    return list(topologies.get_topology_desc("v5e:2x2", "tpu").devices)


@pytest.mark.parametrize(("data", "tensor"), [(2, 2), (4, 1)])
def test_the_step_compiles_for_a_tpu(devices, tmp_path, data, tensor):
    config = small(mesh__data=data, mesh__tensor=tensor, model__dtype="bfloat16")
    with Experiment(config, tmp_path, devices) as experiment:
        optimizer = make_optimizer(config.optimizer, config.steps, experiment.axes)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        moments = jax.eval_shape(optimizer.init, experiment.abstract)
        state = State(experiment.abstract, moments, number, number, None, None)
        table = experiment.dataset.tables["train"]
        prompts = Prompts(*(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (table.token_NP, table.length_N)))
        compiled = compile_step(experiment.step(optimizer), state, prompts, experiment.state_shardings(optimizer))
    assert experiment.engine.lockstep, "shards of a TPU decode in step until loops of different lengths have run on one"
    assert compiled.memory_analysis().temp_size_in_bytes > 0
