"""Where each parameter lies on the mesh: a table of patterns, and no default.

The first axis of a stacked block is the layer's and is never sharded. Products come in pairs: the
first shares out its outputs along `tensor`, the second its inputs, so that one exchange a pair
is enough (Shoeybi et al. 2019).
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from realisvsr_jax import cluster
from realisvsr_jax.errors import InputError
from realisvsr_jax.mesh import BATCH, FSDP, TENSOR, MeshConfig, make_mesh

P = PartitionSpec
Shape = tuple[int, ...]

_BLOCK = r"(dit|cpc)/blocks/"
# The first pattern that matches the whole path counts.
RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (_BLOCK + r"(self|cross)_attn/[qkv]/kernel", P(None, FSDP, TENSOR)),
    (_BLOCK + r"(self|cross)_attn/[qkv]/bias", P(None, TENSOR)),
    (_BLOCK + r"(self|cross)_attn/norm_[qk]/scale", P(None, TENSOR)),
    (_BLOCK + r"(self|cross)_attn/o/kernel", P(None, TENSOR, FSDP)),
    (_BLOCK + r"ffn/up/kernel", P(None, FSDP, TENSOR)),
    (_BLOCK + r"ffn/up/bias", P(None, TENSOR)),
    (_BLOCK + r"ffn/down/kernel", P(None, TENSOR, FSDP)),
    (_BLOCK + r"((self|cross)_attn/o/bias|ffn/down/bias|norm3/\w+|modulation)", P()),
    (r"cpc/out/kernel", P(None, FSDP)),
    (r"(dit|cpc)/(noisy_)?patch_embedding/kernel", P(None, None, None, None, FSDP)),
    (r"dit/(text|time)_embedding/up/kernel", P(None, FSDP)),
    (r"dit/(text|time)_embedding/down/kernel", P(FSDP)),
    (r"dit/time_projection/kernel", P(FSDP)),
    (r"dit/head/linear/kernel", P(FSDP)),
    (r"(dit|cpc)/.*bias|dit/head/modulation|gamma", P()),
    # The VAE is small beside its activations: every device has all of it.
    (r"(encoder|decoder)/.*|(to_moments|from_latent)/\w+", P()),
)


def spec(path: str, shape: Shape, mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Where the parameter at `path` ('dit/blocks/ffn/up/kernel') lies.

    Raises InputError for a path that no rule knows, and for an axis that does not divide.
    """
    found = next((spec for pattern, spec in RULES if re.fullmatch(pattern, path)), None)
    if found is None:
        raise InputError(f"no rule says how to shard {path} {shape}; see training/sharding.py")
    for size, axes in zip(shape, found):
        names = (axes,) if isinstance(axes, str) else axes or ()
        devices = 1
        for name in names:
            devices *= mesh.shape[name]
        if size % devices:
            shown = " × ".join(f"{name} {mesh.shape[name]}" for name in names)
            raise InputError(
                f"mesh: {path} {shape} has an axis of {size}, which {shown} = {devices} devices do "
                "not divide; choose a smaller mesh axis"
            )
    return found


def shardings(shapes: Mapping[str, Shape], mesh: Mesh) -> dict[str, NamedSharding]:
    """Of every parameter by path; raises InputError as `spec` does."""
    return {path: NamedSharding(mesh, spec(path, shape, mesh)) for path, shape in shapes.items()}


def of_state(state: Any, mesh: Mesh) -> Any:
    """The shardings of a network's state, in its structure."""
    return nnx.map_state(
        lambda path, leaf: leaf.replace(
            NamedSharding(mesh, spec("/".join(map(str, path)), tuple(leaf.shape), mesh))
        ),
        state,
    )


def training_mesh(config: MeshConfig, num_heads: int) -> Mesh | None:
    """The mesh over all devices; None on one device, whose programs then know of none.

    Raises InputError as `make_mesh` does.
    """
    mesh = make_mesh(config, num_heads)
    return mesh if mesh.size > 1 else None


