"""The mesh: its sizes, its order, its axis types, and what it says when the devices don't fit."""

import jax
import pytest

from nft_jax.compat import AxisType
from nft_jax.parallel.mesh import make_mesh


@pytest.mark.parametrize(
    ("data", "tensor", "shape"),
    [(-1, 1, (8, 1)), (-1, 2, (4, 2)), (-1, 8, (1, 8)), (2, 2, (2, 2)), (3, 2, (3, 2)), (1, 1, (1, 1))],
)
def test_sizes_and_order(data, tensor, shape):
    mesh = make_mesh(data, tensor)
    assert mesh.axis_names == ("data", "tensor")
    assert mesh.devices.shape == shape
    assert mesh.devices.ravel().tolist() == jax.devices()[: shape[0] * shape[1]]
    assert mesh.axis_types == (AxisType.Auto, AxisType.Auto)


def test_a_given_list_of_devices_is_taken_as_it_is():
    devices = jax.devices()[5:1:-1]
    assert make_mesh(-1, 2, devices).devices.ravel().tolist() == devices


@pytest.mark.parametrize(
    ("data", "tensor", "message"),
    [
        (-1, 3, r"mesh\.tensor=3 does not divide the 8 devices present; use one of \[1, 2, 4, 8\]"),
        (-1, 16, r"mesh\.tensor=16 does not divide the 8 devices"),
        (-1, 0, r"mesh\.tensor=0 does not divide the 8 devices"),
        (4, 3, r"mesh\.data=4 × mesh\.tensor=3 needs 12 devices, but 8 are present; use mesh\.data=-1"),
        (0, 1, r"mesh\.data=0 × mesh\.tensor=1"),
        (-2, 1, r"mesh\.data=-2"),
        (2, -1, r"mesh\.tensor=-1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(data, tensor, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(data, tensor)
