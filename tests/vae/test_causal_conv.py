"""The causal convolution: both implementations, causality, and streams of chunks."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from random_networks import drawn, fast_jit, random

from realisvsr_jax.vae.causal_conv import CausalConv, Lowering
from realisvsr_jax.vae.wan_vae import TINY_VAE, VAEConfig, WanVAE


def random_conv(kernel, implementation="taps", channels=(3, 5)):
    lowering = Lowering(implementation)
    return drawn(lambda: CausalConv(*channels, kernel, rngs=nnx.Rngs(0), lowering=lowering))


def clip(frames):
    return random(2, frames, 6, 8, 3)


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (3, 1, 1), (1, 1, 1), (2, 2, 2)])
def test_taps_equal_native(kernel):
    taps, native = (random_conv(kernel, name) for name in ("taps", "native"))

    @fast_jit
    def every_way(conv, x):
        return conv(x)[0], conv.valid(x), conv.valid(x, time_stride=2), conv.halve(x)

    x = clip(5)
    for ours, reference in zip(every_way(taps, x), every_way(native, x)):
        np.testing.assert_allclose(ours, reference, atol=1e-5)


def test_padding_is_zeros_before_the_clip_and_around_each_frame():
    conv, x = random_conv((3, 3, 3)), clip(4)
    padded = np.pad(np.asarray(x), ((0, 0), (2, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(conv.kernel[...])
    expected = np.tile(np.asarray(conv.bias[...]), (2, 4, 6, 8, 1))
    for t, i, j in np.ndindex(3, 3, 3):
        expected += padded[:, t : t + 4, i : i + 6, j : j + 8] @ kernel[t, i, j]
    np.testing.assert_allclose(conv(x)[0], expected, atol=1e-5)


def test_halving_pads_right_and_bottom_only():
    conv, x = random_conv((1, 3, 3)), clip(2)
    padded = np.pad(np.asarray(x), ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)))
    expected = np.tile(np.asarray(conv.bias[...]), (2, 2, 3, 4, 1))
    for i, j in np.ndindex(3, 3):
        expected += padded[:, :, i : i + 6 : 2, j : j + 8 : 2] @ np.asarray(conv.kernel[0, i, j])
    np.testing.assert_allclose(conv.halve(x), expected, atol=1e-5)


@pytest.mark.parametrize("implementation", ["taps", "native"])
def test_no_gradient_comes_from_later_frames(implementation):
    conv, x = random_conv((3, 3, 3), implementation), clip(6)
    gradient = fast_jit(jax.grad(lambda x, t: conv(x)[0][:, t].sum()))
    for t in range(6):
        seen = np.abs(gradient(x, t)).sum(axis=(0, 2, 3, 4)) > 0
        assert seen.tolist() == [t - 2 <= frame <= t for frame in range(6)]


@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 1, 1), (1, 3, 3)])
@pytest.mark.parametrize("chunks", [(1, 1, 1, 4), (3, 4), (5, 2)])
def test_a_stream_equals_the_whole_clip(kernel, chunks):
    conv, x = random_conv(kernel), clip(7)

    @fast_jit
    def streamed(x):
        cache, parts = None, []
        for part in jnp.split(x, np.cumsum(chunks)[:-1], axis=1):
            y, cache = conv(part, cache)
            assert cache.shape[1] == kernel[0] - 1
            parts.append(y)
        return jnp.concatenate(parts, axis=1), conv(x)[0]

    np.testing.assert_allclose(*streamed(x), atol=1e-5)


@pytest.mark.parametrize("implementation", ["taps", "native"])
def test_no_frames_in_are_no_frames_out(implementation):
    y, cache = random_conv((3, 1, 1), implementation)(clip(3)[:, :0])
    assert y.shape == (2, 0, 6, 8, 5)
    np.testing.assert_array_equal(cache, np.zeros((2, 2, 6, 8, 3)))


def test_an_unknown_implementation_names_the_known():
    with pytest.raises(ValueError, match="'im2col': auto, native or taps"):
        random_conv((3, 3, 3), "im2col")


def test_an_unknown_precision_names_the_known():
    with pytest.raises(ValueError, match="'tf32': highest or high"):
        VAEConfig(precision="tf32")


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_every_product_of_the_vae_has_its_precision(precision):
    vae = nnx.eval_shape(
        lambda: WanVAE(dataclasses.replace(TINY_VAE, precision=precision), rngs=nnx.Rngs(0))
    )
    graph, state = nnx.split(vae)
    video = jax.ShapeDtypeStruct((1, 3, 16, 16, 3), jnp.float32)

    def there_and_back(state, video):
        vae = nnx.merge(graph, state)
        return vae.decode(vae.encode(video))

    text = jax.jit(there_and_back).lower(state, video).as_text()
    products = [
        line for line in text.splitlines() if "stablehlo.conv" in line or "dot_general" in line
    ]
    products = [line for line in products if "stablehlo.convert" not in line]
    assert len(products) > 20
    for line in products:
        assert re.findall(r"\bHIGH(?:EST)?\b", line) == [precision.upper()] * 2, line
