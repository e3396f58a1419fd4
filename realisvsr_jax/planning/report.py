"""What a compiled program needs, per chip: memory, exchanges, the time that it cannot beat."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2,
    "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8,
}  # fmt: skip
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


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


def collectives(text: str) -> dict[str, dict[str, int]]:
    """Count and bytes of results by kind, of a compiled program's text; loops as often as they run.

    Bytes are those of each operation's result on one chip. A loop whose number of rounds the
    compiler does not say counts once.
    """
    bodies = _computations(text)
    found: dict[str, dict[str, int]] = {}

    def walk(name: str, times: int) -> None:
        for line in bodies.get(name, ()):
            if match := _COLLECTIVE.search(line):
                row = found.setdefault(match[2], {"count": 0, "bytes": 0})
                row["count"] += times
                row["bytes"] += times * _bytes(match[1])
            rounds = _ROUNDS.search(line)
            for called in _CALLED.findall(line):
                walk(called, times * (int(rounds[1]) if rounds and "body=" in line else 1))

    entry = next((name for name in bodies if name.startswith("ENTRY ")), None)
    if entry:
        walk(entry, 1)
    return found


_COLLECTIVE = re.compile(r"= (\(?[^=]*?\)?) (" + "|".join(COLLECTIVES) + r")(?:-start)?\(")
_CALLED = re.compile(r"(?:body|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
_ROUNDS = re.compile(r'known_trip_count"?:\s*\{\s*"?n"?:\s*"?(\d+)')
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


def _computations(text: str) -> dict[str, list[str]]:
    """Lines by computation; the first one that runs has ENTRY before its name."""
    bodies: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if match := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            current = []
            bodies[match[2]] = current
            if match[1]:
                bodies["ENTRY "] = current
        else:
            current.append(line)
    return bodies


def _bytes(shapes: str) -> int:
    return sum(
        BYTES.get(kind, 0) * math.prod(int(size) for size in sizes.split(",") if size)
        for kind, sizes in _SHAPE.findall(shapes)
    )


def flops(config: Any, batch_size: int, latent: tuple[int, int, int]) -> Mapping[str, float]:
    """Of one training step, by part, in forwards: the control branch 3; the frozen DiT 2 for
    products with weights and 3 for self-attention, its block 0 only 1, since the features join at
    a block's output. What is computed again is not counted.
    """
    dit, cpc = config.model.dit, config.model.cpc
    patch = math.prod(dit.patch_size)
    tokens, text = math.prod(latent) // patch, dit.text_length
    products = 2 * tokens * (6 * dit.dim**2 + 2 * dit.dim * dit.ffn_dim)
    products += 2 * text * 2 * dit.dim**2
    cross = 4 * tokens * text * dit.dim
    attention = 4 * tokens**2 * dit.dim
    forward = products + cross + attention
    frozen = forward + (dit.num_layers - 1) * (2 * products + 2 * cross + 3 * attention)
    control = 3 * cpc.num_blocks * (forward + 2 * tokens * dit.dim**2)
    return {"dit": float(batch_size * frozen), "cpc": float(batch_size * control)}
