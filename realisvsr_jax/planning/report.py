"""What a compiled program needs, per chip: memory, and the time that it cannot beat."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from realisvsr_jax.planning.hlo import Program
from realisvsr_jax.planning.topologies import Chip


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one program on one chip."""

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """At the peak: donated arguments are written over by outputs."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


def memory(compiled: Any) -> Memory:
    """From the compiler."""
    found = compiled.memory_analysis()
    return Memory(
        found.argument_size_in_bytes,
        found.output_size_in_bytes,
        found.alias_size_in_bytes,
        found.temp_size_in_bytes,
        found.generated_code_size_in_bytes,
    )


def bytes_per_chip(tree: Any) -> int:
    """Of arrays that are shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * np.dtype(leaf.dtype).itemsize
        for leaf in jax.tree.leaves(tree)
    )


def roofline(
    chip: Chip, chips: int, work: Mapping[str, float], traffic: int | None, moved: int
) -> dict[str, Any]:
    """Seconds that arithmetic, memory and interconnect need at full speed, and which is `bound`.

    `work` is FLOP on all chips by dtype, "high" being float32 at that precision; `traffic` and
    `moved` are bytes on one. A `traffic` of None is not known, and "memory" is None then.
    """
    speeds = {"bfloat16": chip.flops, "float32": chip.float32_flops, "high": chip.high_flops}
    times = {
        "arithmetic": sum(flop / speeds[dtype] for dtype, flop in work.items()) / chips,
        "memory": None if traffic is None else traffic / chip.bandwidth,
        "interconnect": moved / chip.interconnect,
    }
    bound = max(times, key=lambda name: times[name] or 0.0)
    return times | {"bound": bound, "seconds": times[bound]}


def exchanges(program: Program) -> tuple[dict[str, dict[str, int]], int]:
    """Collectives by kind, and the bytes that one chip receives through them."""
    found = program.collectives()
    return found, sum(row["moved"] for row in found.values())
