"""A run that goes on on another mesh: it starts from the very state that was saved, and takes the same step."""

import jax
import numpy as np
import pytest

from helpers.experiments import Program, assert_same, grader, on_host, small, write_graders
from nft_jax.run.checkpoint import Checkpoints

# FSDP over all devices → tensor parallel on half as many; and both at once.
MESHES = [((8, 1), (1, 4)), ((8, 1), (2, 2)), ((2, 4), (4, 1))]
MODEL = {"model__kv_heads": 4, "loss__kl_weight": 0.1}
SAVED = 2


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """`(data, tensor)`: the compiled step on a mesh of that size."""
    folder, programs = write_graders(tmp_path_factory.mktemp("meshes")), {}

    def get(data, tensor):
        if (data, tensor) not in programs:
            config = small(mesh__data=data, mesh__tensor=tensor, verify__grader=grader("coin"), **MODEL)
            programs[data, tensor] = Program(config, folder)
        return programs[data, tensor]

    yield get
    for one in programs.values():
        one.close()


def relative(one, other) -> float:
    """The largest difference of any two numbers, relative to the largest number of their tensor."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("meshes", MESHES)
def test_make_mesh_of_another_shape_continues_a_run_alike(program, tmp_path, meshes, capsys):
    before, after = (program(*mesh) for mesh in meshes)
    before.start()
    before.take(SAVED)
    saved = on_host(before.state)
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(SAVED, before.state, {})
        checkpoints.wait()
        _, after.state = checkpoints.restore(after.experiment.abstract_state(after.optimizer), lambda run: None)
    assert_same(on_host(after.state), saved)
    (one,), (other,) = before.take(), after.take()
    assert one.rounds == other.rounds
    np.testing.assert_array_equal(one.last.token_QKT, other.last.token_QKT)
    np.testing.assert_array_equal(one.last.verdict_QK, other.last.verdict_QK)
    gradient = relative(before.gradient, after.gradient)
    assert gradient < 1e-5
    weights = relative(on_host(before.state.weights), on_host(after.state.weights))
    with capsys.disabled():
        print(
            f"\n{meshes[0]} → {meshes[1]} (data, tensor): restored state equal; the next step: answers equal, largest "
            f"relative difference of the gradient {gradient:.1e}, of the weights {weights:.1e}"
        )
