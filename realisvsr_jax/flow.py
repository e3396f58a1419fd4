"""Rectified flow: the straight path from a clean latent to noise, and when to look at it.

z_t = (1 − t)·x0 + t·ε with t ∈ [0, 1] (paper, Eq. 2 with α = 1 − t, σ = t); the network
predicts the velocity dz/dt = ε − x0 (Eqs. 4–6; the sign in Eq. 3 is a slip of the paper).
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent

DISTRIBUTIONS = ("uniform", "logit_normal", "one")

Sigma = TypeVar("Sigma", float, np.ndarray, Array)


def interpolate(x0: Latent, noise: Latent, t: Float[Array, "b"]) -> Latent:
    """z_t = (1 − t)·x0 + t·ε, one t a clip; t = 1 is pure noise."""
    t = t[:, None, None, None, None]
    return (1 - t) * x0 + t * noise


def velocity_target(x0: Latent, noise: Latent) -> Latent:
    """ε − x0, what the network learns to predict."""
    return noise - x0


def x0_from_velocity(z_t: Latent, velocity: Latent, t: Float[Array, "b"]) -> Latent:
    """The clean latent that `velocity` points from: x0 = z_t − t·v."""
    return z_t - t[:, None, None, None, None] * velocity


def noise_from_velocity(z_t: Latent, velocity: Latent, t: Float[Array, "b"]) -> Latent:
    """The noise that `velocity` points to: ε = z_t + (1 − t)·v."""
    return z_t + (1 - t)[:, None, None, None, None] * velocity


def shift(sigma: Sigma, s: float) -> Sigma:
    """σ' = s·σ / (1 + (s − 1)·σ): more of [0, 1] spent near noise where s > 1.

    Keeps 0, 1 and the dtype (float64 host tables stay float64). Raises ValueError for s ≤ 0.
    Source: Wan2.1 fm_solvers_unipc.py.
    """
    _check_shift(s)
    return s * sigma / (1 + (s - 1) * sigma)


def unshift(sigma: Sigma, s: float) -> Sigma:
    """The inverse of `shift`, which is the shift by 1 / s."""
    _check_shift(s)
    return shift(sigma, 1 / s)


def sample_time(
    key: Array, shape: tuple[int, ...], shift_by: float, distribution: str = "uniform"
) -> Float[Array, "..."]:
    """Random times in [0, 1] for training: a draw of `distribution`, then `shift`.

    "uniform" is Wan's choice; "logit_normal" is the sigmoid of a standard normal (Stable
    Diffusion 3); "one" is t = 1 alone, for networks of a single step. Raises ValueError for
    another name.
    """
    if distribution == "uniform":
        t = jax.random.uniform(key, shape)
    elif distribution == "logit_normal":
        t = jax.nn.sigmoid(jax.random.normal(key, shape))
    elif distribution == "one":
        t = jnp.ones(shape)
    else:
        known = ", ".join(DISTRIBUTIONS)
        raise ValueError(f"unknown distribution of times {distribution!r}; known: {known}")
    return shift(t, shift_by)


def _check_shift(s: float) -> None:
    if s <= 0:
        raise ValueError(f"the shift of the schedule is {s}, it must be positive")
