"""The compiled programs that the tests of the step share."""

import pytest

from helpers.experiments import Program, grader, small, write_graders
from helpers.step_programs import PROGRAMS
from nft_jax.verify import Pool


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    return write_graders(tmp_path_factory.mktemp("step"))


@pytest.fixture(scope="package")
def programs(folder):
    """`(name) -> Program`: each compiled once, and given back as it was before its first step."""
    made: dict[str, Program] = {}

    def get(name: str) -> Program:
        if name not in made:
            changes, parts = PROGRAMS[name]
            made[name] = Program(small(**{"verify__grader": grader("coin")} | changes), folder, **parts)
        made[name].start()
        return made[name]

    yield get
    for program in made.values():
        program.close()


@pytest.fixture
def plain(programs):
    return programs("plain")


@pytest.fixture(scope="package")
def all_incorrect(folder):
    with Pool(grader("all_incorrect")) as pool:
        yield pool


@pytest.fixture(scope="package")
def all_correct(folder):
    with Pool(grader("all_correct")) as pool:
        yield pool
