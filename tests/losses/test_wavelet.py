"""The Haar bands are an orthonormal change of basis with the names the paper gives them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt

from realisvsr_jax.losses.wavelet import haar_bands, wavelet_loss


def noise(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("shape", [(2, 3, 8, 12, 4), (1, 1, 2, 2, 1), (1, 2, 10, 6, 3)])
def test_weights_of_one_give_the_mean_square(shape):
    for double, tolerance in ((False, 5e-6), (True, 1e-12)):
        with jax.enable_x64(double):
            dtype = jnp.float64 if double else jnp.float32
            velocity, target = noise(shape, 1).astype(dtype), noise(shape, 2).astype(dtype)
            expected = float(jnp.mean((velocity - target) ** 2))
            loss = float(wavelet_loss(velocity, target, (1.0, 1.0, 1.0, 1.0)))
            assert loss == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("k", range(4))
def test_each_weight_belongs_to_its_band(k):
    velocity, target = noise((1, 2, 8, 6, 3), 1), noise((1, 2, 8, 6, 3), 2)
    weights = tuple(float(i == k) for i in range(4))
    band = haar_bands(velocity - target)[k]
    expected = float(jnp.sum(band**2)) / velocity.size
    assert float(wavelet_loss(velocity, target, weights)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (np.ones((8, 8)), "ll"),
        (np.indices((8, 8))[0] % 2 * 2.0 - 1, "lh"),
        (np.indices((8, 8))[1] % 2 * 2.0 - 1, "hl"),
        (np.indices((8, 8)).sum(0) % 2 * 2.0 - 1, "hh"),
    ],
    ids=["flat", "rows differ", "columns differ", "checkerboard"],
)
def test_a_pattern_lands_in_the_band_of_its_direction(pattern, name):
    bands = haar_bands(jnp.asarray(pattern[None, None, :, :, None], jnp.float32))
    energy = {key: float(jnp.sum(band**2)) for key, band in bands._asdict().items()}
    assert energy.pop(name) == pytest.approx(64.0, rel=1e-5)
    assert max(energy.values()) < 1e-8


def test_bands_are_those_of_pywavelets_frame_by_frame():
    latent = noise((2, 2, 6, 8, 3))
    bands = haar_bands(latent)
    assert bands.ll.shape == (2, 2, 3, 4, 3)
    coarse, details = pywt.dwt2(np.asarray(latent)[1, 0, :, :, 2], "haar")
    for band, reference in zip(bands, (coarse, *details), strict=True):
        np.testing.assert_allclose(band[1, 0, :, :, 2], reference, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(7, 8), (8, 7)])
def test_odd_sizes_are_an_error(height, width):
    with pytest.raises(ValueError, match=f"h={height}, w={width}"):
        haar_bands(jnp.zeros((1, 1, height, width, 1)))


def test_the_gradient_stays_in_the_weighted_bands():
    velocity, target = noise((1, 1, 8, 8, 2), 1), noise((1, 1, 8, 8, 2), 2)
    gradient = jax.jit(jax.grad(wavelet_loss), static_argnums=2)(
        velocity, target, (0.0, 1.0, 1.0, 1.0)
    )
    assert float(jnp.abs(haar_bands(gradient).ll).max()) < 1e-6
    assert float(jnp.abs(gradient).max()) > 1e-4
