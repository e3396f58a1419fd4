"""What a restorer is given and gives back: pixels, their checks, and the sizes on their way."""

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from realisvsr_jax.axes import Video
from realisvsr_jax.errors import InputError
from realisvsr_jax.numerics import round_up
from realisvsr_jax.resize import bicubic, to_float
from realisvsr_jax.sampling.color import correct
from realisvsr_jax.sampling.tiles import Size
from realisvsr_jax.vae.wan_vae import VAEConfig

Frames = Shaped[np.ndarray, "T H W 3"]
Sides = tuple[int, int]
LARGEST = 65_535  # pixels a side of a result


def check_frames(frames: Any) -> Frames:
    """`frames` as a NumPy array [T, H, W, 3], uint8 or float in [−1, 1]; InputError else."""
    clip = np.asarray(frames)
    if clip.ndim != 4 or clip.shape[-1] != 3 or 0 in clip.shape:
        raise InputError(f"frames have the shape {clip.shape}; give [T, H, W, 3], none of them 0")
    if clip.dtype == np.uint8:
        return clip
    if not jnp.issubdtype(clip.dtype, jnp.floating):
        raise InputError(f"frames are {clip.dtype}; give uint8, or floats in [−1, 1]")
    low, high = float(clip.min()), float(clip.max())
    if math.isnan(low) or math.isnan(high):
        raise InputError("frames have NaN in them; give floats in [−1, 1]")
    if low < -1 or high > 1:
        raise InputError(f"frames reach from {low:g} to {high:g}; give floats in [−1, 1], or uint8")
    return clip


@dataclass(frozen=True)
class Geometry:
    """Sizes on the way of a clip: what comes out, and what the networks see.

    `size` is (height, width) of the result, `padded` that of the VAE's frames, `latent` is
    (t, h, w); `frames` of the `1 + factor·k` that the VAE takes are real.
    """

    frames: int
    size: Sides
    padded: Sides
    latent: Size
    factor: int


def plan_geometry(shape: tuple[int, ...], scale: float, vae: VAEConfig, patch: Size) -> Geometry:
    """Sizes for frames of `shape` (T, H, W, …): the result is round(scale · side).

    Raises InputError where that is beyond LARGEST.
    """
    check_size(shape[1], shape[2], scale)
    size = (round(scale * shape[1]), round(scale * shape[2]))
    whole = [vae.spatial_factor * side for side in patch[1:]]
    padded = (round_up(size[0], whole[0]), round_up(size[1], whole[1]))
    factor, space = vae.temporal_factor, vae.spatial_factor
    latent_frames = round_up(1 + math.ceil((shape[0] - 1) / factor), patch[0])
    latent = (latent_frames, padded[0] // space, padded[1] // space)
    return Geometry(shape[0], size, padded, latent, factor)


def check_size(height: int, width: int, scale: float) -> None:
    """Raises InputError for an enlargement that leaves no sane size."""
    side = max(height, width)
    if scale * side > LARGEST:
        made = f"{scale * side:,.0f}" if scale < 1e9 else f"{scale * side:g}"
        raise InputError(
            f"scale {scale:g} makes {made} pixels out of a side of {side:,}; a result has at most "
            f"{LARGEST:,} a side, so give a smaller scale"
        )


@contextmanager
def enough_memory(geometry: Geometry) -> Iterator[None]:
    """What jax or NumPy raises in the block for want of memory becomes an InputError."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        signs = ("RESOURCE_EXHAUSTED", "Out of memory")
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in signs):
            raise
        height, width = geometry.size
        raise InputError(
            f"a result of {geometry.frames} frames × {height} × {width} pixels needs more memory "
            "than there is; restore fewer --frames at once, or take a smaller --scale"
        ) from error


def take(clip: Frames, index: np.ndarray) -> Shaped[np.ndarray, "1 t H W 3"]:
    """The frames numbered `index`; the last one for those beyond it."""
    return clip[None, index.clip(max=len(clip) - 1)]


@functools.partial(jax.jit, static_argnames=("size", "padded"))
def enlarge(frames: Any, size: Sides, padded: Sides) -> Video:
    """Frames of any kind as float32, bicubic at `size`, grown to `padded`."""
    return pad(bicubic(to_float(frames), *size), *padded)


@functools.partial(jax.jit, static_argnames=("size", "method"))
def finish(video: Video, frames: Any, size: Sides, method: str) -> Shaped[Array, "B T h w 3"]:
    """A restored `video` cropped to `size`, with the colours and of the kind of `frames`.

    `method` is one of `color.METHODS`; bytes are rounded.
    """
    video = correct(video[:, :, : size[0], : size[1]], bicubic(to_float(frames), *size), method)
    if frames.dtype == jnp.uint8:
        video = jnp.round((video + 1.0) * 127.5)
    return video.astype(frames.dtype)


def pad(video: Video, height: int, width: int) -> Float[Array, "B T height width 3"]:
    """Grows frames at the bottom and the right by their mirror image.

    An edge that is too short to be mirrored that far is repeated.
    """
    for axis, target in ((2, height), (3, width)):
        missing = target - video.shape[axis]
        pads = [(0, 0)] * video.ndim
        pads[axis] = (0, missing)
        video = jnp.pad(video, pads, mode="reflect" if missing < video.shape[axis] else "edge")
    return video
