"""What a training step changes: trained parameters, optimizer state, their average, the clock."""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from optax import contrib

from realisvsr_jax import cluster
from realisvsr_jax.errors import InputError
from realisvsr_jax.training.settings import OptimizerConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """`params` and `ema` map a parameter's path ('cpc/out/kernel') to its float32 array.

    Where a program is only compiled, shapes stand in the places of arrays.
    """

    step: Any
    params: dict[str, Any]
    opt_state: Any
    ema: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Partition:
    """A network taken apart into what is trained and what is frozen.

    `frozen` is a state without the trained leaves; `merge` puts both together again.
    """

    graph: Any
    frozen: Any
    trained_paths: dict[str, tuple]

    def merge(self, params: dict[str, jax.Array], frozen: Any) -> Any:
        """The network with `params` in their places; differentiable in them."""
        leaves = [(self.trained_paths[name], nnx.Param(value)) for name, value in params.items()]
        return nnx.merge(self.graph, nnx.from_flat_state(leaves), frozen)


def partition(network: nnx.Module, patterns: Sequence[str]) -> tuple[Partition, dict[str, Any]]:
    """Splits off the parameters whose path matches one of `patterns` in full.

    Returns the partition and the trained parameters by path; of an abstract network their
    shapes. Raises InputError where a pattern matches nothing.
    """
    compiled = [re.compile(pattern) for pattern in patterns]
    names = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(network))]
    for pattern in compiled:
        if not any(pattern.fullmatch(name) for name in names):
            raise InputError(
                f"parameters: {pattern.pattern!r} matches no parameter; paths look like "
                f"{names[0]!r}"
            )

    def is_trained(path: Any, _: Any) -> bool:
        name = "/".join(map(str, path))
        return any(pattern.fullmatch(name) for pattern in compiled)

    graph, trained, frozen = nnx.split(network, is_trained, ...)
    flat = list(nnx.to_flat_state(trained))
    paths = {"/".join(map(str, path)): path for path, _ in flat}
    params = {"/".join(map(str, path)): leaf.get_value() for path, leaf in flat}
    return Partition(graph, frozen, paths), dict(sorted(params.items()))


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up, then the chosen schedule to the end of the run."""
    peak, warmup = config.learning_rate, max(config.warmup_steps, 1)
    if config.schedule == "constant":
        after: optax.Schedule = optax.constant_schedule(peak)
    elif config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(steps - warmup, 1))
    else:
        raise InputError(f"optimizer.schedule is {config.schedule!r}; take 'constant' or 'cosine'")
    # The first update already moves: warm-up starts at peak / warmup.
    return optax.join_schedules(
        [optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1)), after], [warmup]
    )


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """The optimizer behind a clip by global norm, at `learning_rate`.

    Muon (Jordan et al. 2024) learns kernels, with updates of a size that does not depend on
    their shape (Liu et al. 2025); AdamW, with Nesterov's momentum, learns what is not a kernel.
    """
    rate = learning_rate(config, steps)
    if config.name == "adamw":
        method = optax.adamw(
            rate, b1=config.b1, b2=config.b2, eps=config.eps, weight_decay=config.weight_decay
        )
    elif config.name == "muon":
        method = contrib.muon(
            rate,
            weight_decay=config.weight_decay,
            adam_b1=config.b1,
            adam_b2=config.b2,
            adam_weight_decay=config.weight_decay,
            muon_weight_dimension_numbers=cast(Any, _matrices),
            consistent_rms=config.muon_rms,
        )
    else:
        raise InputError(f"optimizer.name is {config.name!r}; take 'adamw' or 'muon'")
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), method)


def _matrices(params: dict[str, Any]) -> dict[str, contrib.MuonDimensionNumbers | None]:
    """Which axes of each kernel are its input and its output; None for what is no kernel.

    A convolution's taps are inputs; blocks stacked on a leading axis are matrices each.
    """

    def of(name: str, leaf: Any) -> contrib.MuonDimensionNumbers | None:
        if name.split("/")[-1] != "kernel" or leaf.ndim < 2:
            return None
        last = leaf.ndim - 1
        first = 1 if leaf.ndim == 3 else 0
        return contrib.MuonDimensionNumbers(tuple(range(first, last)), (last,))

    return {name: of(name, leaf) for name, leaf in params.items()}


def init_state(params: dict[str, jax.Array], optimizer: optax.GradientTransformation) -> TrainState:
    """The state before step 0; the average starts as a copy of the parameters."""
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema)


def _moments(opt_state: Any, name: str) -> dict[str, jax.Array]:
    """A moment by parameter, wherever the optimizer keeps it; Muon has no second one."""
    trees: list[Any] = [
        tree for _, tree in optax.tree_utils.tree_get_all_with_path(opt_state, name)
    ]
    return {path: leaf for tree in trees for path, leaf in tree.items() if hasattr(leaf, "dtype")}


def state_hash(state: TrainState) -> str:
    """SHA-256 over parameters, both moments and average.

    Leaves are sorted by path, each as path, dtype, shape and little-endian bytes.
    """
    groups = {
        "params": state.params,
        "mu": _moments(state.opt_state, "mu"),
        "nu": _moments(state.opt_state, "nu"),
        "ema": state.ema,
    }
    leaves = {
        f"{group}/{path}": leaf for group, tree in groups.items() for path, leaf in tree.items()
    }
    digest = hashlib.sha256()
    for path, leaf in sorted(leaves.items()):
        array = cluster.whole(leaf)
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{path} {array.dtype.name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(little).tobytes())
    return digest.hexdigest()
