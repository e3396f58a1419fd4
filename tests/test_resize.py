"""Bicubic resizing: a polynomial's values, Pillow's, and the range."""

import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax.resize import bicubic

Image = pytest.importorskip("PIL.Image")


def random_video() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.7, 0.7, (2, 3, 9, 14, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [(36, 56), (18, 21), (5, 6)])
def test_every_frame_is_pillows(size):
    """Larger and, anti-aliased, smaller; Pillow's kernel has a = −0.5 as well."""
    video = random_video()
    out = np.asarray(bicubic(jnp.asarray(video), *size))
    assert out.shape == (2, 3, *size, 3)
    for b, t, c in np.ndindex(2, 3, 3):
        image = Image.fromarray(video[b, t, :, :, c])
        reference = np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))
        np.testing.assert_allclose(out[b, t, :, :, c], reference.clip(-1, 1), atol=2e-5)


def test_a_constant_stays_and_a_slope_keeps_its_centres():
    flat = bicubic(jnp.full((1, 1, 8, 8, 3), 0.25), 20, 32)
    np.testing.assert_allclose(flat, 0.25, atol=1e-6)
    slope = jnp.linspace(-0.5, 0.5, 16)[None, None, :, None, None]
    video = jnp.broadcast_to(slope, (1, 1, 16, 6, 3))
    centres = (np.arange(64) + 0.5) / 4 - 0.5
    inside = slice(8, -8)
    rows = np.asarray(bicubic(video, 64, 6))[0, 0, inside, 0, 0]
    np.testing.assert_allclose(rows, centres[inside] / 15 - 0.5, atol=1e-5)


def test_overshoot_at_edges_is_clipped():
    edge = jnp.where(jnp.arange(16) < 8, -1.0, 1.0)[None, None, None, :, None]
    out = bicubic(jnp.broadcast_to(edge, (1, 1, 4, 16, 3)), 16, 64)
    assert (float(out.min()), float(out.max())) == (-1.0, 1.0)
