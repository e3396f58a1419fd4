"""What the tables of tensor names share: layouts on either side, and the way through a table.

One table serves both directions. PyTorch's side is a state dict, ours the network's flat state
with paths like 'blocks/self_attn/q/kernel'.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from realisvsr_jax.weights import assembly
from realisvsr_jax.weights.readers import Tensors
from realisvsr_jax.weights.writers import Stored

DIALECTS = ("diffusers", "wan")


@dataclass(frozen=True)
class Layout:
    """How one tensor's axes are laid out on either side; the two are inverse."""

    ours: Callable[[np.ndarray], np.ndarray]
    torch: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Rule:
    """One parameter; with `stacked`, `torch` has a `{layer}` and ours a leading layer axis."""

    ours: str
    torch: str
    layout: Layout
    stacked: bool = False


SAME = Layout(lambda x: x, lambda x: x)
MATRIX = Layout(np.transpose, np.transpose)
# [d, c, t, h, w] there, [t, h, w, c, d] here.
CONV = Layout(lambda x: x.transpose(2, 3, 4, 1, 0), lambda x: x.transpose(4, 3, 0, 1, 2))


@dataclass(frozen=True)
class Pair:
    """One tensor's names, ours as in a release and PyTorch's, and its layouts."""

    ours: str
    torch: str
    layout: Layout

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """PyTorch's shape of a tensor that is `shape` here."""
        return self.layout.torch(np.broadcast_to(np.float32(0), shape)).shape


def pairs(rules: Sequence[Rule], num_layers: int = 0, prefix: tuple[str, ...] = ()) -> list[Pair]:
    """Every tensor of a table, one a layer; `prefix` goes before our names."""
    found = []
    for rule in rules:
        path = (*prefix, *rule.ours.split("/"))
        names = assembly.layer_names(path, (num_layers,)) if rule.stacked else [".".join(path)]
        for ours, torch in zip(names, _torch_names(rule, num_layers), strict=True):
            found.append(Pair(ours, torch, rule.layout))
    return found


def renamed(
    pairs: Sequence[Pair], tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], where: Any
) -> Tensors:
    """A checkpoint's tensors under our names and in our layout; still views of its files.

    `shapes` are ours, by our names. Raises InputError that lists, by PyTorch's names, what is
    missing, unknown or of another shape.
    """
    wanted = {pair.torch: pair.torch_shape(shapes[pair.ours]) for pair in pairs}
    assembly.check(wanted, tensors, where)
    return {
        pair.ours: tensors[pair.torch]._replace(value=pair.layout.ours(tensors[pair.torch].value))
        for pair in pairs
    }


def to_torch(pairs: Sequence[Pair], tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """The inverse of `renamed`, for tensors to be stored."""
    return {
        pair.torch: replace(tensors[pair.ours], value=pair.layout.torch(tensors[pair.ours].value))
        for pair in pairs
    }


def column(dialect: str) -> int:
    """Of a row (ours, diffusers, Wan2.1, kind); raises ValueError for an unknown dialect."""
    if dialect not in DIALECTS:
        raise ValueError(f"unknown names {dialect!r}; known: {', '.join(DIALECTS)}")
    return 1 + DIALECTS.index(dialect)


def _torch_names(rule: Rule, num_layers: int) -> list[str]:
    if not rule.stacked:
        return [rule.torch]
    return [rule.torch.format(layer=layer) for layer in range(num_layers)]
