"""Frames into one video file: codec, pixel format, colour tags and timestamps.

MP4 and MOV keep timestamps exactly (their unit is the greatest that divides the input's unit
and the time of a frame); Matroska rounds them to its own unit of 1 ms.
"""

import dataclasses
import math
import tempfile
from contextlib import suppress
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


SEGMENT = ".nut"  # holds whatever any encoder writes, with its timestamps, as it came
# What makes the same frames the same bytes. libx264's macroblock tree reads memory that nobody
# wrote; the number of threads is part of what x264 and FFV1 write.
_REPEATABLE = {
    "libx264": {"x264-params": "mbtree=0"},
    "libx265": {"x265-params": "frame-threads=4:log-level=error"},
}
_QUIET = {"libx265": {"x265-params": "log-level=error"}}
_WORST = {"libx264": 51, "libx265": 51, "libvpx-vp9": 63, "libaom-av1": 63, "libsvtav1": 63}
"""The largest CRF of an encoder; beyond it some take the largest without a word."""
_THREADS = 8


@dataclasses.dataclass(frozen=True)
class Coding:
    """How frames are stored.

    `codec` and `preset` are FFmpeg's names, `crf` is the codec's quality, smaller is better.
    `pix_fmt` None is yuv420p, yuv444p for odd sizes, with ten bits where the source has more than
    eight. `lossless` stores RGB itself, as FFV1 in Matroska and as H.264 (High 4:4:4 Predictive,
    quantiser 0) elsewhere.
    """

    codec: str = "libx264"
    crf: int = 16
    preset: str | None = None
    pix_fmt: str | None = None
    lossless: bool = False


