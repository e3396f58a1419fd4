"""Bicubic enlargement of video: the one operator that training and restoration share."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from realisvsr_jax.axes import Video


def bicubic(video: Video, height: int, width: int) -> Float[Array, "B T height width 3"]:
    """Resizes each frame to `height`×`width` with Keys' cubic kernel (a = −0.5).

    Anti-aliased when it shrinks; the result is clipped to [−1, 1], since the kernel
    overshoots at edges.
    """
    batch, frames, _, _, channels = video.shape
    shape = (batch, frames, height, width, channels)
    return jnp.clip(jax.image.resize(video, shape, method="cubic"), -1.0, 1.0)
