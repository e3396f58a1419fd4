"""Tiles cover the latent, their weights sum to 1, and one tile is no tile at all."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.sampling.tiles import fuse, latent_tile, plan_tiles

CASES = [
    ((5, 12, 20), (3, 8, 8), (1, 2, 4)),
    ((1, 7, 9), (4, 4, 4), (2, 3, 1)),
    ((9, 8, 8), (2, 8, 6), (0, 0, 5)),
    ((2, 31, 17), (2, 10, 16), (1, 0, 8)),
]
cases = pytest.mark.parametrize(("latent", "tile", "overlap"), CASES)


def noise(latent, seed=0):
    return jax.random.normal(jax.random.key(seed), (1, *latent, 3))


def covered(tiling, latent):
    """The sum of the tiles' weights at every position."""
    total = np.zeros(latent)
    t, h, w = tiling.size
    for corner, *factors in zip(tiling.corners(), *tiling.weights()):
        a, b, c = corner
        total[a : a + t, b : b + h, c : c + w] += np.einsum("t,h,w->thw", *factors)
    return total


@cases
def test_weights_are_positive_and_sum_to_one_everywhere(latent, tile, overlap):
    tiling = plan_tiles(latent, tile, overlap)
    np.testing.assert_allclose(covered(tiling, latent), 1.0, atol=1e-6)
    assert all((factor > 0).all() for factor in tiling.weights())


@cases
def test_neighbours_share_at_least_the_overlap_and_none_could_go(latent, tile, overlap):
    tiling = plan_tiles(latent, tile, overlap)
    for length, size, shared, starts in zip(latent, tiling.size, overlap, tiling.starts):
        assert starts[0] == 0
        assert starts[-1] + size == length
        assert all(b - a <= size - shared for a, b in itertools.pairwise(starts))
        assert (len(starts) - 1) * (size - shared) + shared < length or len(starts) == 1


def test_weights_change_smoothly_where_tiles_meet():
    tiling = plan_tiles((1, 1, 60), (1, 1, 24), (0, 0, 12))
    assert tiling.starts == ((0,), (0,), (0, 12, 24, 36))
    for weights in tiling.weights()[2]:
        assert np.abs(np.diff(weights)).max() < 2 / 12


def test_tiles_come_in_one_order():
    tiling = plan_tiles((3, 4, 6), (2, 4, 4), (1, 0, 2))
    assert tiling.corners().tolist() == [[0, 0, 0], [0, 0, 2], [1, 0, 0], [1, 0, 2]]
    assert tiling.count == 4


@cases
def test_a_field_that_all_tiles_agree_on_is_kept(latent, tile, overlap):
    tiling, z, condition = plan_tiles(latent, tile, overlap), noise(latent), noise(latent, 1)
    fused = jax.jit(lambda *a: fuse(lambda z, c: 2.0 * z - c, tiling, *a))(z, condition)
    np.testing.assert_allclose(fused, 2.0 * z - condition, atol=3e-6)
    constant = fuse(lambda z: jnp.full(z.shape, 0.7), tiling, z)
    np.testing.assert_allclose(constant, 0.7, rtol=1e-6)


def test_where_tiles_disagree_the_mean_is_weighted():
    tiling, z = plan_tiles((1, 4, 6), (1, 4, 4), (0, 0, 2)), noise((1, 4, 6))
    fused = fuse(lambda z: jnp.broadcast_to(z.mean(), z.shape), tiling, z)
    left, right = z[..., :4, :].mean(), z[..., 2:, :].mean()
    weights = tiling.weights()[2]
    expected = [left, left, *(weights[0, 2:] * left + weights[1, :2] * right), right, right]
    np.testing.assert_allclose(fused[0, 0, 0, :, 0], np.array(expected), rtol=1e-5)


def test_one_tile_is_the_plain_call():
    seen = []
    z = noise((2, 4, 6))
    tiling = plan_tiles((2, 4, 6), (8, 8, 8), (2, 2, 2))
    assert tiling.size == (2, 4, 6)
    assert fuse(lambda z: seen.append(z) or z, tiling, z) is z
    assert seen[0] is z


def test_the_network_is_traced_once_for_all_tiles():
    traces = []
    tiling, z = plan_tiles((5, 12, 20), (3, 8, 8), (1, 2, 4)), noise((5, 12, 20))
    fuse(lambda z: traces.append(z.shape) or z, tiling, z)
    assert traces == [(1, 3, 8, 8, 3)]


def test_a_tile_in_pixels_becomes_whole_patches():
    assert latent_tile(None, (0, 0, 0), (4, 8), (1, 2, 2)) is None
    assert latent_tile((49, 480, 840), (8, 64, 96), (4, 8), (1, 2, 2)) == (
        (13, 60, 104),
        (2, 8, 12),
    )


def test_impossible_tiles_are_errors():
    with pytest.raises(InputError, match=r"1×8×64 \(frames, height, width\) is smaller than one"):
        latent_tile((1, 8, 64), (0, 0, 0), (4, 8), (1, 2, 2))
    with pytest.raises(InputError, match=r"tiles of 4 latent positions cannot overlap by 4 \(hei"):
        plan_tiles((1, 9, 9), (4, 4, 4), (0, 4, 0))
