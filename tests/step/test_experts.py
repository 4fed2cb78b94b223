"""The step of a model with experts: sampler and trainer choose the same ones, all learn, and a mesh changes nothing."""

import jax
import numpy as np
import pytest

from helpers.experiments import Program, assert_same, grader, on_host, small
from nft_jax.run.metrics import step_metrics

EXPERTS = {
    **{"model__experts": 4, "model__experts_per_token": 2, "model__experts_normalized": True},
    "optimizer__learning_rate": 0.003,
}
MESHES = [{}, {"mesh__replica": 2, "mesh__data": 2, "mesh__tensor": 2}]


@pytest.fixture(scope="module")
def programs(folder):
    """The program on one device, and that on eight."""
    programs = [Program(small(verify__grader=grader("coin"), **EXPERTS, **mesh), folder) for mesh in MESHES]
    yield programs
    for program in programs:
        program.close()


def test_step_on_eight_devices_draws_the_same_answers_and_takes_the_same_gradient(programs):
    for program in programs:
        program.start()
    (one,), (eight,) = (program.take() for program in programs)
    assert_same((one.last.prompt_Q, one.last.token_QKT), (eight.last.prompt_Q, eight.last.token_QKT))
    gradients = [on_host(program.gradient) for program in programs]
    for mine, its in zip(*map(jax.tree.leaves, gradients), strict=True):
        assert np.linalg.norm(mine) > 0
        assert np.linalg.norm(mine - its) <= 1e-5 * np.linalg.norm(mine)


def test_step_trains_experts_and_samples_what_it_trains(programs):
    program = programs[1]
    before = on_host(program.start().weights)["blocks"]
    records = program.take(2)
    after = on_host(program.state.weights)["blocks"]
    assert [step_metrics(record)["updates_taken"] for record in records] == [1, 1]
    assert max(record.applied.statistics.gap_max.max() for record in records) < 1e-3
    for name in ("router", "gate", "up", "down"):
        moved_E = np.abs(after[name] - before[name]).max(axis=(0, 2, 3) if name != "router" else (0, 1))
        assert np.all(moved_E > 0), name
