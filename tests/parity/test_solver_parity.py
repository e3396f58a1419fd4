"""The solvers against diffusers' schedulers beyond the report, and mistakes that it would show."""

import numpy as np
import pytest
import torch

from realisvsr_jax.sampling.solvers import SCHEDULES, SamplerConfig, make_schedule, tabulate
from tests.parity import samplers
from tests.parity.peers import PART
from tests.parity.samplers import Levels


def test_unequal_steps_too():
    sigmas = np.array([0.97, 0.9, 0.55, 0.5, 0.2, 0.17, 0.0])
    ours = tabulate(sigmas, "unipc")
    given = Levels(sigmas.astype(np.float32), ours.timesteps)
    assert samplers.error(ours, "unipc", given) < PART


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0, 8.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_dpm_weights_in_float64(schedule, steps, shift):
    """Unit samples make diffusers' step show its weights: of sample, x0 and last x0."""
    ours = make_schedule(SamplerConfig("dpm++", steps, shift, schedule=schedule))
    given = Levels(ours.sigmas.astype(np.float32), ours.timesteps.astype(np.int64))
    scheduler = samplers.reference("dpm++", given)
    # One more axis keeps float64: PyTorch promotes for vectors, not for scalars.
    scheduler.sigmas = torch.from_numpy(ours.sigmas)[:, None]
    sample, x0, x0_last = torch.eye(3, dtype=torch.float64)
    for i, timestep in enumerate(scheduler.timesteps):
        scheduler.model_outputs = [x0_last, x0_last]
        velocity = (sample - x0) / ours.sigmas[i]
        shown = scheduler.step(velocity, timestep, sample).prev_sample.numpy()
        assert shown.dtype == np.float64
        np.testing.assert_allclose(ours.predict[i], shown, rtol=0, atol=1e-12)


def test_order_2_after_a_first_level_just_below_1_is_100_tolerances_off():
    """σ = 1 has to stay: λ = −∞ there makes the second step one of order 1."""
    given = samplers.levels("dpm++", "official", 3, 1.0)
    ours = make_schedule(SamplerConfig("dpm++", 3, 1.0))
    below = tabulate(np.append(1 - 1e-6, ours.sigmas[1:]), "dpm++")
    assert samplers.error(ours, "dpm++", given) < PART
    assert samplers.error(ours._replace(predict=below.predict), "dpm++", given) > 100 * PART


def test_timesteps_truncated_from_float32_are_100_tolerances_off():
    given = samplers.levels("dpm++", "official", 10, 3.0)
    ours = make_schedule(SamplerConfig("dpm++", 10, 3.0))
    assert (np.float32(ours.sigmas[3]), ours.timesteps[3]) == (0.875, 874)
    rounded = np.trunc(np.float32(1000) * ours.sigmas[:-1].astype(np.float32))
    assert samplers.error(ours, "dpm++", given) < PART
    assert samplers.error(ours._replace(timesteps=rounded), "dpm++", given) > 100 * PART


def test_unipc_from_0_999_of_float64_is_100_tolerances_off():
    """The float32 table's 0.999 is a little larger, and 666 instead of 665 comes of it."""
    given = samplers.levels("unipc", "official", 3, 1.0)
    ours = make_schedule(SamplerConfig("unipc", 3, 1.0))
    exact = tabulate(0.999 * np.array([1.0, 2 / 3, 1 / 3, 0.0]), "unipc")
    assert (ours.timesteps[1], exact.timesteps[1]) == (666, 665)
    assert samplers.error(ours, "unipc", given) < PART
    assert samplers.error(exact, "unipc", given) > 100 * PART
