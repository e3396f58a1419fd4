"""Files that end before their own headers say they do.

FFmpeg reads a file that was cut short without a word and gives fewer frames; here that is an
error that says how many are left. Evidence is a size that the container itself declares: an
MP4 box, a Matroska segment, a RIFF chunk.
"""

import os
import re
from fractions import Fraction
from pathlib import Path

from av.container import InputContainer
from av.video.stream import VideoStream

from realisvsr_jax.errors import InputError
from realisvsr_jax.video.headers import declared_size
from realisvsr_jax.video.info import opened, rate_of, video_stream


def refuse_truncated(
    container: InputContainer, stream: VideoStream, path: str | os.PathLike[str]
) -> None:
    """Raises InputError for a file cut short, with the number of frames that are left.

    Costs a few reads where the file is whole.
    """
    declared = declared_size(Path(path))
    if declared is None or declared <= os.path.getsize(path):
        return
    total = _declared_frames(container, stream)
    left = _frames_left(container, stream, path)
    if total is None or left < total:
        of_total = "" if total is None else f" of {total}"
        raise InputError(
            f"{path} is cut short: {left}{of_total} frames could be read; copy or download it again"
        )


def _declared_frames(container: InputContainer, stream: VideoStream) -> int | None:
    if "mp4" in container.format.name and len(stream.index_entries):
        return len(stream.index_entries)
    if stream.frames:
        return stream.frames
    stamp = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", "").strip())
    if stamp is None:
        return None
    hours, minutes, seconds = stamp.groups()
    duration = int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    return round(duration * rate_of(stream))


def _frames_left(
    container: InputContainer, stream: VideoStream, path: str | os.PathLike[str]
) -> int:
    if "mp4" in container.format.name and len(stream.index_entries):
        size = os.path.getsize(path)
        return sum(entry.pos + entry.size <= size for entry in stream.index_entries)
    # A second container, so that the first one stays at the beginning.
    with opened(path) as again:
        return sum(packet.size > 0 for packet in again.demux(video_stream(again, path)))
