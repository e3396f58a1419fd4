"""Accelerators by name: their chips' memory and speed, and devices to compile for."""

import math
import re
from dataclasses import dataclass
from typing import Any

import jax

from realisvsr_jax.errors import InputError

GB = 10**9


@dataclass(frozen=True)
class Chip:
    """One chip: memory in bytes, bfloat16 FLOP/s, memory and interconnect in bytes/s.

    `platform` is JAX's name; sources are the makers' data sheets.
    """

    platform: str
    memory: int
    flops: float
    bandwidth: float
    interconnect: float


CHIPS = {
    "v5e": Chip("tpu", 16 * 2**30, 197e12, 819e9, 200e9),
    "v5p": Chip("tpu", 95 * 2**30, 459e12, 2765e9, 600e9),
    "v6e": Chip("tpu", 32 * 2**30, 918e12, 1640e9, 448e9),
    "a100": Chip("gpu", 80 * GB, 312e12, 2039e9, 300e9),
    "h100": Chip("gpu", 80 * GB, 989e12, 3350e9, 450e9),
    "h200": Chip("gpu", 141 * GB, 989e12, 4800e9, 450e9),
    "cpu": Chip("cpu", 24 * GB, 1e11, 20e9, 10e9),
}


@dataclass(frozen=True)
class Topology:
    """So many chips of a kind; of a TPU in a grid, 'v5e:4x4'."""

    name: str
    chip: Chip
    chips: int

    @property
    def is_estimate(self) -> bool:
        """Whether the programs are compiled for another machine: no GPU compiler is at hand."""
        return self.chip.platform == "gpu"

    @property
    def attention(self) -> str:
        """The backend that trains there, of those that can be compiled here."""
        return "splash" if self.chip.platform == "tpu" else "xla"

    def devices(self) -> list[Any]:
        """To compile for; raises InputError where there is no compiler, or no such grid."""
        if self.chip.platform == "tpu":
            return _tpu_devices(self.name)
        devices = jax.devices("cpu")
        if len(devices) < self.chips:
            raise InputError(f"{self.name}: this process has {len(devices)} virtual devices")
        return devices[: self.chips]


def parse(name: str) -> Topology:
    """'v5e:4x4', 'v5p:4x4x4', 'h100:8', 'cpu:8'; raises InputError that lists the known ones."""
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    if match is None or match[1] not in CHIPS:
        raise InputError(
            f"topology {name!r} is not known; give KIND:GRID, as v5e:4x4, v5p:4x4x4, h100:8 or "
            f"cpu:8; kinds: {', '.join(CHIPS)}"
        )
    chips = math.prod(map(int, match[2].split("x")))
    if not chips:
        raise InputError(f"topology {name!r} has no chips")
    return Topology(name, CHIPS[match[1]], chips)


def _tpu_devices(name: str) -> list[Any]:
    from jax.experimental import topologies

    try:
        import libtpu  # noqa: F401  # pyright: ignore
    except ImportError as error:
        raise InputError(
            f"{name}: planning for a TPU needs its compiler: pip install 'realisvsr-jax[plan]'"
        ) from error
    try:
        found = topologies.get_topology_desc(topology_name=name, platform="tpu")
    except Exception as error:  # libtpu has its own errors
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"topology {name!r} cannot be had from the TPU compiler: {reason}"
        ) from error
    return list(found.devices)
