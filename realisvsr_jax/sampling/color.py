"""Colours of the restored clip from the low-quality one, which has them right.

Both clips are pixels in [−1, 1], the low-quality one enlarged to the same size; every frame is
corrected by itself. Source: Wang et al., StableSR, wavelet_color_fix.py.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from realisvsr_jax.axes import Video

METHODS = ("wavelet", "adain", "none")
LEVELS = 5


def correct(restored: Video, reference: Video, method: str) -> Video:
    """`restored` with the colours of `reference`, by one of `METHODS`, clipped to [−1, 1]."""
    if method == "wavelet":
        restored = wavelet(restored, reference)
    elif method == "adain":
        restored = adain(restored, reference)
    elif method != "none":
        raise ValueError(f"unknown colour correction {method!r}; known: {', '.join(METHODS)}")
    return jnp.clip(restored, -1.0, 1.0)


def wavelet(restored: Video, reference: Video) -> Video:
    """The high frequencies of `restored` on the low ones of `reference`, not clipped.

    restored − low(restored) + low(reference), which is one transform of their difference.
    """
    return restored + low_frequencies(reference - restored)


def low_frequencies(video: Video) -> Video:
    """What an à-trous wavelet transform of 5 levels leaves: (1 2 1)/4 at steps of 1, 2 … 16.

    Edge pixels are repeated beyond the borders.
    """
    for level in range(LEVELS):
        for axis in (2, 3):
            video = _smooth(video, 2**level, axis)
    return video


def adain(restored: Video, reference: Video) -> Video:
    """`restored` with the mean and deviation of `reference`, of each channel in each frame.

    Not clipped. The deviation is the unbiased one, √(variance + 1e-5), as in StableSR.
    """
    mean, deviation = _statistics(restored)
    target_mean, target_deviation = _statistics(reference)
    return (restored - mean) / deviation * target_deviation + target_mean


def _smooth(video: Video, step: int, axis: int) -> Video:
    length = video.shape[axis]
    pads = [(0, 0)] * video.ndim
    pads[axis] = (step, step)
    padded = jnp.pad(video, pads, mode="edge")
    before = jax.lax.slice_in_dim(padded, 0, length, axis=axis)
    after = jax.lax.slice_in_dim(padded, 2 * step, 2 * step + length, axis=axis)
    return 0.25 * before + 0.5 * video + 0.25 * after


def _statistics(video: Video) -> tuple[Float[Array, "B T 1 1 3"], Float[Array, "B T 1 1 3"]]:
    count = video.shape[2] * video.shape[3]
    mean = video.mean((2, 3), keepdims=True)
    variance = jnp.square(video - mean).sum((2, 3), keepdims=True) / max(count - 1, 1)
    return mean, jnp.sqrt(variance + 1e-5)
