"""The solvers step by step against diffusers' schedulers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from realisvsr_jax.sampling.solvers import SamplerConfig, integrate, make_schedule, tabulate

SHAPE = (1, 4, 2, 5, 6)
TOLERANCE = 1e-5


def unipc(shift):
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


def dpm(steps, shift, schedule):
    """diffusers' DPM++, on its own levels or on Wan's, which are set by hand."""
    scheduler = DPMSolverMultistepScheduler(
        solver_order=2,
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift,
    )
    scheduler.set_timesteps(steps)
    if schedule == "official":
        sigmas = np.linspace(1, 0, steps + 1)[:steps]
        sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
        scheduler.timesteps = torch.from_numpy((1000 * sigmas).astype(np.int64))
        scheduler.sigmas = torch.from_numpy(np.append(sigmas, 0.0).astype(np.float32))
        scheduler.set_begin_index(0)
    return scheduler


def velocity(z, timestep):
    """Any smooth field will do: not linear in z, and a timestep off by one has to show."""
    library = torch if isinstance(z, torch.Tensor) else jnp
    return library.sin(3.0 * z) + 0.3 * z * (timestep % 7.0 / 7.0) + 0.1


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


def error(ours, reference):
    """The worst of all samples, each relative to its largest value; NaN where one is."""
    pairs = zip(ours, reference, strict=True)
    return np.max([np.abs(a - b).max() / np.abs(b).max() for a, b in pairs])


def assert_close(ours, reference):
    assert error(ours, reference) <= TOLERANCE


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


def test_the_official_dpm_timesteps_are_truncated_from_float64():
    schedule = make_schedule(SamplerConfig(solver="dpm++", steps=10, shift=3.0))
    assert np.float32(schedule.sigmas[3]) == 0.875
    assert schedule.timesteps[3] == 874


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20, 50])
@pytest.mark.parametrize("schedule", ["official", "diffusers"])
def test_dpm_levels(schedule, steps, shift):
    scheduler = dpm(steps, shift, schedule)
    ours = make_schedule(SamplerConfig("dpm++", steps, shift, schedule=schedule))
    np.testing.assert_array_equal(ours.sigmas.astype(np.float32), scheduler.sigmas.numpy())
    np.testing.assert_array_equal(ours.timesteps, scheduler.timesteps.numpy())


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("schedule", ["official", "diffusers"])
def test_dpm_weights_in_float64(schedule, steps, shift):
    """Unit samples make diffusers' step show its weights: of sample, x0 and last x0."""
    ours = make_schedule(SamplerConfig("dpm++", steps, shift, schedule=schedule))
    scheduler = dpm(steps, shift, schedule)
    # One more axis keeps float64: PyTorch promotes for vectors, not for scalars.
    scheduler.sigmas = torch.from_numpy(ours.sigmas)[:, None]
    sample, x0, x0_last = torch.eye(3, dtype=torch.float64)
    for i, timestep in enumerate(scheduler.timesteps):
        scheduler.model_outputs = [x0_last, x0_last]
        velocity = (sample - x0) / ours.sigmas[i]
        shown = scheduler.step(velocity, timestep, sample).prev_sample.numpy()
        assert shown.dtype == np.float64
        np.testing.assert_allclose(ours.predict[i], shown, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("schedule", ["official", "diffusers"])
def test_dpm_step_by_step(noise, schedule, steps, shift):
    ours = make_schedule(SamplerConfig("dpm++", steps, shift, schedule=schedule))
    scheduler = dpm(steps, shift, schedule)
    reference = run_reference(scheduler, noise, scheduler.timesteps)
    assert_close(run_ours(noise.numpy(), ours), reference)


def test_order_2_after_a_first_level_just_below_1_is_100_tolerances_off(noise):
    """σ = 1 has to stay: λ = −∞ there makes the second step one of order 1."""
    scheduler = dpm(3, 1.0, "official")
    reference = run_reference(scheduler, noise, scheduler.timesteps)
    ours = make_schedule(SamplerConfig("dpm++", 3, 1.0))
    below = tabulate(np.append(1 - 1e-6, ours.sigmas[1:]), "dpm++")
    wrong = run_ours(noise.numpy(), ours._replace(predict=below.predict))
    assert error(wrong, reference) > 100 * TOLERANCE


def test_timesteps_truncated_from_float32_are_100_tolerances_off(noise):
    scheduler = dpm(10, 3.0, "official")
    reference = run_reference(scheduler, noise, scheduler.timesteps)
    ours = make_schedule(SamplerConfig("dpm++", 10, 3.0))
    rounded = np.trunc(np.float32(1000) * ours.sigmas[:-1].astype(np.float32))
    wrong = run_ours(noise.numpy(), ours._replace(timesteps=rounded))
    assert error(wrong, reference) > 100 * TOLERANCE