def micro_batches(batch_size: int, accumulate: int, mesh: Mesh | AbstractMesh | None) -> int:
    """How many a batch is split into; raises InputError where devices or clips are left over."""
    groups = math.prod(mesh.shape[axis] for axis in BATCH) if mesh else 1
    count = accumulate or max(1, batch_size // groups)
    if batch_size % count:
        raise InputError(f"accumulate = {count} does not divide data.batch_size = {batch_size}")
    if (batch_size // count) % groups:
        advice = "use more of mesh.seq or mesh.tensor, or another data.batch_size"
        if accumulate:
            advice = f"set accumulate = 0, or {advice}"
        raise InputError(
            f"mesh: data × fsdp = {groups} devices do not divide the {batch_size // count} clips "
            f"of a micro-batch (data.batch_size {batch_size}, accumulate {count}); {advice}"
        )
    return count


@contextlib.contextmanager
def in_use(mesh: Mesh | None) -> Iterator[None]:
    """The mesh that programs traced within are laid out on."""
    with jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
        yield


def mesh_in_use() -> Mesh | None:
    """That of `in_use`."""
    mesh = jax.sharding.get_mesh()
    return None if mesh.empty else mesh


def place_frozen(frozen: Mapping[str, Any], mesh: Mesh | None) -> Mapping[str, Any]:
    """What an objective needs and does not train: networks by the rules, all else everywhere."""
    if mesh is None:
        return frozen
    return {
        name: place(part, of_state(part, mesh) if isinstance(part, nnx.State) else replicated(mesh))
        for name, part in frozen.items()
    }


def place(values: Any, where: Any) -> Any:
    """`values` on the devices that `where`, their shardings, says; as they are if it is None.

    Every process has all values and keeps the parts of its own devices.
    """
    if where is None:
        return values
    if cluster.is_alone():
        return jax.device_put(values, where)
    if isinstance(where, NamedSharding):
        where = jax.tree.map(lambda _: where, values)
    return jax.tree.map(_placed, values, where)


def _placed(value: Any, where: NamedSharding) -> jax.Array:
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return jax.device_put(value, where)
    host = np.asarray(value)
    return jax.make_array_from_callback(host.shape, where, lambda index: host[index])


@dataclasses.dataclass(frozen=True)
class Rows:
    """The places in a batch that this process reads, in order, and those that it answers for.

    Devices along the sequence see the same clips; where they belong to several processes, each
    reads them and the first one counts them.
    """

    wanted: tuple[int, ...]
    counted: tuple[int, ...]


def rows(batch_size: int, mesh: Mesh | None) -> Rows:
    """This process's share of every batch."""
    everyone = tuple(range(batch_size))
    if mesh is None or cluster.is_alone():
        return Rows(everyone, everyone)
    owner: dict[int, int] = {}
    mine: set[int] = set()
    for device, index in batch(mesh).devices_indices_map((batch_size,)).items():
        for row in everyone[index[0]]:
            owner.setdefault(row, device.process_index)  # devices come in the mesh's order
            if device.process_index == jax.process_index():
                mine.add(row)
    wanted = tuple(sorted(mine))
    return Rows(wanted, tuple(row for row in wanted if owner[row] == jax.process_index()))


def placing(batch_size: int, mesh: Mesh | None) -> Callable[[Any], Any]:
    """Puts a batch's arrays, this process's rows of them, on the devices that will use them."""
    if mesh is None or cluster.is_alone():
        where = batch(mesh) if mesh else None
        return lambda arrays: place(arrays, where)
    where, at = batch(mesh), {row: i for i, row in enumerate(rows(batch_size, mesh).wanted)}

    def put(array: Any) -> jax.Array:
        def part(index: Any) -> Any:
            chosen = range(batch_size)[index[0]]
            return array[at[chosen[0]] : at[chosen[-1]] + 1]

        shape = (batch_size, *array.shape[1:])
        return jax.make_array_from_callback(shape, where, part)

    return lambda arrays: jax.tree.map(put, arrays)


def placement(mesh: Mesh | None) -> Callable[[tuple[Any, ...], Shape], NamedSharding] | None:
    """Where a parameter goes as it is read, by its path and shape; None on one device."""
    if mesh is None:
        return None
    return lambda path, shape: NamedSharding(mesh, spec("/".join(map(str, path)), shape, mesh))


def placed_network(network: Any, mesh: Mesh) -> Any:
    """The network on the mesh, also what was drawn and not read."""
    graph, state = nnx.split(network)
    return nnx.merge(graph, place(state, of_state(state, mesh)))


def gathered(network: Any) -> Any:
    """The network with its parameters whole on the host; every process has to call this.

    What only the first process needs, the others let go of.
    """
    graph, state = nnx.split(network)

    def on_host(_: Any, leaf: Any) -> Any:
        array = cluster.whole(leaf.get_value())
        return leaf.replace(array if cluster.is_first() else np.zeros((), array.dtype))

    return nnx.merge(graph, nnx.map_state(on_host, state))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device has all of it."""
    return NamedSharding(mesh, P())


def batch(mesh: Mesh) -> NamedSharding:
    """Clips along the axes of the batch; devices along the others see the same clips."""
    return NamedSharding(mesh, P(BATCH))


def of_train_state(state: Any, mesh: Mesh) -> Any:
    """The shardings of a `TrainState`: moments and average lie where their parameters do."""
    where = shardings({path: leaf.shape for path, leaf in state.params.items()}, mesh)

    def of_leaf(path: Any, leaf: Any) -> NamedSharding:
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        known = [name for name in names if name in where and leaf.shape == state.params[name].shape]
        return where[known[-1]] if known else replicated(mesh)

    return jax.tree_util.tree_map_with_path(of_leaf, state)
