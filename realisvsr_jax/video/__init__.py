"""Files in and out: frames, timestamps, colour tags, sound and subtitles; folders of frames.

Frames are uint8 RGB `T H W 3`; times are seconds as exact fractions. Everything that a user's
file can do wrong is an `InputError` of one line.
"""

from realisvsr_jax.video.folders import list_frames, read_frames
from realisvsr_jax.video.info import VideoInfo
from realisvsr_jax.video.reading import (
    Clip,
    count_frames,
    probe,
    read_clip,
    read_video,
    stream_video,
)
from realisvsr_jax.video.writing import VideoWriter, check_output, write_video

__all__ = [
    "Clip",
    "VideoInfo",
    "VideoWriter",
    "check_output",
    "count_frames",
    "list_frames",
    "probe",
    "read_clip",
    "read_frames",
    "read_video",
    "stream_video",
    "write_video",
]
