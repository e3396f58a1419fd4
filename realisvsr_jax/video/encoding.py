"""Frames into one video file: codec, pixel format, colour tags and timestamps.

MP4 and MOV keep timestamps exactly (their unit is the greatest that divides the input's unit
and the time of a frame); Matroska rounds them to its own unit of 1 ms.
"""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import VideoReformatter

from realisvsr_jax.errors import InputError
from realisvsr_jax.video.color import RGB, from_rgb, matrix_of, tag
from realisvsr_jax.video.info import VideoInfo

# What FFmpeg calls the container of each suffix.
FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_LIMITED, _FULL = 1, 2
# Finer units overflow the 32 bits that MP4 has for the time between two frames.
_FINEST = 1_000_000


class Encoder:
    """Writes uint8 [H, W, 3] RGB frames of one size to `path`, one at a time.

    Even sizes are stored as yuv420p, odd ones as yuv444p; `lossless` stores RGB itself, as FFV1
    in Matroska and as H.264 (High 4:4:4 Predictive, quantiser 0) elsewhere. The matrix that was
    used is always tagged, since a larger picture would change the guess of a player.
    """

    def __init__(
        self,
        path: Path,
        suffix: str,
        info: VideoInfo,
        width: int,
        height: int,
        *,
        lossless: bool = False,
        codec: str = "libx264",
        crf: int = 16,
    ):
        name, pix_fmt, options = _codec(suffix, width, height, lossless, codec, crf)
        rate = info.rate.limit_denominator(1_001_000)
        self._unit = time_unit(info.time_base, rate)
        self._duration = max(1, round(1 / rate / self._unit))
        self._last = -math.inf
        self._info, self._size, self._pix_fmt = info, (height, width, 3), pix_fmt
        self._reformatter = VideoReformatter()
        self.container = av.open(
            str(path),
            "w",
            format=FORMATS[suffix],
            container_options=_container_options(FORMATS[suffix], self._unit),
        )
        # Without dates, versions and random identifiers: the same frames give the same bytes.
        self.container.flags |= av.container.Flags.bitexact.value
        if not _holds(self.container, name):
            raise InputError(f"{name!r} is no video codec that {suffix} can hold")
        self._stream = stream = self.container.add_stream(name, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.thread_type = "FRAME" if "x264" in name else "AUTO"
        stream.time_base = stream.codec_context.time_base = self._unit
        stream.codec_context.flags |= av.codec.context.Flags.frame_duration
        self._tag(stream.codec_context, width, height, lossless)
        try:
            stream.codec_context.open()
        except av.FFmpegError as error:
            raise InputError(f"{name} cannot write frames of {width}×{height}") from error

    def write(self, frame: np.ndarray, time: Fraction) -> None:
        """Adds a frame that is shown at `time`, in seconds, later than the one before it."""
        if frame.shape != self._size:
            raise ValueError(f"a frame of shape {frame.shape} in a video of {self._size}")
        context = self._stream.codec_context
        picture = from_rgb(
            frame, self._pix_fmt, context.colorspace, context.color_range, self._reformatter
        )
        tag(picture, context.color_primaries, context.color_trc)
        picture.pts = self._last = max(round(time / self._unit), self._last + 1)
        picture.time_base, picture.duration = self._unit, self._duration
        self.container.mux(self._stream.encode(picture))

    def flush(self) -> None:
        """Writes what the codec still holds back."""
        self.container.mux(self._stream.encode(None))

    def _tag(self, context: Any, width: int, height: int, lossless: bool) -> None:
        info = self._info
        context.colorspace = RGB if lossless else matrix_of(info.colorspace, width, height)
        from_yuv = info.colorspace != RGB and not info.pix_fmt.startswith(("rgb", "bgr", "gbr"))
        context.color_range = (info.color_range or _LIMITED) if from_yuv else _LIMITED
        context.color_range = _FULL if lossless else context.color_range
        context.color_primaries, context.color_trc = info.primaries, info.transfer
        context.sample_aspect_ratio = info.sample_aspect_ratio.limit_denominator(10_000)


def time_unit(time_base: Fraction, rate: Fraction) -> Fraction:
    """The greatest unit of time that divides `time_base` and the time of a frame, in seconds."""
    numerator = math.gcd(
        time_base.numerator * rate.numerator, time_base.denominator * rate.denominator
    )
    unit = Fraction(numerator, time_base.denominator * rate.numerator)
    for candidate in (unit, time_base):
        if candidate.denominator <= _FINEST:
            return candidate
    return Fraction(1, _FINEST)


def _codec(
    suffix: str, width: int, height: int, lossless: bool, codec: str, crf: int
) -> tuple[str, str, dict[str, str]]:
    """Encoder, pixel format and options."""
    if lossless and FORMATS[suffix] == "matroska":
        return "ffv1", "bgr0", {"level": "3"}
    if lossless:
        return "libx264rgb", "rgb24", {"qp": "0"}
    return codec, "yuv444p" if width % 2 or height % 2 else "yuv420p", {"crf": str(crf)}


def _holds(container: OutputContainer, codec: str) -> bool:
    return (
        codec in container.supported_codecs
        and codec in av.codecs_available
        and (av.Codec(codec, "w").type == "video")
    )


def _container_options(container: str, unit: Fraction) -> dict[str, str]:
    # What newer FFmpeg calls experimental (TrueHD in MP4) is still better kept than lost.
    options = {"strict": "experimental"}
    if container == "matroska":
        # Sound that opens before the first frame must not move the frames.
        options["avoid_negative_ts"] = "disabled"
    else:
        # Edit lists, which delay or open a track, count in this unit: 1 ms would be too coarse.
        options["movie_timescale"] = str(unit.denominator * math.ceil(10_000 / unit.denominator))
    return options
