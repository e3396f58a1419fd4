"""Rotary positions, the sinusoid, norms and patches: the facts of Wan2.1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from realisvsr_jax.model.layers import (
    LayerNorm,
    PatchEmbedding,
    apply_rope,
    apply_rope_by_product,
    layer_norm,
    rope_split,
    rope_table,
    sinusoid,
)
from realisvsr_jax.numerics import RMSNorm


@pytest.mark.parametrize(
    ("head_dim", "split"), [(128, (44, 42, 42)), (32, (12, 10, 10)), (4, (4, 0, 0)), (6, (2, 2, 2))]
)
def test_rope_split(head_dim, split):
    assert rope_split(head_dim) == split


def test_an_odd_head_has_no_rotary_positions():
    with pytest.raises(ValueError, match="even head dimension, not 33"):
        rope_split(33)


def test_rope_turns_each_pair_by_its_own_axis():
    grid, head_dim = (3, 4, 5), 20
    splits = rope_split(head_dim)
    rope = rope_table(grid, head_dim)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 60, 2, head_dim)).astype(np.float32)
    turned = np.asarray(apply_rope(jnp.asarray(x), rope))
    positions = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).reshape(-1, 3)
    pair = 0
    for axis, channels in enumerate(splits):
        for i in range(channels // 2):
            turn = np.exp(1j * positions[:, axis] * 10_000.0 ** (-2 * i / channels))
            z = (x[..., 2 * pair] + 1j * x[..., 2 * pair + 1]) * turn[None, :, None]
            np.testing.assert_allclose(turned[..., 2 * pair], z.real, atol=1e-6)
            np.testing.assert_allclose(turned[..., 2 * pair + 1], z.imag, atol=1e-6)
            pair += 1


def test_rope_scores_depend_on_distance_alone():
    rope = rope_table((1, 1, 9), 12)
    q, k = (jax.random.normal(jax.random.key(s), (1, 1, 1, 12)) for s in (0, 1))
    q, k = (apply_rope(jnp.tile(x, (1, 9, 1, 1)), rope)[0, :, 0] for x in (q, k))
    scores = np.asarray(q @ k.T)
    np.testing.assert_allclose(np.diagonal(scores, 2), scores[0, 2], atol=2e-6)
    assert abs(scores[0, 2] - scores[2, 0]) > 1e-3


def test_rope_of_bfloat16_is_computed_in_float32():
    rope = rope_table((1, 1, 400), 12)
    x = jax.random.normal(jax.random.key(0), (1, 400, 1, 12)).astype(jnp.bfloat16)
    exact = apply_rope(x.astype(jnp.float32), rope)
    out = apply_rope(x, rope)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rope_as_a_product_equals_rope_in_pairs(dtype):
    rope = rope_table((2, 3, 4), 20)
    x = jax.random.normal(jax.random.key(0), (2, 24, 3, 20)).astype(dtype)
    wanted, found = apply_rope(x, rope), apply_rope_by_product(x, rope)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        np.float32(found), np.float32(wanted), rtol=2 * jnp.finfo(dtype).eps, atol=1e-6
    )


def test_sinusoid_is_that_of_float64_cosines_first():
    timestep = np.array([0, 1, 37.61, 500.49, 874, 999.97, 1000], np.float32)
    angles = np.outer(timestep.astype(np.float64), 10_000.0 ** (-np.arange(128) / 128))
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)
    np.testing.assert_allclose(sinusoid(jnp.asarray(timestep), 256), expected, atol=4e-7)


def test_norms_are_float32_inside():
    x = 300 + jax.random.normal(jax.random.key(0), (1, 4, 64))
    low = x.astype(jnp.bfloat16)
    wide = np.asarray(low, np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    assert layer_norm(low, 1e-6).dtype == jnp.float32
    np.testing.assert_allclose(layer_norm(low, 1e-6), expected, atol=1e-4)
    assert LayerNorm(64, 1e-6)(low).dtype == jnp.float32
    root = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6)
    rounded = RMSNorm(64, 1e-6)(low)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_array_equal(rounded, jnp.asarray(root, jnp.float32).astype(jnp.bfloat16))


def test_patch_embedding_is_the_strided_convolution():
    embed = PatchEmbedding((1, 2, 3), 5, 7, dtype=jnp.float32, rngs=nnx.Rngs(0))
    embed.bias[...] = jnp.arange(7.0)
    z = jax.random.normal(jax.random.key(0), (2, 3, 4, 9, 5))
    layout = ("NDHWC", "DHWIO", "NDHWC")
    whole = jax.lax.conv_general_dilated(
        z, embed.kernel[...], (1, 2, 3), "VALID", dimension_numbers=layout
    )
    tokens = whole.reshape(2, 3 * 2 * 3, 7) + embed.bias[...]
    np.testing.assert_allclose(embed(z), tokens, atol=2e-6)


def test_a_latent_between_patches_is_refused():
    embed = PatchEmbedding((1, 2, 2), 4, 8, dtype=jnp.float32, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"\(3, 6, 5\) \(t, h, w\) does not divide"):
        embed(jnp.zeros((1, 3, 6, 5, 4)))
