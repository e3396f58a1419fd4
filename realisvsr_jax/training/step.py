"""The pure training step: state and batch in, state and metrics out."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax

from realisvsr_jax.mesh import BATCH, constrain
from realisvsr_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


@runtime_checkable
class Objective(Protocol):
    """What is minimised. Both functions see one micro-batch."""

    def prepare(self, frozen: Any, batch: Batch) -> Batch:
        """What needs no gradient: frozen encoders. Keys of `batch` may be replaced."""
        ...

    def loss(self, params: Any, frozen: Any, batch: Batch, keys: jax.Array) -> tuple[Any, Metrics]:
        """Loss and metrics, both means over the micro-batch; `keys` has one key a clip."""
        ...


def clip_keys(seed: int, step: jax.Array, positions: jax.Array) -> jax.Array:
    """One key a clip from (seed, step, position in the global batch), and from nothing else."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    accumulate: int,
    ema_decay: float,
    shardings: Any = None,
) -> Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]:
    """Builds `train_step(state, frozen, batch)`, jitted, `state` donated.

    Every array of `batch` leads with the batch axis, which `accumulate` must divide;
    `batch["position"]` is each clip's place in the global batch. A step whose loss or gradient
    is not finite leaves parameters, moments and average as they were (metric `skipped`).
    `shardings` are those of the state, where it lies on a mesh.
    """

    def train_step(state: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Metrics]:
        keys = clip_keys(seed, state.step, batch["position"])
        gradients, metrics = _accumulated_gradients(
            objective, state.params, frozen, batch, keys, accumulate
        )
        norm = optax.tree_utils.tree_norm(gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda old, new: old + (1.0 - decay) * (new - old), state.ema, params)
        finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
        changed = dataclasses.replace(state, params=params, opt_state=opt_state, ema=ema)
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), changed, state)
        metrics |= {"gradient_norm": norm, "skipped": 1.0 - finite}
        return dataclasses.replace(kept, step=state.step + 1), metrics

    if shardings is None:
        return jax.jit(train_step, donate_argnums=0)
    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, None))


def _accumulated_gradients(
    objective: Objective,
    params: Any,
    frozen: Any,
    batch: Batch,
    keys: jax.Array,
    accumulate: int,
) -> tuple[Any, Metrics]:
    """Gradients and metrics, averaged over micro-batches by a scan."""
    differentiate = jax.grad(objective.loss, has_aux=True)

    def one(micro: Batch, micro_keys: jax.Array) -> tuple[Any, Metrics]:
        return differentiate(params, frozen, objective.prepare(frozen, micro), micro_keys)

    if accumulate == 1:
        return one(batch, keys)

    def split(array: jax.Array) -> jax.Array:
        micro = array.reshape(accumulate, array.shape[0] // accumulate, *array.shape[1:])
        return constrain(micro, None, BATCH)

    micros = jax.tree.map(split, (batch, keys))
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(one, *jax.tree.map(lambda leaf: leaf[0], micros)),
    )
    total, _ = jax.lax.scan(
        lambda sums, micro: (jax.tree.map(jnp.add, sums, one(*micro)), None), zeros, micros
    )
    return jax.tree.map(lambda leaf: leaf / accumulate, total)
