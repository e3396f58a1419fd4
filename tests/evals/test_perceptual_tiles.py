"""Tiles score as the whole frame does, to 1e-5."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals.perceptual import load_dists, load_lpips
from realisvsr_jax.evals.perceptual_tiles import GRID, HALO, in_tiles, plan, stretches


@pytest.fixture(scope="module")
def pair():
    """Two related images of an odd size, darker on one side, so that places differ."""
    rng = np.random.default_rng(0)
    b = rng.uniform(-1, 1, (1, 33, 521, 3)) * np.linspace(0.1, 1, 521)[:, None]
    a = b + rng.normal(0, 0.3, b.shape) * np.linspace(1, 0, 521)[:, None]
    return tuple(jnp.asarray(np.clip(x, -1, 1), jnp.float32) for x in (a, b))


@pytest.mark.parametrize(("name", "turned"), [("alex", True), ("dists", False)])
def test_tiles_equal_the_whole(pair, name, turned):
    metric = load_dists() if name == "dists" else load_lpips(name)
    images = [jnp.swapaxes(x, 1, 2) for x in pair] if turned else list(pair)
    pixels = 33 * 400
    assert len(plan(33, 521, pixels)[1]) == 2
    np.testing.assert_allclose(in_tiles(metric, *images, pixels), metric(*images), atol=1e-5)


@pytest.mark.parametrize("length", [600, 1080, 1081, 2160, 3840, 3841])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_stretches_own_every_pixel_once_with_a_halo_around(length, count):
    found = stretches(length, count)
    assert (found[0].first, found[-1].last, found[-1].stop) == (0, None, length)
    for one, following in itertools.pairwise(found):
        assert one.last == following.first
        assert one.stop - following.first >= HALO
        assert following.first - following.start >= HALO
    assert all(one.start % GRID == one.first % GRID == 0 for one in found)


def test_4k_goes_in_pieces_that_fit():
    rows, columns = plan(2160, 3840, 5 * 2**18)
    sizes = [(r.stop - r.start) * (c.stop - c.start) for r in rows for c in columns]
    assert max(sizes) <= 5 * 2**18
    assert sum(sizes) < 1.5 * 2160 * 3840


def test_too_few_pixels_and_different_sizes_are_refused(pair):
    with pytest.raises(InputError, match="cannot be scored 1000 pixels at a time"):
        plan(2160, 3840, 1000)
    with pytest.raises(InputError, match="different sizes"):
        in_tiles(load_lpips("alex"), pair[0], pair[1][:, 1:])
