"""Losses against TRL's own `_compute_loss`: pip install --no-deps trl==1.16.0."""

import pytest

from helpers.trl_parity import CASES, compare_loss, load_compute_loss

pytestmark = pytest.mark.parity
TOLERANCE = {"float64": 1e-12, "float32": 3e-5}


@pytest.fixture(scope="module")
def compute(torch, peer_folder):
    """TRL's method, without the rest of TRL."""
    return load_compute_loss(peer_folder("trl"), torch)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_trl(name, dtype, compute, torch):
    # TRL makes SAPO's temperatures float32, also beside float64.
    tolerance = 1e-6 if name == "sapo" and dtype == "float64" else TOLERANCE[dtype]
    assert max(compare_loss(compute, torch, CASES[name], dtype)) < tolerance
