"""Sizes of a mesh: what is filled in, and what cannot be."""

import dataclasses
import itertools

import jax
import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.mesh import AXES, MeshConfig, axis_size, constrain, make_mesh


@pytest.mark.parametrize(
    ("sizes", "devices", "resolved"),
    [
        ({}, 1, (1, 1, 1, 1)),
        ({}, 8, (1, 8, 1, 1)),
        ({"seq": 2}, 8, (1, 4, 2, 1)),
        ({"data": -1, "fsdp": 2, "seq": 2}, 16, (4, 2, 2, 1)),
        ({"fsdp": 2, "seq": 2, "tensor": 2}, 8, (1, 2, 2, 2)),
    ],
)
def test_one_axis_takes_what_is_left(sizes, devices, resolved):
    assert tuple(MeshConfig(**sizes).resolved(devices).values()) == resolved


@pytest.mark.parametrize(
    ("sizes", "devices", "message"),
    [
        ({"fsdp": 16}, 8, r"data 1 × fsdp 16 × seq 1 × tensor 1 is 16 devices, there are 8"),
        ({"seq": 3}, 8, r"data 1 × seq 3 × tensor 1 is 3, which does not fill 8 devices"),
        ({"fsdp": 2}, 8, "is 2, which does not fill 8 devices"),
    ],
)
def test_a_mesh_that_does_not_fill_the_devices_is_refused(sizes, devices, message):
    with pytest.raises(InputError, match=message):
        MeshConfig(**sizes).resolved(devices)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"seq": 0}, r"mesh\.seq is 0; give a number from 1, or -1"),
        ({"data": -1}, "more than one axis is -1"),
    ],
)
def test_sizes_that_are_none_are_refused(sizes, message):
    with pytest.raises(InputError, match=message):
        MeshConfig(**sizes)


def test_a_tensor_axis_divides_the_heads():
    mesh = make_mesh(MeshConfig(), 12)
    assert mesh.axis_names == AXES
    devices = jax.devices() * 8
    with pytest.raises(InputError, match=r"mesh\.tensor is 8, which 12 heads do not divide"):
        make_mesh(MeshConfig(tensor=8), 12, devices)


def test_without_a_mesh_nothing_is_laid_out():
    x = jax.numpy.ones(3)
    assert axis_size(AXES) == 1
    assert constrain(x, "fsdp") is x


@dataclasses.dataclass(frozen=True)
class Chip:
    """What JAX asks a TPU about its place."""

    id: int
    coords: tuple[int, ...]
    platform: str = "tpu"
    device_kind: str = "TPU v5"
    core_on_chip: int = 0
    process_index: int = 0


def test_a_cube_of_chips_takes_an_axis_that_none_of_its_own_has():
    places = itertools.product(range(4), repeat=3)
    chips = [Chip(number, place[::-1]) for number, place in enumerate(places)]
    mesh = make_mesh(MeshConfig(seq=8), 40, chips)
    assert (mesh.shape["fsdp"], mesh.shape["seq_heads"]) == (8, 8)
    # Devices that exchange tokens are neighbours: a box of 2 × 4 chips or the like.
    for group in mesh.devices.reshape(8, 8):
        spans = [len({chip.coords[axis] for chip in group}) for axis in range(3)]
        assert sorted(spans) in ([1, 2, 4], [2, 2, 2])
