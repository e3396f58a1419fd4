"""The path's formulas invert each other, and times follow their distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax import flow


def clean_and_noise():
    x0, noise = (jax.random.normal(jax.random.key(seed), (3, 2, 4, 5, 6)) for seed in (0, 1))
    return x0, noise, jnp.array([0.0, 0.3, 1.0])


def test_the_path_runs_from_clean_to_noise():
    x0, noise, t = clean_and_noise()
    z_t = flow.interpolate(x0, noise, t)
    np.testing.assert_array_equal(z_t[0], x0[0])
    np.testing.assert_array_equal(z_t[2], noise[2])


def test_velocity_and_point_give_both_ends_back():
    x0, noise, t = clean_and_noise()
    z_t, velocity = flow.interpolate(x0, noise, t), flow.velocity_target(x0, noise)
    np.testing.assert_allclose(flow.x0_from_velocity(z_t, velocity, t), x0, atol=1e-6)
    np.testing.assert_allclose(flow.noise_from_velocity(z_t, velocity, t), noise, atol=1e-6)


def test_the_target_is_the_derivative_of_the_path():
    x0, noise, t = clean_and_noise()
    _, slope = jax.jvp(lambda t: flow.interpolate(x0, noise, t), (t,), (jnp.ones(3),))
    np.testing.assert_allclose(slope, flow.velocity_target(x0, noise), atol=1e-6)


@pytest.mark.parametrize("s", [0.3, 1.0, 5.0, 12.0])
def test_shift_round_trips_in_float64_and_keeps_the_ends(s):
    sigma = np.linspace(0, 1, 101)
    shifted = flow.shift(sigma, s)
    assert shifted.dtype == np.float64
    # Wan's order of operations, whose truncated timesteps depend on it, may miss 1 by one ulp.
    assert shifted[0] == 0.0
    np.testing.assert_allclose(shifted[-1], 1.0, rtol=3e-16)
    assert (np.diff(shifted) > 0).all()
    np.testing.assert_allclose(flow.unshift(shifted, s), sigma, atol=1e-14)


def test_shift_is_wans():
    assert flow.shift(0.5, 5.0) == pytest.approx(5 / 6)
    np.testing.assert_array_equal(flow.shift(np.array([0.25, 0.7]), 1.0), [0.25, 0.7])


@pytest.mark.parametrize("s", [0.0, -1.0])
@pytest.mark.parametrize("function", [flow.shift, flow.unshift])
def test_a_shift_must_be_positive(function, s):
    with pytest.raises(ValueError, match="must be positive"):
        function(0.5, s)


def test_uniform_times_are_uniform_before_the_shift():
    t = flow.sample_time(jax.random.key(0), (20_000,), 5.0)
    u = np.sort(flow.unshift(np.asarray(t, np.float64), 5.0))
    ideal = (np.arange(len(u)) + 0.5) / len(u)
    # Kolmogorov-Smirnov at one in a million: 2.7 / sqrt(n).
    assert np.abs(u - ideal).max() < 2.7 / np.sqrt(len(u))


def test_logit_normal_times_are_normal_after_the_logit():
    t = flow.sample_time(jax.random.key(0), (20_000,), 1.0, "logit_normal")
    logit = np.log(t) - np.log1p(-t)
    assert abs(logit.mean()) < 0.04
    assert abs(logit.std() - 1) < 0.03


def test_times_depend_on_the_key_alone_and_stay_in_the_interval():
    first, again = (flow.sample_time(jax.random.key(3), (4096,), 5.0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert 0 <= first.min() < first.max() <= 1


def test_an_unknown_distribution_names_the_known():
    with pytest.raises(ValueError, match="'cosine'; known: uniform, logit_normal"):
        flow.sample_time(jax.random.key(0), (1,), 5.0, "cosine")