class Encoder:
    """Writes [H, W, 3] RGB frames of one size, uint8 or uint16, to `path`, one at a time.

    The matrix that was used is always tagged, since a larger picture would change the guess of a
    player. A `segment` is a piece of a file with `suffix`: a stream of its own whose first frame
    is a key frame, in another container, and the same bytes for the same frames.
    """

    def __init__(
        self,
        path: Path,
        suffix: str,
        info: VideoInfo,
        width: int,
        height: int,
        coding: Coding = Coding(),
        *,
        segment: bool = False,
    ):
        name, pix_fmt, options = _codec(suffix, info, width, height, coding)
        rate = info.rate.limit_denominator(1_001_000)
        self._unit = time_unit(info.time_base, rate)
        self._duration = max(1, round(1 / rate / self._unit))
        self._last: int | None = None
        self._info, self._size, self.pix_fmt = info, (height, width, 3), pix_fmt
        self._reformatter = VideoReformatter()
        self.container = av.open(
            str(path),
            "w",
            format="nut" if segment else FORMATS[suffix],
            container_options={} if segment else _container_options(FORMATS[suffix], self._unit),
        )
        # Without dates, versions and random identifiers: the same frames give the same bytes.
        self.container.flags |= av.container.Flags.bitexact.value
        if not segment and not _holds(self.container, name):
            raise InputError(f"{name!r} is no video codec that {suffix} can hold")
        options = {**options, **(_REPEATABLE if segment else _QUIET).get(name, {})}
        self._stream = stream = self.container.add_stream(name, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.thread_type = "FRAME" if "x264" in name else "AUTO"
        stream.codec_context.thread_count = _THREADS if segment else 0
        stream.time_base = stream.codec_context.time_base = self._unit
        stream.codec_context.flags |= av.codec.context.Flags.frame_duration
        self._tag(stream.codec_context, width, height)
        try:
            stream.codec_context.open()
        except av.FFmpegError as error:
            raise InputError(_refusal(name, pix_fmt, width, height, coding)) from error

    def write(self, frame: np.ndarray, time: Fraction) -> None:
        """Adds a frame that is shown at `time`, in seconds, later than the one before it."""
        if frame.shape != self._size:
            raise ValueError(f"a frame of shape {frame.shape} in a video of {self._size}")
        context = self._stream.codec_context
        picture = from_rgb(
            frame, self.pix_fmt, context.colorspace, context.color_range, self._reformatter
        )
        tag(picture, context.color_primaries, context.color_trc)
        picture.pts = self.stamp(time)
        picture.time_base, picture.duration = self._unit, self._duration
        self.container.mux(self._stream.encode(picture))

    def stamp(self, time: Fraction) -> int:
        """The timestamp of the next frame: its time in the file's unit, later than the last."""
        stamp = round(time / self._unit)
        self._last = stamp if self._last is None else max(stamp, self._last + 1)
        return self._last

    def units(self, seconds: Fraction) -> int:
        """A frame's length in the file's unit, one at least."""
        return max(1, round(seconds / self._unit))

    def copy(self, packet: Any, pts: int, dts: int, duration: int) -> None:
        """Adds a frame that another encoder of the same settings has encoded."""
        packet.stream, packet.time_base = self._stream, self._unit
        packet.pts, packet.dts, packet.duration = pts, dts, duration
        self.container.mux(packet)

    @property
    def duration(self) -> int:
        """Of a frame, in the file's unit, where the rate is constant."""
        return self._duration

    def flush(self) -> None:
        """Writes what the codec still holds back."""
        self.container.mux(self._stream.encode(None))

    def _tag(self, context: Any, width: int, height: int) -> None:
        info, to_rgb = self._info, _is_rgb(self.pix_fmt)
        context.colorspace = RGB if to_rgb else matrix_of(info.colorspace, width, height)
        from_yuv = info.colorspace != RGB and not _is_rgb(info.pix_fmt)
        context.color_range = (info.color_range or _LIMITED) if from_yuv else _LIMITED
        context.color_range = _FULL if to_rgb else context.color_range
        context.color_primaries, context.color_trc = info.primaries, info.transfer
        context.sample_aspect_ratio = info.sample_aspect_ratio.limit_denominator(10_000)


def pixel_format(suffix: str, info: VideoInfo, width: int, height: int, coding: Coding) -> str:
    """What frames are stored in; InputError for what does not fit the codec or the size."""
    return _codec(suffix, info, width, height, coding)[1]


def check_coding(suffix: str, info: VideoInfo, width: int, height: int, coding: Coding) -> str:
    """The pixel format that frames will have; InputError for what cannot be encoded."""
    with tempfile.TemporaryDirectory() as folder:
        encoder = Encoder(Path(folder, "trial"), suffix, info, width, height, coding)
        try:
            encoder.container.start_encoding()
        except av.FFmpegError as error:
            raise InputError(f"{suffix} cannot hold a video of {coding.codec}") from error
        finally:
            with suppress(av.FFmpegError, OSError):
                encoder.container.close()
    return encoder.pix_fmt


def _refusal(name: str, pix_fmt: str, width: int, height: int, coding: Coding) -> str:
    """Why an encoder does not open: for its options, if it refuses small frames as well."""
    asked = {"preset": coding.preset, "crf": str(coding.crf)}
    options = {key: value for key, value in asked.items() if value is not None}
    trial = av.CodecContext.create(name, "w")
    trial.width, trial.height, trial.pix_fmt = 256, 256, pix_fmt
    trial.time_base, trial.options = Fraction(1, 25), options
    try:
        trial.open()
    except av.FFmpegError:
        words = ", ".join(f"--{key} {value}" for key, value in options.items())
        return f"{name} refuses {words}; ffmpeg -h encoder={name} lists what it takes"
    return (
        f"{name} cannot write frames of {width}×{height} as {pix_fmt}; give a smaller --scale, "
        "another --codec, or a name without suffix for a folder of PNG frames"
    )


def _is_rgb(pix_fmt: str) -> bool:
    return pix_fmt.startswith(("rgb", "bgr", "gbr"))


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
    suffix: str, info: VideoInfo, width: int, height: int, coding: Coding
) -> tuple[str, str, dict[str, str]]:
    """Encoder, pixel format and options."""
    preset = {} if coding.preset is None else {"preset": coding.preset}
    if coding.lossless and FORMATS[suffix] == "matroska":
        deep = next((bits for bits in (10, 12, 14, 16) if bits >= info.bit_depth), 16)
        return "ffv1", f"gbrp{deep}le" if info.bit_depth > 8 else "bgr0", {"level": "3"}
    if coding.lossless:
        return "libx264rgb", "rgb24", {"qp": "0", **preset}
    worst = _WORST.get(coding.codec)
    if worst is not None and coding.crf > worst:
        raise InputError(f"--crf is {coding.crf}; {coding.codec} takes 0 to {worst}")
    return coding.codec, _pixels(coding, info, width, height), {"crf": str(coding.crf), **preset}


def _pixels(coding: Coding, info: VideoInfo, width: int, height: int) -> str:
    """The pixel format asked for, if the codec has it and the size allows it; else the default."""
    odd = bool(width % 2 or height % 2)
    if coding.codec not in av.codecs_available:
        return coding.pix_fmt or "yuv420p"
    known = [form.name for form in av.Codec(coding.codec, "w").video_formats or ()]
    if coding.pix_fmt is None:
        pix_fmt = "yuv444p" if odd else "yuv420p"
        deep = f"{pix_fmt}10le"
        return deep if info.bit_depth > 8 and deep in known else pix_fmt
    if known and coding.pix_fmt not in known:
        raise InputError(
            f"{coding.codec} has no pixel format {coding.pix_fmt!r}; it has {', '.join(known)}"
        )
    if odd and coding.pix_fmt.startswith(("yuv420", "yuv422", "yuvj42", "nv", "p0")):
        raise InputError(
            f"{coding.pix_fmt} needs even sides, the result has {width}×{height}; give "
            "--pix-fmt yuv444p, or leave it out"
        )
    return coding.pix_fmt


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
