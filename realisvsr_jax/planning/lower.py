"""The programs of a training run, compiled for devices that are not there.

Nothing has values: networks, state and batch are shapes with their places on the mesh, so that a
laptop can compile what only a pod could hold.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from realisvsr_jax.errors import InputError
from realisvsr_jax.mesh import make_mesh
from realisvsr_jax.model.attention import resolved
from realisvsr_jax.model.realisvsr import RealisVSR
from realisvsr_jax.planning.topologies import Topology
from realisvsr_jax.training import sharding
from realisvsr_jax.training.batches import shapes_of
from realisvsr_jax.training.objectives import RestorationObjective
from realisvsr_jax.training.settings import TrainingConfig
from realisvsr_jax.training.state import init_state, make_optimizer, partition
from realisvsr_jax.training.step import make_train_step
from realisvsr_jax.vae.wan_vae import WanVAE

Bucket = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Programs:
    """What a run compiles, as shapes: the step, and what it is made of."""

    mesh: Mesh
    accumulate: int
    objective: RestorationObjective
    step: Any
    state: Any
    frozen: Any

    def batch(self, config: TrainingConfig, bucket: Bucket) -> dict[str, jax.ShapeDtypeStruct]:
        """The arrays of one step."""
        return shapes_of(config, bucket, self.mesh)

    def latents(self, config: TrainingConfig, bucket: Bucket) -> dict[str, jax.ShapeDtypeStruct]:
        """As `batch`, with both clips encoded already."""
        shapes = self.batch(config, bucket)
        where = shapes.pop("gt").sharding, shapes.pop("lq").sharding
        size = (config.data.batch_size, *config.vae.latent_size(bucket), config.vae.z_dim)
        for name, place in zip(("gt_latent", "lq_latent"), where):
            shapes[name] = jax.ShapeDtypeStruct(size, jnp.float32, sharding=place)
        return shapes

    def lower_step(self, config: TrainingConfig, bucket: Bucket, *, encoded: bool = False) -> Any:
        """The training step of a bucket, whole or, if `encoded`, on latents made before."""
        batch = self.latents(config, bucket) if encoded else self.batch(config, bucket)
        frozen = {"network": self.frozen["network"]} if encoded else self.frozen
        with jax.set_mesh(self.mesh):
            return self.step.lower(self.state, frozen, batch)

    def lower_encode(self, config: TrainingConfig, bucket: Bucket) -> Any:
        """The VAE's part of one micro-batch alone."""
        whole = self.batch(config, bucket)
        micro = {
            name: jax.ShapeDtypeStruct(
                (array.shape[0] // self.accumulate, *array.shape[1:]),
                array.dtype,
                sharding=array.sharding,
            )
            for name, array in whole.items()
        }
        with jax.set_mesh(self.mesh):
            return jax.jit(self.objective.prepare).lower(self.frozen, micro)


def chosen_buckets(buckets: Sequence[Bucket], wanted: str | None) -> list[Bucket]:
    """Those to plan: '49x480x832' is that one, None all; raises InputError for one there is not."""
    if wanted is None:
        return list(buckets)
    names = ["x".join(map(str, bucket)) for bucket in buckets]
    if wanted not in names:
        raise InputError(f"--bucket {wanted} is not in data.buckets, which has {', '.join(names)}")
    return [buckets[names.index(wanted)]]


def as_run_on(config: TrainingConfig, topology: Topology) -> TrainingConfig:
    """The configuration with the kernels of the topology's own backend.

    What a run chooses by the backend that it finds has to be said where another compiles. An
    estimate takes `xla` for the kernel of GPUs, which nothing here can compile.
    """
    dit, platform = config.model.dit, topology.chip.platform
    attention = resolved(dit.attention, platform, dit.dtype, dit.head_dim)
    if topology.is_estimate and attention == "cudnn":
        attention = "xla"
    dit = dataclasses.replace(dit, attention=attention)
    conv = config.vae.conv
    if conv == "auto":
        conv = "taps" if platform == "cpu" else "native"
    vae = dataclasses.replace(config.vae, conv=conv)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, dit=dit), vae=vae)


def training_programs(config: TrainingConfig, devices: list[Any]) -> Programs:
    """Of a restoration run on `devices`; raises InputError as training itself does."""
    mesh = make_mesh(config.mesh, config.model.dit.num_heads, devices)
    accumulate = sharding.micro_batches(config.data.batch_size, config.accumulate, mesh)
    network = nnx.eval_shape(lambda: RealisVSR(config.model, rngs=nnx.Rngs(0)))
    parts, params = partition(network, config.parameters)
    optimizer = make_optimizer(config.optimizer, config.steps)
    state = jax.eval_shape(lambda: init_state(_zeros(params), optimizer))
    places = sharding.of_train_state(state, mesh)
    vae_graph, vae = nnx.split(nnx.eval_shape(lambda: WanVAE(config.vae, rngs=nnx.Rngs(0))))
    objective = RestorationObjective(
        parts,
        vae_graph,
        config.flow,
        config.loss,
        config.condition_scale,
        config.encode_frames,
    )
    step = make_train_step(
        objective,
        optimizer,
        seed=config.seed,
        accumulate=accumulate,
        ema_decay=config.optimizer.ema_decay,
        shardings=places,
    )
    frozen = {"network": _placed(parts.frozen, mesh), "vae": _placed(vae, mesh)}
    return Programs(mesh, accumulate, objective, step, _with(state, places), frozen)


def _zeros(params: dict[str, Any]) -> dict[str, jax.Array]:
    return {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in params.items()}


def _placed(state: Any, mesh: Mesh) -> Any:
    """An abstract network's state with its shardings."""

    def of(path: Any, leaf: Any) -> Any:
        where = sharding.spec("/".join(map(str, path)), tuple(leaf.shape), mesh)
        value = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, where))
        return leaf.replace(value)

    return nnx.map_state(of, state)


def _with(shapes: Any, places: Any) -> Any:
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        places,
    )
