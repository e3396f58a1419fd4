"""Networks from tensors of one layer each, and tensors of one layer each from networks.

On disk every layer's tensor has its own name, its place in the network:
`dit.blocks.3.self_attn.q.kernel`. In memory blocks are stacked on a leading axis.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from realisvsr_jax.errors import InputError
from realisvsr_jax.weights.readers import Tensor, Tensors, enumerated
from realisvsr_jax.weights.writers import Stored

STACKED = (("dit", "blocks"), ("cpc", "blocks"), ("cpc", "out"), ("blocks",))
FLOAT32 = np.dtype(np.float32)

Shape = tuple[int, ...]
Path = tuple[Any, ...]
Placement = Callable[[Path, Shape], jax.sharding.Sharding]


def layer_names(path: Path, shape: Shape) -> list[str]:
    """The names of one parameter's tensors: one, or one a layer if its blocks are stacked."""
    for prefix in STACKED:
        if path[: len(prefix)] == prefix:
            rest = path[len(prefix) :]
            return [_join((*prefix, layer, *rest)) for layer in range(shape[0])]
    return [_join(path)]


def expected(constructor: Callable[[], nnx.Module]) -> dict[str, Shape]:
    """The shape of every tensor of the network that `constructor` describes, by name."""
    return {
        name: shape
        for path, leaf in nnx.to_flat_state(nnx.state(nnx.eval_shape(constructor)))
        for name, shape in _layer_shapes(path, tuple(leaf.shape))
    }


def check(shapes: Mapping[str, Shape], tensors: Tensors, where: Any) -> None:
    """Raises InputError that lists what is missing, unknown or of another shape."""
    problems = []
    if missing := sorted(shapes.keys() - tensors.keys()):
        problems.append(enumerated("tensor", missing, "missing"))
    if unknown := sorted(tensors.keys() - shapes.keys()):
        names = [f"{name} ({tensors[name].path.name})" for name in unknown]
        problems.append(enumerated("tensor", names, "unknown"))
    wrong = [
        f"{name} {tensors[name].value.shape}, not {shape} ({tensors[name].path.name})"
        for name, shape in sorted(shapes.items())
        if name in tensors and tensors[name].value.shape != shape
    ]
    if wrong:
        problems.append(enumerated("tensor", wrong, "of another shape"))
    if problems:
        raise InputError(f"{where}: {'; '.join(problems)}")


def build(
    constructor: Callable[[], Any], tensors: Tensors, where: Any, placement: Placement | None = None
) -> Any:
    """The network that `constructor` describes, with the values of `tensors`, in float32.

    With `placement`, which gives a parameter's sharding for its path and shape, a process reads
    the slices of its own devices and nothing else. Raises InputError as `check` does.
    """
    graph, state = nnx.split(nnx.eval_shape(constructor))
    flat = nnx.to_flat_state(state)
    shapes = {n: s for path, leaf in flat for n, s in _layer_shapes(path, tuple(leaf.shape))}
    check(shapes, tensors, where)
    leaves = []
    for path, leaf in flat:
        sharding = placement(path, tuple(leaf.shape)) if placement else None
        leaves.append((path, leaf.replace(_gathered(tensors, path, tuple(leaf.shape), sharding))))
    return nnx.merge(graph, nnx.from_flat_state(leaves))


def stored(network: nnx.Module, dtype: str = "float32", prefix: str = "") -> dict[str, Stored]:
    """Every tensor by name; kernels, the factors of matrix products, go to disk as `dtype`."""
    tensors = {}
    for path, leaf in nnx.to_flat_state(nnx.state(network)):
        value = np.asarray(leaf[...])
        names = layer_names(path, value.shape)
        parts = [value] if names == [_join(path)] else list(value)
        for name, part in zip(names, parts, strict=True):
            tensors[prefix + name] = Stored(part, stored_dtype(name, dtype), name)
    return tensors


def stored_dtype(name: str, dtype: str) -> np.dtype:
    """`dtype` for kernels, float32 for everything else."""
    return np.dtype(jnp.dtype(dtype)) if name.endswith("kernel") else FLOAT32


def restored(tensors: Tensors, dtype: str) -> dict[str, Stored]:
    """Tensors of files as they go to disk; see `stored`."""
    return {
        name: Stored(tensor.value, stored_dtype(name, dtype), described(tensor))
        for name, tensor in tensors.items()
    }


def described(tensor: Tensor) -> str:
    """For messages."""
    return f"{tensor.path}: {tensor.name}"


def _layer_shapes(path: Path, shape: Shape) -> Iterator[tuple[str, Shape]]:
    names = layer_names(path, shape)
    one = shape if names == [_join(path)] else shape[1:]
    return ((name, one) for name in names)


def _gathered(
    tensors: Tensors, path: Path, shape: Shape, sharding: jax.sharding.Sharding | None
) -> jax.Array:
    names = layer_names(path, shape)
    stacked = names != [_join(path)]
    pieces: dict[str, np.ndarray] = {}

    def piece(index: Any) -> np.ndarray:
        key = str(index)
        if key not in pieces:  # devices that hold the same slice read it once
            if stacked:
                layers = [read(tensors[name], index[1:]) for name in names[index[0]]]
                pieces[key] = np.stack(layers)
            else:
                pieces[key] = read(tensors[names[0]], index)
        return pieces[key]

    if sharding is None:
        return jnp.asarray(piece((slice(None),) * len(shape)))
    return jax.make_array_from_callback(shape, sharding, piece)


def read(tensor: Tensor, index: tuple[slice, ...]) -> np.ndarray:
    """A slice of a mapped tensor, copied, in float32; nothing else of it is read."""
    return np.array(tensor.value[index], np.float32)


def _join(path: Path) -> str:
    return ".".join(str(part) for part in path)


def parameter_count(shapes: Mapping[str, Shape]) -> int:
    """Of all tensors together."""
    return sum(math.prod(shape) for shape in shapes.values())
