"""Answers of one small engine, and the trainer's forward pass, that the tests of the rollout share."""

import pytest

from helpers.engines import WEIGHTS, requests, sampler, teacher
from helpers.small_parts import one_device


@pytest.fixture(scope="package")
def sample():
    return sampler(one_device())


@pytest.fixture(scope="package")
def rollout(sample):
    return sample(WEIGHTS, requests())


@pytest.fixture(scope="package")
def forward():
    return teacher()
