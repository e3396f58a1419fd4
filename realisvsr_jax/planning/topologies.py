"""Accelerators by name: their chips' memory and speed, and devices to compile for."""

import math
import os
import re
from dataclasses import dataclass
from typing import Any

import jax

from realisvsr_jax.errors import InputError

GB = 10**9


@dataclass(frozen=True)
class Chip:
    """One chip: memory in bytes, FLOP/s, memory and interconnect in bytes/s.

    `flops` are bfloat16's, `high_flops` and `float32_flops` those of float32 at the precisions
    "high" and "highest" (`vae.causal_conv.Lowering`): on a TPU three and six passes of bfloat16, on
    a GPU TF32 and float32. `platform` is JAX's name; sources are the makers' data sheets.
    """

    platform: str
    memory: int
    flops: float
    high_flops: float
    float32_flops: float
    bandwidth: float
    interconnect: float


CHIPS = {
    "v5e": Chip("tpu", 16 * 2**30, 197e12, 197e12 / 3, 197e12 / 6, 819e9, 200e9),
    "v5p": Chip("tpu", 95 * 2**30, 459e12, 459e12 / 3, 459e12 / 6, 2765e9, 600e9),
    "v6e": Chip("tpu", 32 * 2**30, 918e12, 918e12 / 3, 918e12 / 6, 1640e9, 448e9),
    "a100": Chip("gpu", 80 * GB, 312e12, 156e12, 19.5e12, 2039e9, 300e9),
    "h100": Chip("gpu", 80 * GB, 989e12, 494.5e12, 67e12, 3350e9, 450e9),
    "h200": Chip("gpu", 141 * GB, 989e12, 494.5e12, 67e12, 4800e9, 450e9),
    "cpu": Chip("cpu", 24 * GB, 1e11, 1e11, 1e11, 20e9, 10e9),
}
# The slices that can be had (cloud.google.com/tpu/docs); of v5p also other multiples of 4.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
GRIDS = {
    "v5e": _FLAT,
    "v6e": _FLAT,
    "v5p": (
        *("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
        *("8x8x16", "8x16x16", "16x16x16"),
    ),
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
            f"topology {name!r} is not known; give KIND:GRID of a TPU (v5e:4x4, v6e:2x4, "
            "v5p:4x4x4), KIND:NUMBER of others (h100:8, cpu:8); kinds: " + ", ".join(CHIPS)
        )
    chips = math.prod(map(int, match[2].split("x")))
    if (grids := GRIDS.get(match[1])) and match[2] not in grids:
        odd = match[1] != "v5p" or match[2].count("x") != 2 or chips % 64 or not chips
        if odd or any(int(side) % 4 for side in match[2].split("x")):
            raise InputError(
                f"topology {name!r} does not exist; {match[1]} comes as {', '.join(grids)}"
            )
    if not chips:
        raise InputError(f"topology {name!r} has no chips")
    return Topology(name, CHIPS[match[1]], chips)


def compile_only(chips: int) -> None:
    """Before this process has looked for devices: its own are `chips` virtual CPUs.

    They stand in for chips that no compiler knows. No TPU is opened, so several planners may run
    at once, and beside a training; what libtpu would ask its host for is said.
    """
    jax.config.update("jax_platforms", "cpu")
    flag = f"--xla_force_host_platform_device_count={chips}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_ACCELERATOR_TYPE": "v6e-1",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }


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
        known = ", ".join(GRIDS[name.split(":")[0]])
        raise InputError(
            f"the TPU compiler knows no topology {name!r} ({reason}); take one of {known}"
        ) from error
    return list(found.devices)
