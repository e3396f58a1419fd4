"""Arithmetic that rooms share: what float32 means, the norm of transformers, whole multiples."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def precision_of(dtype: DTypeLike) -> jax.lax.Precision | None:
    """float32 means float32: by default a TPU or GPU rounds the factors of its products."""
    return jax.lax.Precision.HIGHEST if jnp.dtype(dtype) == jnp.float32 else None


def round_up(length: int, whole: int) -> int:
    """The smallest multiple of `whole` that is not below `length`."""
    return length + -length % whole


class RMSNorm(nnx.Module):
    """RMS norm over the last axis: float32 inside, cast back, then the weight.

    Sources: Wan2.1 model.py and t5.py.
    """

    def __init__(self, dim: int, eps: float):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones((dim,)))

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps)
        return y.astype(x.dtype) * self.scale[...].astype(x.dtype)
