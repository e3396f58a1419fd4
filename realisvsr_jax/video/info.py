"""What a video is: size, rate, colour tags, tracks, and the errors of opening one."""

import dataclasses
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from realisvsr_jax.errors import InputError
from realisvsr_jax.video.headers import mp4_boxes

# FFmpeg's messages would land on the user's terminal; what went wrong is in the exceptions.
av.logging.set_level(None)

UNSPECIFIED = 2
FOLDER_RATE = Fraction(25)
_TIMESTAMPS_START_ANYWHERE = 0x0200  # AVFMT_TS_DISCONT: MPEG transport and program streams


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """A video as it is displayed: rotation applied to `width`, `height` and the aspect ratio.

    `colorspace`, `primaries` and `transfer` are code points of ITU-T H.273 (2 where the file
    does not say); `color_range` is 1 for limited, 2 for full, 0 where the file does not say.
    `rotation` is what was undone, in degrees clockwise. `num_frames` is None where the header
    does not know it. `bit_depth` is that of a channel; `interlaced` is said of the first frame.
    """

    width: int
    height: int
    rate: Fraction
    time_base: Fraction
    num_frames: int | None = None
    colorspace: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    color_range: int = 0
    rotation: int = 0
    sample_aspect_ratio: Fraction = Fraction(1)
    pix_fmt: str = "rgb24"
    has_audio: bool = False
    has_subtitles: bool = False
    bit_depth: int = 8
    has_alpha: bool = False
    interlaced: bool = False


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[InputContainer]:
    """Opens a media file and closes it again; what cannot be opened is an InputError."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a video file")
    try:
        # Tags in a foreign encoding must not stop a film from being read.
        container = av.open(path, metadata_errors="replace")
    except PermissionError as error:
        raise InputError(f"{path} may not be read; check its permissions") from error
    except (av.FFmpegError, OSError) as error:
        raise InputError(_why_not_a_video(path)) from error
    with container:
        yield container


def video_stream(container: InputContainer, path: str | os.PathLike[str]) -> VideoStream:
    """The first moving picture of a file; cover art does not count."""
    streams = [s for s in container.streams.video if not _is_cover(s)]
    if not streams and container.streams.audio:
        raise InputError(f"{path} has sound but no video; name a file with pictures")
    if not container.streams:
        raise InputError(_why_not_a_video(Path(path)))
    if not streams:
        raise InputError(f"{path} has no video in it; name a video file")
    if streams[0].codec_context is None:
        raise InputError(f"{path}: its video codec is not known to FFmpeg; convert it first")
    return streams[0]


def start_of(container: InputContainer) -> Fraction:
    """Seconds to subtract from timestamps: nonzero only where formats start anywhere."""
    if container.format.flags & _TIMESTAMPS_START_ANYWHERE and container.start_time:
        return Fraction(container.start_time, av.time_base)
    return Fraction(0)


def rate_of(stream: VideoStream) -> Fraction:
    """Average frames a second; 25 where a file does not say."""
    return stream.average_rate or stream.guessed_rate or FOLDER_RATE


def describe(container: InputContainer, stream: VideoStream, frame: Any) -> VideoInfo:
    """VideoInfo from an open container and the first frame decoded from it."""
    transposed, _, _, rotation = orientation(frame)
    size = (frame.height, frame.width) if transposed else (frame.width, frame.height)
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return VideoInfo(
        width=size[0],
        height=size[1],
        rate=rate_of(stream),
        time_base=stream.time_base or 1 / rate_of(stream),
        num_frames=_counted(container, stream),
        colorspace=int(frame.colorspace),
        primaries=int(frame.color_primaries),
        transfer=int(frame.color_trc),
        color_range=int(frame.color_range),
        rotation=rotation,
        sample_aspect_ratio=1 / aspect if transposed else aspect,
        pix_fmt=frame.format.name,
        has_audio=bool(container.streams.audio),
        has_subtitles=bool(container.streams.subtitles),
        bit_depth=max((c.bits for c in frame.format.components), default=8),
        has_alpha=any(c.is_alpha for c in frame.format.components),
        interlaced=bool(frame.interlaced_frame),
    )


def orientation(frame: Any) -> tuple[bool, bool, bool, int]:
    """(transpose, flip vertically, flip horizontally, degrees clockwise) that show it upright.

    From the display matrix [[a, b], [c, d]] of ISO 14496-12, which takes a stored pixel
    (x, y) to (a x + c y, b x + d y); the transpose is applied first.
    """
    data = next((d for d in _side_data(frame) if d.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return False, False, False, 0
    values = memoryview(bytes(data)).cast("i")
    a, b, c, d = values[0], values[1], values[3], values[4]
    if abs(a) >= abs(b):
        return False, d < 0, a < 0, 180 if a < 0 and d < 0 else 0
    return True, b < 0, c < 0, 90 if b > 0 else 270


def _side_data(frame: Any) -> list[Any]:
    return [frame.side_data[k] for k in range(len(frame.side_data))]


def _is_cover(stream: VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _counted(container: InputContainer, stream: VideoStream) -> int | None:
    """Frames by the header; MP4's index is exact, since edit lists are already applied to it."""
    if "mp4" in container.format.name and len(stream.index_entries):
        return sum(not entry.is_discard for entry in stream.index_entries)
    return stream.frames or None


def _why_not_a_video(path: Path) -> str:
    size = path.stat().st_size
    if size == 0:
        return f"{path} is empty (0 bytes); copy or download it again"
    with path.open("rb") as file:
        head = file.read(12)
    whole = {kind for kind, end in mp4_boxes(path) if end <= size}
    if head[4:8] == b"ftyp" and b"moov" not in whole:
        return f"{path} is cut short: its index (moov) is missing; copy or download it again"
    return f"{path} is not a video that FFmpeg can read; check the file"


def no_space(error: OSError) -> bool:
    """Whether a write failed for want of room: a full disk, a quota or a limit on file size."""
    return error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
