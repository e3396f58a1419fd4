"""What training and restoration both do to pixels: bytes to floats, bicubic enlargement."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from realisvsr_jax.axes import Video


def to_float(frames: Any) -> Float[Array, "..."]:
    """uint8 or floats of any width to float32 in [−1, 1]."""
    video = frames.astype(jnp.float32)
    return video / 127.5 - 1.0 if frames.dtype == jnp.uint8 else video


def bicubic_bytes(frames: Any, height: int, width: int) -> UInt8[Array, "T height width 3"]:
    """`bicubic` of uint8 frames [T, h, w, 3], rounded to uint8."""
    large = (bicubic(to_float(frames)[None], height, width)[0] + 1.0) * 127.5
    return jnp.round(large).astype(jnp.uint8)


def bicubic(video: Video, height: int, width: int) -> Float[Array, "B T height width 3"]:
    """Resizes each frame to `height`×`width` with Keys' cubic kernel (a = −0.5).

    Anti-aliased when it shrinks; the result is clipped to [−1, 1], since the kernel
    overshoots at edges.
    """
    batch, frames, _, _, channels = video.shape
    shape = (batch, frames, height, width, channels)
    return jnp.clip(jax.image.resize(video, shape, method="cubic"), -1.0, 1.0)
