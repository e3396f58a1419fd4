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
from realisvsr_jax.video.encoding import SEGMENT, Coding, Encoder
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
    start: Fraction = Fraction(0),
    end: Fraction | None = None,
) -> None:
    """Writes one video of segments (file, number of frames), whose frames are shown at `times`.

    `delay` is the greatest that `write_segment` returned. Sound, subtitles, chapters and metadata
    are those of `source` from `start` to `end`. Holds one segment's packets at a time.
    """
    encoder = form.encoder(path, segment=False)
    tracks = None
    try:
        if source is not None:
            tracks = Tracks(source, encoder.container, start, end)
            copy_labels(source, encoder.container, start, end)
        stamps = [encoder.stamp(time) for time in times]
        done = 0
        for segment, count in segments:
            packets = _packets(segment, count)
            shown = np.argsort(np.argsort([packet.pts for packet in packets]))
            for k, packet in enumerate(packets):
                before = done + k - delay
                dts = stamps[before] if before >= 0 else stamps[0] + before * encoder.duration
                encoder.copy(packet, stamps[done + int(shown[k])], dts)
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
