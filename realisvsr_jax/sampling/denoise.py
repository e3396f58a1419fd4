"""The velocity that a solver follows: the network, its guidance, its tiles."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent, TextStates
from realisvsr_jax.model.realisvsr import RealisVSR
from realisvsr_jax.sampling.solvers import VelocityFn
from realisvsr_jax.sampling.tiles import Tiling, fuse


def make_velocity(
    model: RealisVSR,
    condition: Latent,
    text: TextStates,
    tiling: Tiling,
    *,
    negative: TextStates | None = None,
    guidance: float | Float[Array, ""] = 1.0,
    condition_scale: float | Float[Array, ""] = 1.0,
) -> VelocityFn:
    """`velocity(z, timestep)` for clips whose low-quality latent is `condition`.

    With `negative`, v = v⁻ + guidance·(v⁺ − v⁻) from two forwards, v⁺ given `text` and v⁻
    given `negative` (Ho & Salimans, classifier-free guidance); both see the condition. Without
    it, one forward, and `guidance` is not used.
    """

    def velocity(z: Latent, timestep: Float[Array, ""]) -> Latent:
        times = jnp.full((z.shape[0],), timestep)

        def of_tile(z: Latent, condition: Latent) -> Latent:
            def given(text: TextStates) -> Latent:
                return model(z, times, condition, text, condition_scale=condition_scale)

            if negative is None:
                return given(text)
            away = given(negative)
            return away + guidance * (given(text) - away)

        return fuse(of_tile, tiling, z, condition)

    return velocity
