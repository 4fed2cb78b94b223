"""The step of a model with experts on a mesh: sampler and trainer choose the same ones, and all of them learn."""

import numpy as np

from helpers.experiments import Program, grader, on_host, small
from nft_jax.run.metrics import step_metrics

SIZES = {
    **{"model__experts": 4, "model__experts_per_token": 2, "model__experts_normalized": True},
    **{"mesh__data": 2, "mesh__tensor": 2, "optimizer__learning_rate": 0.003},
}


def test_step_trains_experts_and_samples_what_it_trains(folder):
    program = Program(small(verify__grader=grader("coin"), **SIZES), folder)
    try:
        before = on_host(program.start().weights)["blocks"]
        records = program.take(2)
        after = on_host(program.state.weights)["blocks"]
    finally:
        program.close()
    assert [step_metrics(record)["updates_taken"] for record in records] == [1, 1]
    assert max(record.applied.statistics.gap_max.max() for record in records) < 1e-3
    for name in ("router", "gate", "up", "down"):
        moved_E = np.abs(after[name] - before[name]).max(axis=(0, 2, 3) if name != "router" else (0, 1))
        assert np.all(moved_E > 0), name
