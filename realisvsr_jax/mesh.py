"""The device mesh: its axes, how many devices each has, and what lies along which.

A batch lies along `data` and `fsdp`, tokens along the two sequence axes, parameters along `fsdp`
and the sequence axes together, and along `tensor`. Users set `seq`; inside it is two axes,
`seq_heads`, which takes as many devices as divide the heads, and `seq_kv` for the rest (Ulysses,
Jacobs et al. 2023, with keys and values gathered over what the heads do not divide).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, PartitionSpec

from realisvsr_jax.errors import InputError

SEQ = ("seq_kv", "seq_heads")  # this order keeps a device's keys contiguous after both exchanges
BATCH = ("data", "fsdp")
FSDP = ("fsdp", *SEQ)
TENSOR = "tensor"
AXES = (*BATCH, *SEQ, TENSOR)


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; one of them may be −1, which takes what is left.

    `data` repeats the parameters, `fsdp` shares them out, `seq` shares out the tokens of a clip,
    `tensor` the width of the layers. Raises InputError for a size that is neither.
    """

    data: int = 1
    fsdp: int = -1
    seq: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        sizes = self.sizes
        for name, size in sizes.items():
            if size < 1 and size != -1:
                raise InputError(f"mesh.{name} is {size}; give a number from 1, or -1 for the rest")
        if list(sizes.values()).count(-1) > 1:
            raise InputError(f"mesh: more than one axis is -1: {sizes}")

    @property
    def sizes(self) -> dict[str, int]:
        """By axis."""
        return {"data": self.data, "fsdp": self.fsdp, "seq": self.seq, "tensor": self.tensor}

    def resolved(self, devices: int) -> dict[str, int]:
        """Sizes whose product is `devices`; raises InputError where there are none."""
        sizes = self.sizes
        fixed = math.prod(size for size in sizes.values() if size != -1)
        shown = " × ".join(f"{name} {size}" for name, size in sizes.items() if size != -1)
        if fixed > devices:
            raise InputError(f"mesh: {shown} is {fixed} devices, there are {devices}")
        if devices % fixed or (fixed < devices and -1 not in sizes.values()):
            raise InputError(f"mesh: {shown} is {fixed}, which does not fill {devices} devices")
        return {name: devices // fixed if size == -1 else size for name, size in sizes.items()}


def make_mesh(config: MeshConfig, num_heads: int, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over `devices`, all there are by default, for attention with `num_heads` heads.

    Raises InputError for sizes that do not fill the devices, and for a tensor axis that does
    not divide the heads.
    """
    devices = jax.devices() if devices is None else devices
    sizes = config.resolved(len(devices))
    if num_heads % sizes["tensor"]:
        raise InputError(f"mesh.tensor is {sizes['tensor']}, which {num_heads} heads do not divide")
    seq_heads = math.gcd(num_heads // sizes["tensor"], sizes["seq"])
    inner = {"seq_kv": sizes["seq"] // seq_heads, "seq_heads": seq_heads}
    shape = tuple((sizes | inner)[axis] for axis in AXES)
    if len(devices) > 1 and getattr(devices[0], "platform", "") == "tpu":
        # A cube of 4×4×4 chips has no axis of 8, so its own axes may have to be split.
        grid = create_device_mesh(shape, devices, allow_split_physical_axes=True)
    else:
        grid = np.asarray(devices, dtype=object).reshape(shape)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def axis_size(axes: str | tuple[str, ...]) -> int:
    """Devices along `axes` of the mesh in use (`jax.set_mesh`); 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return 1
    return math.prod(mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes))


def constrain(x: jax.Array, *spec: Any) -> jax.Array:
    """`x` laid out along the mesh in use; as it is without one."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))
