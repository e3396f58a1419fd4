"""What the tables of tensor names share: layouts on either side, and the way through a table.

One table serves both directions. PyTorch's side is a state dict, ours the network's flat state
with paths like 'blocks/self_attn/q/kernel'.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from realisvsr_jax.errors import InputError

Arrays = dict[str, np.ndarray]

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


def column(dialect: str) -> int:
    """Of a row (ours, diffusers, Wan2.1, kind); raises ValueError for an unknown dialect."""
    if dialect not in DIALECTS:
        raise ValueError(f"unknown names {dialect!r}; known: {', '.join(DIALECTS)}")
    return 1 + DIALECTS.index(dialect)


def from_torch(
    rules: Sequence[Rule], tensors: Mapping[str, np.ndarray], num_layers: int = 0
) -> Arrays:
    """A state dict as our flat arrays, stacked where the rules say so.

    Raises InputError, naming them, for tensors that are missing or that no rule uses.
    """
    needed = [name for rule in rules for name in _torch_names(rule, num_layers)]
    _same_keys(needed, tensors, "the checkpoint")
    arrays = {}
    for rule in rules:
        parts = [rule.layout.ours(tensors[name]) for name in _torch_names(rule, num_layers)]
        arrays[rule.ours] = np.stack(parts) if rule.stacked else parts[0]
    return arrays


def to_torch(rules: Sequence[Rule], arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The inverse of `from_torch`, bit for bit; the layer count is the leading axis.

    Raises InputError for paths that are missing or unused, and for unequal layer counts.
    """
    _same_keys([rule.ours for rule in rules], arrays, "the network")
    counts = {len(arrays[rule.ours]) for rule in rules if rule.stacked}
    if len(counts) > 1:
        raise InputError(f"parameters are stacked over different layer counts: {sorted(counts)}")
    num_layers = max(counts, default=0)
    tensors = {}
    for rule in rules:
        value = arrays[rule.ours]
        parts = value if rule.stacked else [value]
        for name, part in zip(_torch_names(rule, num_layers), parts):
            tensors[name] = np.ascontiguousarray(rule.layout.torch(part))
    return tensors


def _torch_names(rule: Rule, num_layers: int) -> list[str]:
    if not rule.stacked:
        return [rule.torch]
    return [rule.torch.format(layer=layer) for layer in range(num_layers)]


def _same_keys(needed: Iterable[str], given: Iterable[str], where: str) -> None:
    needed, given = set(needed), set(given)
    for problem, names in (("lacks", needed - given), ("has unknown", given - needed)):
        if names:
            shown = ", ".join(sorted(names)[:4])
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            raise InputError(f"{where} {problem} {shown}{more}")
