"""The experiment that the tests of the smoke test share."""

import pytest

from helpers.experiments import open_on_mesh, small


@pytest.fixture(scope="package")
def experiment(tmp_path_factory):
    config = small(mesh__data=4, mesh__tensor=2, prompts_per_step=16, rollout__slots=4)
    experiment = open_on_mesh(config, tmp_path_factory.mktemp("smoke"))
    yield experiment
    experiment.verifier.pool.close()
