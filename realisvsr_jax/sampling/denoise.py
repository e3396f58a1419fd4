"""The velocity that a solver follows: the network, its guidance, its tiles, and what it knows."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent, TextStates
from realisvsr_jax.model.realisvsr import RealisVSR
from realisvsr_jax.sampling.solvers import Schedule, VelocityFn, integrate
from realisvsr_jax.sampling.tiles import Tiling, fuse


class Known(NamedTuple):
    """Latent frames that are restored already: `latent` [b, t, h, w, c] where `mask` [t] is 1."""

    latent: Latent
    mask: Float[Array, "t"]


def make_velocity(
    model: RealisVSR,
    condition: Latent,
    text: TextStates,
    tiling: Tiling,
    *,
    negative: TextStates | None = None,
    guidance: float | Float[Array, ""] = 1.0,
    condition_scale: float | Float[Array, ""] = 1.0,
    batch: int = 1,
) -> VelocityFn:
    """`velocity(z, timestep)` for clips whose low-quality latent is `condition`.

    With `negative`, v = v⁻ + guidance·(v⁺ − v⁻) from two forwards, v⁺ given `text` and v⁻
    given `negative` (Ho & Salimans, classifier-free guidance); both see the condition. Without
    it, one forward, and `guidance` is not used. `batch`: see `tiles.fuse`.
    """

    def velocity(z: Latent, timestep: Float[Array, ""]) -> Latent:
        def of_tile(z: Latent, condition: Latent) -> Latent:
            times = jnp.full((z.shape[0],), timestep)

            def given(text: TextStates) -> Latent:
                return model(z, times, condition, text, condition_scale=condition_scale)

            toward = given(repeated(text, z.shape[0]))
            if negative is None:
                return toward
            away = given(repeated(negative, z.shape[0]))
            return away + guidance * (toward - away)

        return fuse(of_tile, tiling, z, condition, batch=batch)

    return velocity


def repeated(text: TextStates, clips: int) -> Float[Array, "n s e"]:
    """States of so many clips, which `text` divides, one set of them after the other."""
    return jnp.tile(text, (clips // text.shape[0], 1, 1))


def continued(velocity: VelocityFn, noise: Latent, known: Known, schedule: Schedule) -> Latent:
    """x0 from `noise`, beside what is `known`, which comes back as it is.

    Before every step the known frames are what the path from their x0 to their noise has at the
    step's σ, (1 − σ)·x0 + σ·ε, so that the others continue them (as inpainting does in RePaint,
    Lugmayr et al. 2022, without its resampling).
    """
    held = known.mask[:, None, None, None] > 0

    def hold(z: Latent, sigma: Float[Array, ""]) -> Latent:
        return jnp.where(held, (1.0 - sigma) * known.latent + sigma * noise, z)

    return jnp.where(held, known.latent, integrate(velocity, noise, schedule, hold))
