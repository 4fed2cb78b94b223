"""The mesh: its sizes, its order, its axis types, and what it says when the devices don't fit."""

import jax
import pytest

from nft_jax.compat import AxisType
from nft_jax.parallel.mesh import make_mesh, shard_count, tensor_groups_are_local


@pytest.mark.parametrize(
    ("data", "tensor", "shape"),
    [(-1, 1, (8, 1)), (-1, 2, (4, 2)), (-1, 8, (1, 8)), (2, 2, (2, 2)), (3, 2, (3, 2)), (1, 1, (1, 1))],
)
def test_make_mesh_sizes_and_order(data, tensor, shape):
    mesh = make_mesh(data, tensor)
    assert mesh.axis_names == ("replica", "data", "tensor")
    assert mesh.devices.shape == (1, *shape)
    assert mesh.devices.ravel().tolist() == jax.devices()[: shape[0] * shape[1]]
    assert mesh.axis_types == (AxisType.Auto,) * 3


def test_make_mesh_keeps_the_order_of_given_devices():
    devices = jax.devices()[5:1:-1]
    assert make_mesh(-1, 2, devices).devices.ravel().tolist() == devices


@pytest.mark.parametrize(
    ("data", "tensor", "message"),
    [
        (-1, 3, r"mesh\.tensor=3 does not divide the 8 devices present; use a product among \[1, 2, 4, 8\]"),
        (-1, 16, r"mesh\.tensor=16 does not divide the 8 devices"),
        (-1, 0, r"mesh\.tensor=0 does not divide the 8 devices"),
        (4, 3, r"mesh\.tensor=3 × mesh\.data=4 needs 12 devices, but 8 are present; use mesh\.data=-1"),
        (0, 1, r"mesh\.data=0"),
        (-2, 1, r"mesh\.data=-2"),
        (2, -1, r"mesh\.tensor=-1"),
    ],
)
def test_make_mesh_refuses_sizes_that_do_not_fit(data, tensor, message):
    with pytest.raises(ValueError, match=message):
        make_mesh(data, tensor)


def test_make_mesh_puts_replicas_first():
    mesh = make_mesh(-1, 2, replica=2)
    assert dict(mesh.shape) == {"replica": 2, "data": 2, "tensor": 2}
    assert shard_count(mesh) == 4
    with pytest.raises(ValueError, match=r"mesh\.replica=3 × mesh\.tensor=2 does not divide the 8 devices"):
        make_mesh(-1, 2, replica=3)


class Chip:
    """A stand-in for a TPU chip of one of several slices."""

    def __init__(self, number, slice_index, process_index=0):
        self.id, self.slice_index, self.process_index = number, slice_index, process_index


def test_make_mesh_crosses_slices_by_the_replica_axis_alone():
    # The order that a runtime might give them in: by turns.
    chips = [Chip(number, number % 2) for number in range(8)]
    mesh = make_mesh(-1, 2, chips, replica=2)
    assert [{chip.slice_index for chip in part.ravel()} for part in mesh.devices] == [{0}, {1}]
    assert [chip.id for chip in mesh.devices[1].ravel()] == [1, 3, 5, 7]
    for replica, data in [(1, -1), (2, 1)]:
        with pytest.raises(ValueError, match=r"on 2 slices of 4 devices: .* use mesh\.replica=2 or a multiple"):
            make_mesh(data, 2, chips, replica=replica)


@pytest.mark.parametrize(("tensor", "expected"), [(1, True), (2, True), (4, False)])
def test_tensor_groups_are_local(tensor, expected):
    """Of four processes with two devices each."""
    chips = [Chip(number, 0, process_index=number // 2) for number in range(8)]
    assert tensor_groups_are_local(make_mesh(-1, tensor, devices=chips)) == expected
