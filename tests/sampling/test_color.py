"""Colour correction: StableSR's arithmetic, and what each method is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from realisvsr_jax.sampling.color import METHODS, adain, correct, low_frequencies, wavelet


def clip(seed=0, shape=(1, 2, 21, 34, 3), scale=0.3):
    return scale * jax.random.normal(jax.random.key(seed), shape)


def reference_decomposition(image):
    """High and low frequencies of [H, W], as StableSR's wavelet_decomposition has them."""
    high = np.zeros_like(image)
    for level in range(5):
        step = 2**level
        kernel = np.zeros((2 * step + 1, 2 * step + 1))
        kernel[::step, ::step] = np.outer([1, 2, 1], [1, 2, 1]) / 16
        low = ndimage.convolve(image, kernel, mode="nearest")
        high += image - low
        image = low
    return high, image


def test_wavelet_equals_the_reference():
    restored, reference = clip(0), clip(1)
    ours = wavelet(restored, reference)
    for frame in range(2):
        for channel in range(3):
            content = np.asarray(restored[0, frame, :, :, channel], np.float64)
            style = np.asarray(reference[0, frame, :, :, channel], np.float64)
            expected = reference_decomposition(content)[0] + reference_decomposition(style)[1]
            np.testing.assert_allclose(ours[0, frame, :, :, channel], expected, atol=1e-6)


def test_wavelet_takes_low_frequencies_from_the_reference_alone():
    restored, reference = clip(0), clip(1)
    shifted = wavelet(restored + 0.25, reference)
    np.testing.assert_allclose(shifted, wavelet(restored, reference), atol=1e-6)
    np.testing.assert_allclose(wavelet(restored, restored), restored, atol=1e-7)
    flat = jnp.full((1, 1, 40, 40, 3), 0.3)
    np.testing.assert_allclose(low_frequencies(flat), 0.3, rtol=1e-6)


def test_adain_gives_each_frame_and_channel_the_references_statistics():
    restored, reference = clip(0), 0.5 * clip(1) + 0.1
    ours = adain(restored, reference)
    np.testing.assert_allclose(ours.mean((2, 3)), reference.mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(ours.std((2, 3)), reference.std((2, 3)), rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (40, 3)])
def test_every_size_works_under_jit_and_stays_in_range(method, size):
    restored, reference = clip(0, (1, 1, *size, 3), 2.0), clip(1, (1, 1, *size, 3))
    ours = jax.jit(correct, static_argnames="method")(restored, reference, method)
    assert np.isfinite(ours).all()
    assert np.abs(ours).max() <= 1.0
    if method == "none":
        np.testing.assert_array_equal(ours, restored.clip(-1, 1))


@pytest.mark.parametrize("method", METHODS)
def test_a_frame_is_corrected_by_itself(method):
    restored, reference = clip(0), clip(1)
    alone = correct(restored[:, 1:], reference[:, 1:], method)
    np.testing.assert_allclose(correct(restored, reference, method)[:, 1:], alone, atol=1e-6)


def test_an_unknown_method_is_an_error():
    with pytest.raises(ValueError, match="'hue'; known: wavelet, adain, none"):
        correct(clip(), clip(), "hue")
