"""The solvers step by step against diffusers' schedulers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from realisvsr_jax.sampling.solvers import SamplerConfig, integrate, make_schedule, tabulate

SHAPE = (1, 4, 2, 5, 6)


def unipc(shift):
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


def velocity(z, timestep):
    """Any smooth field will do: it has to depend on both, and not linearly."""
    library = torch if isinstance(z, torch.Tensor) else jnp
    return library.sin(3.0 * z) + 0.3 * z * (timestep / 1000.0) + 0.1


def run_reference(scheduler, z, timesteps):
    """Every sample that diffusers' scheduler passes through, the last being x0."""
    samples = []
    for own, ours in zip(scheduler.timesteps, timesteps, strict=True):
        z = scheduler.step(velocity(z, float(ours)), own, z).prev_sample
        samples.append(z.numpy())
    return samples


def run_ours(z, schedule):
    """Our samples, caught where the network is called, the last being x0."""
    seen = []

    def watched(sample, timestep):
        jax.debug.callback(lambda s: seen.append(np.asarray(s)), sample, ordered=True)
        return velocity(sample, timestep)

    x0 = np.asarray(integrate(watched, jnp.asarray(z), schedule))
    jax.effects_barrier()
    return [*seen[1:], x0]


def assert_close(ours, reference):
    assert len(ours) == len(reference)
    for a, b in zip(ours, reference, strict=True):
        assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()


@pytest.fixture
def noise():
    return torch.from_numpy(np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32))


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 50])
def test_the_diffusers_schedule_is_diffusers(steps, shift):
    scheduler = unipc(shift)
    scheduler.set_timesteps(steps)
    schedule = make_schedule(SamplerConfig(steps=steps, shift=shift, schedule="diffusers"))
    np.testing.assert_array_equal(schedule.sigmas.astype(np.float32), scheduler.sigmas.numpy())
    np.testing.assert_array_equal(schedule.timesteps, scheduler.timesteps.numpy())


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 20])
@pytest.mark.parametrize("schedule", ["official", "diffusers"])
def test_unipc_step_by_step(noise, steps, schedule):
    ours = make_schedule(SamplerConfig(steps=steps, schedule=schedule))
    scheduler = unipc(shift=5.0 if schedule == "diffusers" else 1.0)
    given = {"sigmas": ours.sigmas[:-1].copy()} if schedule == "official" else {}
    scheduler.set_timesteps(steps, **given)
    assert_close(run_ours(noise.numpy(), ours), run_reference(scheduler, noise, ours.timesteps))


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_euler_step_by_step(noise, steps):
    ours = make_schedule(SamplerConfig(solver="euler", steps=steps))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=ours.sigmas[:-1].tolist())
    np.testing.assert_array_equal(scheduler.sigmas.numpy(), ours.sigmas.astype(np.float32))
    reference = run_reference(scheduler, noise, ours.timesteps)
    assert_close(run_ours(noise.numpy(), ours), reference)


def test_unequal_steps_too(noise):
    sigmas = np.array([0.97, 0.9, 0.55, 0.5, 0.2, 0.17, 0.0])
    ours = tabulate(sigmas, "unipc")
    scheduler = unipc(shift=1.0)
    scheduler.set_timesteps(sigmas=sigmas[:-1].copy())
    reference = run_reference(scheduler, noise, ours.timesteps)
    assert_close(run_ours(noise.numpy(), ours), reference)
