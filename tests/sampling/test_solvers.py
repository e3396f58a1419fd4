"""Properties of the schedules and of the solvers on flows whose end is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.sampling.solvers import (
    SOLVERS,
    SamplerConfig,
    integrate,
    make_schedule,
    noise_levels,
    solve,
    tabulate,
)

MEAN, STD = 0.7, 0.4


def noise(shape=(1, 2, 3, 4, 2), seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def gaussian_velocity(z, timestep):
    """E[ε − x0 | z] where x0 ~ N(MEAN, STD²)."""
    sigma = timestep / 1000.0
    variance = ((1 - sigma) * STD) ** 2 + sigma**2
    x0 = MEAN + (1 - sigma) * STD**2 / variance * (z - (1 - sigma) * MEAN)
    return (z - x0) / sigma


def gaussian_path(start, sigma):
    """Where the probability flow takes what stands at `start` at σ = 0.95."""
    spread = lambda s: np.sqrt(((1 - s) * STD) ** 2 + s**2)  # noqa: E731
    return (1 - sigma) * MEAN + spread(sigma) * (start - 0.05 * MEAN) / spread(0.95)


def test_the_official_levels_at_20_steps():
    schedule = make_schedule(SamplerConfig())
    assert schedule.sigmas.dtype == np.float64
    assert schedule.sigmas.shape == (21,)
    raw = float(np.float32(0.999)) * (1 - np.arange(20) / 20)
    levels = noise_levels(SamplerConfig())
    np.testing.assert_allclose(levels[:-1], 5 * raw / (1 + 4 * raw), rtol=1e-14)
    np.testing.assert_array_equal(schedule.sigmas, levels.astype(np.float32))  # as PyTorch's
    assert schedule.sigmas[-1] == 0.0
    assert schedule.timesteps[0] == 999


# Wan2.1's own schedulers, run in PyTorch; longer ones in tests/parity/official_schedules.json.
@pytest.mark.parametrize(
    ("solver", "steps", "shift", "sigmas", "timesteps"),
    [
        ("unipc", 1, 5.0, [0.99979985, 0], [999]),
        ("unipc", 3, 1.0, [0.999, 0.666, 0.333, 0], [999, 666, 333]),
        ("unipc", 3, 5.0, [0.99979985, 0.9088428, 0.7139794, 0], [999, 908, 713]),
        ("unipc", 4, 3.0, [0.99966645, 0.8996398, 0.7496248, 0.49966657, 0], [999, 899, 749, 499]),
        ("dpm++", 3, 1.0, [1, 0.6666667, 0.33333334, 0], [1000, 666, 333]),
        ("dpm++", 4, 3.0, [1, 0.9, 0.75, 0.5, 0], [1000, 900, 750, 500]),
    ],
)
def test_official_schedules_are_wans(solver, steps, shift, sigmas, timesteps):
    schedule = make_schedule(SamplerConfig(solver, steps, shift))
    np.testing.assert_array_equal(schedule.sigmas.astype(np.float32), np.float32(sigmas))
    np.testing.assert_array_equal(schedule.timesteps, timesteps)


def test_the_official_dpm_levels_at_4_steps():
    schedule = make_schedule(SamplerConfig(solver="dpm++", steps=4, shift=5.0))
    np.testing.assert_allclose(schedule.sigmas, [1, 15 / 16, 5 / 6, 5 / 8, 0], rtol=1e-7)
    np.testing.assert_array_equal(schedule.timesteps, [1000, 937, 833, 625])


@pytest.mark.parametrize("schedule", ["official", "diffusers"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_levels_fall_strictly_to_zero(solver, schedule, steps):
    sigmas = noise_levels(SamplerConfig(solver=solver, schedule=schedule, steps=steps))
    assert (np.diff(sigmas) < 0).all()
    assert sigmas[-1] == 0.0
    starts_at_1 = {"unipc": (), "dpm++": ("official",), "euler": ("official", "diffusers")}
    assert (sigmas[0] == 1.0) == (schedule in starts_at_1[solver])


@pytest.mark.parametrize("schedule", ["official", "diffusers"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_tables_and_results_are_finite(solver, schedule, steps):
    config = SamplerConfig(solver=solver, steps=steps, schedule=schedule)
    for table in make_schedule(config):
        assert np.isfinite(table).all()
    assert np.isfinite(solve(lambda z, t: jnp.cos(2.0 * z), noise(), config)).all()


def test_dpm_is_of_first_order_first_last_and_after_pure_noise():
    official, diffusers = (
        make_schedule(SamplerConfig(solver="dpm++", steps=5, schedule=schedule)).predict[:, 2] != 0
        for schedule in ("official", "diffusers")
    )
    np.testing.assert_array_equal(official, [False, False, True, True, False])
    np.testing.assert_array_equal(diffusers, [False, True, True, True, False])


def test_timesteps_are_truncated_from_float64():
    sigmas = np.array([np.nextafter(0.875, 0), 0.5, 0.0])
    assert np.float32(sigmas[0]) == np.float32(0.875)
    np.testing.assert_array_equal(tabulate(sigmas, "euler").timesteps, [874, 500])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 20, 50])
def test_every_step_keeps_a_constant_prediction(solver, steps):
    """Weights of the x0 sum to what the sample leaves: z = (1 − σ)x0 + σε goes to itself."""
    schedule = make_schedule(SamplerConfig(solver=solver, steps=steps))
    x0, eps = 1.7, -0.6
    line = (1 - schedule.sigmas) * x0 + schedule.sigmas * eps
    for i in range(steps):
        last = line[i - 1] if i else 0.0
        corrected = schedule.correct[i] @ [line[i], last, x0, x0, x0]
        assert corrected == pytest.approx(line[i], abs=1e-12)
        assert schedule.predict[i] @ [line[i], x0, x0] == pytest.approx(line[i + 1], abs=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_one_clean_clip_is_reached_in_any_number_of_steps(solver, steps):
    config, target, z = SamplerConfig(solver=solver, steps=steps), noise(seed=1), noise()
    sigmas = jnp.asarray(noise_levels(config)[:-1], jnp.float32)
    timesteps = jnp.asarray(make_schedule(config).timesteps, jnp.float32)

    def velocity(z, timestep):
        return (z - target) / sigmas[jnp.argmin(jnp.abs(timesteps - timestep))]

    np.testing.assert_allclose(solve(velocity, z, config), target, atol=2e-6)


def test_one_euler_step_from_pure_noise_subtracts_the_velocity():
    z, v = noise(), noise(seed=1)
    for schedule in ("official", "diffusers"):
        config = SamplerConfig(solver="euler", steps=1, schedule=schedule)
        x0 = solve(lambda z, t: v * (t / 1000.0), z, config)
        np.testing.assert_allclose(x0, z - v, rtol=1e-6, atol=1e-6)


def test_the_last_step_returns_the_x0_of_its_uncorrected_sample():
    seen = []

    def velocity(z, timestep):
        v = jnp.cos(2.0 * z) + timestep / 1000.0
        jax.debug.callback(lambda *a: seen.append(a), z, v, ordered=True)
        return v

    config = SamplerConfig(steps=4)
    x0 = solve(velocity, noise(), config)
    jax.effects_barrier()
    assert len(seen) == 4
    z, v = seen[-1]
    np.testing.assert_allclose(x0, z - noise_levels(config)[3] * v, atol=1e-6)


def error_of(solver, steps):
    """Worst error at σ = 0.05 of `steps` even steps from 0.95 on the Gaussian flow."""
    with jax.enable_x64(True):
        sigmas = np.linspace(0.95, 0.05, steps + 1)
        start = np.linspace(-2.0, 2.0, 9)
        schedule = tabulate(sigmas, solver)._replace(timesteps=1000.0 * sigmas[:-1])
        end = integrate(gaussian_velocity, jnp.asarray(start), schedule)
        return float(np.abs(np.asarray(end) - gaussian_path(start, 0.05)).max())


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("dpm++", 2), ("unipc", 2)])
def test_solvers_converge_at_their_order(solver, order):
    # Beyond 512 steps UniPC's error meets the rounding of the float32 timesteps.
    coarse, fine = (error_of(solver, steps) for steps in (256, 512))
    assert np.log2(coarse / fine) > order - 0.1
    assert fine < 3e-3


@pytest.mark.parametrize("solver", ["dpm++", "unipc"])
def test_order_2_beats_euler_at_equal_cost(solver):
    assert error_of(solver, 16) < 0.2 * error_of("euler", 16)


@pytest.mark.parametrize("steps", [1, 20])
def test_the_network_is_traced_once_and_sees_float32_scalars(steps):
    traces = []

    def velocity(z, timestep):
        traces.append((timestep.shape, timestep.dtype, z.dtype))
        return z.astype(jnp.bfloat16)

    run = jax.jit(lambda z: solve(velocity, z, SamplerConfig(steps=steps)))
    assert run(noise().astype(jnp.bfloat16)).dtype == jnp.float32
    run(noise(seed=1).astype(jnp.bfloat16))
    assert set(traces) == {((), jnp.dtype("float32"), jnp.dtype("float32"))}
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "heun"}, r"solver is 'heun'; known: unipc, dpm\+\+, euler"),
        ({"schedule": "karras"}, "schedule is 'karras'; known: official, diffusers"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"shift": 0.0}, "shift must be positive"),
    ],
)
def test_settings_out_of_range_are_errors(settings, message):
    config = SamplerConfig()
    with pytest.raises(InputError, match=message):
        SamplerConfig(**({**vars(config), **settings}))
