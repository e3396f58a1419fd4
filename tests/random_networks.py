"""Networks in which every parameter matters, and programs that compile fast, for any test."""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from realisvsr_jax.weights import assembly

Network = TypeVar("Network", bound=nnx.Module)


def drawn(constructor: Callable[[], Network], scale: float = 1.0, seed: int = 0) -> Network:
    """No parameter at its initial 0 or 1; kernels keep the variance of what they multiply.

    `scale` is for kernels. The network's own initialisation is not compiled.
    """
    graph, state = nnx.split(nnx.eval_shape(constructor))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if path[-1] in ("gain", "scale", "gamma"):
            value = rng.uniform(0.7, 1.4, leaf.shape)
        elif path[-1] == "kernel":
            stacked = "blocks" in path or path[:2] == ("cpc", "out")
            inputs = np.prod(leaf.shape[1 if stacked else 0 : -1])
            value = rng.normal(0, scale / np.sqrt(inputs), leaf.shape)
        else:
            value = rng.normal(0, 0.3, leaf.shape)
        return leaf.replace(jnp.asarray(value, jnp.float32))

    return nnx.merge(graph, nnx.map_state(draw, state))


def numbered(constructor: Callable[[], nnx.Module]) -> dict[str, np.ndarray]:
    """Every tensor by its name in a release; no two of their numbers are the same."""
    shapes = assembly.expected(constructor)
    starts = np.cumsum([0, *map(math.prod, shapes.values())])
    return {
        name: np.arange(start, start + math.prod(shape), dtype=np.float32).reshape(shape)
        for start, (name, shape) in zip(starts, shapes.items())
    }


def random(*shape: int, seed: int = 1) -> jax.Array:
    """Standard normal, float32, without compiling anything."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def fast_jit(function: Callable) -> Callable:
    """Compiles in half the time; for tests that do not hang on optimisation."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
