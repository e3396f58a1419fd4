"""A video in segments, each encoded by itself, and their joining without encoding again."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from realisvsr_jax.errors import InputError
from realisvsr_jax.files import sync
from realisvsr_jax.video.encoding import SEGMENT, Coding, Encoder, pixel_format
from realisvsr_jax.video.info import VideoInfo
from realisvsr_jax.video.labels import copy_labels
from realisvsr_jax.video.reading import PathLike
from realisvsr_jax.video.tracks import Tracks


@dataclass(frozen=True)
class Format:
    """What all segments of a video and the video itself share; `suffix` is that of the video."""

    suffix: str
    info: VideoInfo
    width: int
    height: int
    coding: Coding

    @property
    def pix_fmt(self) -> str:
        """The frames' pixel format; InputError for one that does not fit."""
        return pixel_format(self.suffix, self.info, self.width, self.height, self.coding)

    def encoder(self, path: Path, segment: bool) -> Encoder:
        """Writes one of the segments, or the whole."""
        return Encoder(
            *(path, self.suffix, self.info, self.width, self.height, self.coding), segment=segment
        )


def write_segment(
    path: Path, form: Format, frames: Iterable[np.ndarray], times: Sequence[Fraction]
) -> int:
    """Encodes frames shown at `times` by an encoder of their own; the file is on the disk then.

    Returns by how many frames the order of decoding runs ahead of that of showing.
    """
    encoder = form.encoder(path, segment=True)
    try:
        for frame, time in zip(frames, times, strict=True):
            encoder.write(frame, time)
        encoder.flush()
        encoder.container.close()
    finally:
        with suppress(av.FFmpegError, OSError):
            encoder.container.close()
    sync(path)
    order = np.argsort(np.argsort([packet.pts for packet in _packets(path, len(times))]))
    return int((np.arange(len(order)) - order).max())


def join(
    path: Path,
    form: Format,
    segments: Iterable[tuple[Path, int]],
    times: Sequence[Fraction],
    *,
    delay: int,
    source: PathLike | None,
    length: Fraction | None = None,
    start: Fraction = Fraction(0),
    end: Fraction | None = None,
) -> None:
    """Writes one video of segments (file, number of frames), whose frames are shown at `times`.

    `delay` is the greatest that `write_segment` returned, `length` the seconds for which the last
    frame is shown; None: as long as a frame of a constant rate. Sound, subtitles, chapters and
    metadata are those of `source` from `start` to `end`. Holds one segment's packets at a time.
    """
    encoder = form.encoder(path, segment=False)
    tracks = None
    try:
        if source is not None:
            tracks = Tracks(source, encoder.container, start, end)
            copy_labels(source, encoder.container, start, end)
        stamps = [encoder.stamp(time) for time in times]
        behind = encoder.duration if length is None else encoder.units(length)
        bounds, done = [*stamps, stamps[-1] + behind], 0
        ahead = _ahead(bounds, delay, encoder.duration)
        for segment, count in segments:
            packets = _packets(segment, count)
            shown = np.argsort(np.argsort([packet.pts for packet in packets]))
            for k, packet in enumerate(packets):
                before, place = done + k - delay, done + int(shown[k])
                dts = stamps[before] if before >= 0 else stamps[0] + before * ahead // delay
                # Where MP4 has the track end, the last packet's length is the last frame's.
                last = done + k == len(stamps) - 1
                shown_for = behind if last else bounds[place + 1] - stamps[place]
                encoder.copy(packet, stamps[place], dts, shown_for)
                if tracks is not None:
                    tracks.copy_until(times[done + k])
            done += count
        if tracks is not None:
            tracks.copy_until(None)
        encoder.container.close()
    finally:
        if tracks is not None:
            tracks.close()
        with suppress(av.FFmpegError, OSError):
            encoder.container.close()
    sync(path)


def _ahead(bounds: Sequence[int], delay: int, duration: int) -> int:
    """By how much the first packet is decoded before it is shown, in the file's unit.

    `bounds` are when frames begin and the last one ends. MP4 takes a track's length from the times
    of decoding, which with the last frame's length come to all that the frames take.
    """
    count = len(bounds) - 1
    if count <= delay:
        return delay * duration
    return max(delay, bounds[-2] - bounds[count - 1 - delay])


def _packets(path: Path, count: int) -> list[Any]:
    """The encoded frames of a segment, in the order of decoding."""
    with av.open(str(path), format=SEGMENT[1:]) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    if len(packets) != count:
        raise InputError(
            f"{path} has {len(packets)} of {count} frames; the codec does not write one packet a "
            "frame, or the file was changed: take another --codec, or --overwrite"
        )
    return packets
