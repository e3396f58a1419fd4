"""From noise to x0 along the learned velocity: Euler, DPM++ and UniPC over Wan's schedules.

All solvers are linear in the samples and in the predictions x0 = z − σ·v, so each step is
a row of coefficients, worked out on the host in float64; the loop on the device is one scan
whose body calls the network once.

Sources: Wan2.1 fm_solvers.py and fm_solvers_unipc.py; diffusers DPMSolverMultistepScheduler
and UniPCMultistepScheduler; Lu et al., DPM-Solver++ (2022), its 2M form by the midpoint; Zhao
et al., UniPC (NeurIPS 2023), its B₂(h) form predicting x0.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from realisvsr_jax import flow
from realisvsr_jax.errors import InputError

SOLVERS = ("unipc", "dpm++", "euler")
SCHEDULES = ("official", "diffusers")
Sample: TypeAlias = Float[Array, "..."]
VelocityFn = Callable[[Sample, Float[Array, ""]], Sample]
HoldFn = Callable[[Sample, Float[Array, ""]], Sample]


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """How a clip is sampled.

    `solver`: "unipc" (order 2, corrected), "dpm++" (order 2) or "euler".
    `steps`: forward passes, at guidance 1.
    `shift`: s of `flow.shift`. `guidance`: scale of classifier-free guidance; 1 is without.
    `schedule`: whose noise levels, Wan2.1's ("official") or diffusers'; see `noise_levels`.
    `noise`: deviation of what is started from; 0 for networks that learnt without.
    Raises InputError for a value outside these.
    """

    solver: str = "unipc"
    steps: int = 20
    shift: float = 5.0
    guidance: float = 1.0
    schedule: str = "official"
    noise: float = 1.0

    def __post_init__(self) -> None:
        for name, known in (("solver", SOLVERS), ("schedule", SCHEDULES)):
            value = getattr(self, name)
            if value not in known:
                raise InputError(f"sampler {name} is {value!r}; known: {', '.join(known)}")
        if self.steps < 1:
            raise InputError(f"sampler steps must be at least 1, got {self.steps}")
        if self.shift <= 0:
            raise InputError(f"sampler shift must be positive, got {self.shift}")


def initial_noise(key: Array, shape: Sequence[int], config: SamplerConfig) -> Sample:
    """What sampling starts from, float32."""
    return config.noise * jax.random.normal(key, tuple(shape))


class Schedule(NamedTuple):
    """Host tables of N steps, float64; σ has been float32, as in both references.

    `sigmas` [N+1] fall to 0; `timesteps` [N] are what the network is given. Rows weigh
    what a step combines: `correct` [N, 5] the sample it was given, the corrected sample
    before it, the x0 of this step, of the last and of the one before; `predict` [N, 3] the
    corrected sample, the x0 of this step and of the last.
    """

    sigmas: np.ndarray
    timesteps: np.ndarray
    correct: np.ndarray
    predict: np.ndarray


def make_schedule(config: SamplerConfig) -> Schedule:
    """The tables of a sampler; timesteps are 1000·σ truncated to an integer, as in Wan."""
    return tabulate(noise_levels(config), config.solver)


def noise_levels(config: SamplerConfig) -> np.ndarray:
    """σ of N steps and a final 0, float64 [N+1].

    The two references differ. Before the shift Wan's run towards 0, DPM++ and Euler from 1,
    pure noise, UniPC from the 0.999 of a float32 table, 0.9990000128746033, since it takes
    log(1 − σ); with 0.999 itself some timesteps would be truncated to one less. diffusers'
    UniPC runs from 1 towards 0.001 and then lowers a first σ of 1 by 1e-6; its DPM++ runs from
    0.999 towards 0, as 1 − α: truncated timesteps show that last bit of rounding. Euler has
    the levels of diffusers' UniPC, from 1; diffusers' own Euler scheduler spaces others.
    """
    unipc = config.solver == "unipc"
    if config.schedule == "official":
        sigmas = np.linspace(float(np.float32(0.999)) if unipc else 1.0, 0.0, config.steps + 1)
    elif config.solver == "dpm++":
        sigmas = 1.0 - np.linspace(1.0, 0.001, config.steps + 1)[::-1]
    else:
        sigmas = np.linspace(1.0, 0.001, config.steps + 1)
    sigmas = np.asarray(flow.shift(sigmas[:-1], config.shift))
    if unipc and sigmas[0] > 1 - 1e-6:
        sigmas[0] -= 1e-6
    return np.append(sigmas, 0.0)


def tabulate(sigmas: np.ndarray, solver: str) -> Schedule:
    """The tables for given noise levels [N+1], falling strictly; UniPC wants the first < 1.

    The first step of UniPC and of DPM++ and their last are of order 1, the others of order 2.
    UniPC's sample is corrected from the second step on, at the order at which it was
    predicted; DPM++ is UniPC without the correction. Timesteps are truncated from float64, weights
    are those of σ in float32, as both references store it.
    """
    timesteps = np.trunc(1000.0 * sigmas[:-1])
    sigmas = np.asarray(sigmas, np.float32).astype(np.float64)
    steps = len(sigmas) - 1
    correct, predict = np.zeros((steps, 5)), np.zeros((steps, 3))
    orders = [1 if solver == "euler" else min(2, i + 1, steps - i) for i in range(steps)]
    correct[:, 0] = 1.0
    for i in range(steps):
        if solver == "unipc" and i > 0:
            correct[i] = _correction(sigmas, i, orders[i - 1])
        predict[i] = _prediction(sigmas, i, orders[i])
    return Schedule(sigmas, timesteps, correct, predict)


def solve(velocity_fn: VelocityFn, z_init: Sample, config: SamplerConfig) -> Sample:
    """x0 from noise `z_init` along `velocity_fn(z, timestep)`, timestep = 1000·t in float32.

    The state is float32 at least, whatever the network computes in. The last step returns
    the x0 predicted from its uncorrected sample, as Wan's does.
    """
    return integrate(velocity_fn, z_init, make_schedule(config))


def integrate(
    velocity_fn: VelocityFn, z_init: Sample, schedule: Schedule, hold: HoldFn | None = None
) -> Sample:
    """`solve` over ready tables: one scan, so the network is traced and compiled once.

    Before each step `hold(z, σ)`, where it is given, takes the place of the sample.
    """
    dtype = jnp.promote_types(z_init.dtype, jnp.float32)
    z_init = z_init.astype(dtype)
    rows = (
        jnp.asarray(schedule.timesteps, jnp.float32),
        jnp.asarray(schedule.sigmas[:-1], dtype),
        jnp.asarray(schedule.correct, dtype),
        jnp.asarray(schedule.predict, dtype),
    )

    def step(carry: tuple[Sample, ...], row: tuple[Array, ...]) -> tuple[tuple, None]:
        z, corrected_last, x0_last, x0_before = carry
        timestep, sigma, correct, predict = row
        z = z if hold is None else hold(z, sigma)
        x0 = z - sigma * velocity_fn(z, timestep).astype(dtype)
        corrected = _combine(correct, (z, corrected_last, x0, x0_last, x0_before))
        z = _combine(predict, (corrected, x0, x0_last))
        return (z, corrected, x0, x0_last), None

    zeros = jnp.zeros_like(z_init)
    (z, *_), _ = jax.lax.scan(step, (z_init, zeros, zeros, zeros), rows)
    return z


def _combine(weights: Float[Array, "k"], samples: tuple[Sample, ...]) -> Sample:
    total = weights[0] * samples[0]
    for weight, sample in zip(weights[1:], samples[1:], strict=True):
        total = total + weight * sample
    return total


def _half_log_snr(sigma: float) -> float:
    """λ = log α − log σ, with α = 1 − σ; ∞ at σ = 0 and −∞ at σ = 1."""
    with np.errstate(divide="ignore"):
        return np.log1p(-sigma) - np.log(sigma)


def _prediction(sigmas: np.ndarray, i: int, order: int) -> np.ndarray:
    """UniP, or DPM++, from σ_i to σ_{i+1}: weights of [corrected sample, x0, last x0].

    Order 1 is Euler's step; so is order 2 after σ = 1, where λ = −∞ takes the slope to 0.
    """
    now, after = sigmas[i], sigmas[i + 1]
    keep = after / now
    if order == 1:
        return np.array([keep, 1.0 - keep, 0.0])
    h = _half_log_snr(after) - _half_log_snr(now)
    ratio = (_half_log_snr(sigmas[i - 1]) - _half_log_snr(now)) / h
    slope = -(1.0 - after) * np.expm1(-h) * 0.5 / ratio
    return np.array([keep, 1.0 - keep - slope, slope])


def _correction(sigmas: np.ndarray, i: int, order: int) -> np.ndarray:
    """UniC at σ_i, once x0 there is known: the step from σ_{i−1} again, with that x0.

    [given sample, corrected sample of the last step, x0, last x0, x0 before it]; ρ solve the
    order conditions of UniPC's Eq. 9 with B₂(h) = e^{-h} − 1.
    """
    last, now = sigmas[i - 1], sigmas[i]
    keep = now / last
    h = _half_log_snr(now) - _half_log_snr(last)
    scale = -(1.0 - now) * np.expm1(-h)
    if order == 1:
        return np.array([0.0, keep, 0.5 * scale, 1.0 - keep - 0.5 * scale, 0.0])
    ratio = (_half_log_snr(sigmas[i - 2]) - _half_log_snr(last)) / h
    base = np.expm1(-h)
    phi_2 = -base / h - 1.0
    phi_3 = -phi_2 / h - 0.5
    conditions = np.array([[1.0, 1.0], [ratio, 1.0]])
    rho = np.linalg.solve(conditions, np.array([phi_2, 2.0 * phi_3]) / base)
    before, current = scale * rho[0] / ratio, scale * rho[1]
    return np.array([0.0, keep, current, 1.0 - keep - before - current, before])
