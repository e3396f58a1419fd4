"""HOG of latents: scikit-image's where it votes hard, and differentiable where it votes softly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from skimage.feature import hog as reference_hog

from realisvsr_jax.errors import InputError
from realisvsr_jax.losses.hog import HOGConfig, cell_histograms, hog, hog_loss

HARD = HOGConfig(votes="hard")


def noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ramp(degrees, size=24, slope=1.0):
    """A plane whose gradient points `degrees` from the x axis towards the y axis."""
    y, x = np.mgrid[:size, :size]
    angle = np.deg2rad(degrees)
    plane = slope * (np.cos(angle) * x + np.sin(angle) * y)
    return jnp.asarray(plane[None, None, :, :, None], jnp.float32)


@pytest.mark.parametrize(("height", "width"), [(24, 24), (32, 48)])
def test_hard_votes_equal_scikit_image(height, width):
    with jax.enable_x64(True):
        latent = noise((1, 2, height, width, 2)).astype(np.float64)
        ours = np.asarray(hog(jnp.asarray(latent), HARD))
    for frame in range(2):
        for channel in range(2):
            reference = reference_hog(
                latent[0, frame, :, :, channel],
                orientations=9,
                pixels_per_cell=(8, 8),
                cells_per_block=(3, 3),
                block_norm="L2-Hys",
                feature_vector=False,
            )
            reference = rearrange(reference, "r s y x bin -> r s (y x bin)")
            # scikit-image adds a cell's votes up in float32, whatever it is given.
            np.testing.assert_allclose(ours[0, frame, :, :, channel], reference, atol=2e-7)


@pytest.mark.parametrize("k", range(9))
def test_a_bin_centre_votes_for_its_own_bin_alone(k):
    cells = np.asarray(cell_histograms(ramp(20 * k + 10)))[:, 0, 0, 1, 1, 0]
    np.testing.assert_allclose(cells, 2.0 * np.eye(9)[k], atol=1e-4)


@pytest.mark.parametrize("degrees", [0.0, 180.0])
def test_bins_are_circular(degrees):
    cells = np.asarray(cell_histograms(ramp(degrees)))[:, 0, 0, 1, 1, 0]
    np.testing.assert_allclose(cells[[0, 8]], [1.0, 1.0], atol=1e-5)
    np.testing.assert_allclose(cells[1:8], 0.0, atol=1e-5)


@pytest.mark.parametrize("degrees", [5.0, 37.0, 90.0, 133.0, 179.0])
def test_votes_sum_to_the_magnitude_and_ignore_the_sign(degrees):
    cells = cell_histograms(ramp(degrees))[:, 0, 0, 1, 1, 0]
    assert float(cells.sum()) == pytest.approx(2.0, rel=1e-5)
    opposite = cell_histograms(ramp(degrees + 180))[:, 0, 0, 1, 1, 0]
    np.testing.assert_allclose(cells, opposite, atol=1e-4)


def test_soft_votes_are_continuous_where_hard_ones_jump():
    below, above = ramp(19.999), ramp(20.001)
    assert np.abs(cell_histograms(below) - cell_histograms(above)).max() < 1e-3
    assert np.abs(cell_histograms(below, HARD) - cell_histograms(above, HARD)).max() > 1.0


def test_descriptors_have_unit_norm_and_do_not_see_contrast():
    latent = jnp.asarray(noise((1, 1, 24, 32, 2)))
    blocks = hog(latent)
    assert blocks.shape == (1, 1, 1, 2, 2, 81)
    np.testing.assert_allclose(jnp.linalg.norm(blocks, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(hog(7.0 * latent + 3.0), blocks, atol=1e-5)


def test_the_loss_sums_over_the_components_of_a_descriptor():
    a, b = jnp.asarray(noise((2, 1, 24, 32, 2), 1)), jnp.asarray(noise((2, 1, 24, 32, 2), 2))
    difference = np.asarray(hog(a)) - np.asarray(hog(b))
    expected = (difference**2).sum(-1).mean()
    assert float(hog_loss(a, b)) == pytest.approx(expected, rel=1e-5)
    assert float(hog_loss(a, a)) == 0.0


def test_sizes_are_reflected_to_whole_cells():
    latent = noise((1, 1, 20, 27, 1))
    padded = np.pad(latent, ((0, 0), (0, 0), (0, 4), (0, 5), (0, 0)), mode="reflect")
    np.testing.assert_allclose(hog(jnp.asarray(latent)), hog(jnp.asarray(padded)), atol=1e-7)


@pytest.mark.parametrize(("height", "width"), [(16, 64), (24, 15), (8, 8)])
def test_fewer_cells_than_a_block_is_an_error(height, width):
    with pytest.raises(ValueError, match=rf"3×3 cells of 8×8.*{height}×{width}"):
        hog(jnp.zeros((1, 1, height, width, 1)))


@pytest.mark.parametrize(
    "latent",
    [
        np.zeros((1, 1, 24, 24, 1)),
        np.full((1, 1, 24, 24, 1), 3.0),
        1e-25 * noise((1, 1, 24, 24, 1)),
        1e-12 * noise((1, 1, 24, 24, 1)),
        1e12 * noise((1, 1, 24, 24, 1)),
        np.pad(np.ones((1, 1, 8, 8, 1)), ((0, 0), (0, 0), (8, 8), (8, 8), (0, 0))),
        np.broadcast_to(np.arange(24.0)[:, None], (24, 24))[None, None, :, :, None],
    ],
    ids=["zero", "constant", "underflow", "tiny", "huge", "square", "ramp"],
)
def test_gradients_are_finite_where_a_derivative_does_not_exist(latent):
    latent = jnp.asarray(latent, jnp.float32)
    target = jnp.asarray(noise(latent.shape, 3))
    gradient = jax.grad(hog_loss)(latent, target)
    assert np.isfinite(gradient).all()


def test_gradient_equals_finite_differences():
    with jax.enable_x64(True):
        a = jnp.asarray(noise((1, 1, 24, 32, 2), 4), jnp.float64)
        b = jnp.asarray(noise((1, 1, 24, 32, 2), 5), jnp.float64)
        gradient = jax.grad(hog_loss)(a, b)
        for seed in range(5):
            direction = jnp.asarray(noise(a.shape, 10 + seed), jnp.float64)
            step = 1e-7  # small enough that hardly a pixel crosses one of the kinks
            difference = hog_loss(a + step * direction, b) - hog_loss(a - step * direction, b)
            slope = float(jnp.vdot(gradient, direction))
            assert float(difference / (2 * step)) == pytest.approx(slope, rel=2e-4, abs=1e-7)


def test_the_papers_480p_latent_compiles_once_and_has_finite_gradients():
    traces = []

    @jax.jit
    def step(velocity, target):
        traces.append(None)
        return jax.value_and_grad(hog_loss)(velocity, target)

    target = jnp.asarray(noise((1, 13, 60, 104, 16), 6))
    for velocity in (jnp.zeros_like(target), jnp.asarray(noise(target.shape, 7))):
        loss, gradient = step(velocity, target)
        assert 0.0 < float(loss) <= 2.0
        assert np.isfinite(gradient).all()
    assert len(traces) == 1


def test_unknown_votes_are_an_error():
    with pytest.raises(InputError, match="'hrad'; known: soft, hard"):
        HOGConfig(votes="hrad")
