"""On-policy distillation in the compiled step: the policy comes nearer to a frozen teacher of another shape."""

import jax
import numpy as np
import pytest

from helpers.experiments import Program, assert_same, grader, on_host, small, write_teacher
from nft_jax.machine.memory import device_bytes
from nft_jax.run.metrics import step_metrics

SMALLER = {"model__layers": 1, "model__width": 16, "model__mlp_width": 24, "model__heads": 2, "model__kv_heads": 1}


@pytest.fixture(scope="module")
def teacher(folder):
    """The folder of a smaller model with the tokenizer of the policy."""
    return write_teacher(folder / "teacher", **SMALLER)


def test_step_with_a_teacher_alone_comes_nearer_to_it(folder, teacher):
    changes = {"distillation__teacher": str(teacher), "distillation__alone": True, "optimizer__learning_rate": 1e-2}
    program = Program(small(verify__grader=grader("coin"), updates_per_step=2, **changes), folder)
    before = on_host(program.state.teacher)
    records = program.take(8)
    found = [step_metrics(record)["loss_metrics"]["teacher_kl"] for record in records]
    assert found[0] > 0.3
    assert found[-1] < 0.5 * found[0], found
    assert_same(on_host(program.state.teacher), before)
    assert "teacher" not in program.state.rest
    held = device_bytes(program.experiment)["teacher"]
    assert held == sum(np.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(before))
    program.close()
