"""RGB from a file's own YUV and back, with the matrix that its colour tags name.

Eight bits a channel, or sixteen where asked for; the transfer function and the primaries are
carried as tags and never applied, so that what is read and written again keeps its look on every
screen.
"""

from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from realisvsr_jax.video.info import UNSPECIFIED, orientation

RGB = 0  # H.273: the planes are G, B, R; no matrix
# swscale's name (SWS_CS_*) of each matrix of H.273 that it knows.
_SWSCALE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
# Chroma is interpolated and filtered at full resolution instead of shared by pixel pairs.
_QUALITY = int(
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
)


def matrix_of(colorspace: int, width: int, height: int) -> int:
    """The H.273 matrix to use: the tagged one, or the players' guess (HD is BT.709)."""
    if colorspace in _SWSCALE:
        return colorspace
    return 1 if width >= 1280 or height > 576 else 6


def to_rgb(frame: Any, reformatter: VideoReformatter, deep: bool = False) -> np.ndarray:
    """A decoded frame as uint8 [H, W, 3] RGB, upright; uint16 with `deep`."""
    matrix = matrix_of(int(frame.colorspace), frame.width, frame.height)
    rgb = reformatter.reformat(
        frame,
        format="rgb48le" if deep else "rgb24",
        src_colorspace=_SWSCALE[matrix],
        interpolation=_QUALITY,
        threads=1,
    ).to_ndarray()
    transpose, flip_y, flip_x, _ = orientation(frame)
    rgb = rgb.transpose(1, 0, 2) if transpose else rgb
    return np.ascontiguousarray(rgb[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def from_rgb(
    rgb: np.ndarray,
    pix_fmt: str,
    matrix: int,
    color_range: int,
    reformatter: VideoReformatter,
) -> Any:
    """[H, W, 3] RGB, uint8 or uint16, as a frame in `pix_fmt`, tagged with the matrix used."""
    kind = "rgb24" if rgb.dtype == np.uint8 else "rgb48le"
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format=kind)
    if matrix == RGB:
        return reformatter.reformat(frame, format=pix_fmt, threads=1)
    frame = reformatter.reformat(
        frame,
        format=pix_fmt,
        dst_colorspace=_SWSCALE[matrix],
        dst_color_range=color_range or 1,
        interpolation=_QUALITY,
        threads=1,
    )
    frame.colorspace = matrix
    return frame


def tag(frame: Any, primaries: int = UNSPECIFIED, transfer: int = UNSPECIFIED) -> None:
    """Marks primaries and transfer on a frame without converting to them."""
    frame.color_primaries = primaries
    frame.color_trc = transfer
