"""Frames out of a video file, exact by counting in the order in which they are shown."""

import bisect
import dataclasses
import functools
import io
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8

from realisvsr_jax.errors import InputError
from realisvsr_jax.video import folders
from realisvsr_jax.video.color import to_rgb
from realisvsr_jax.video.info import VideoInfo, describe, opened, start_of, video_stream
from realisvsr_jax.video.truncation import refuse_truncated

PathLike = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A video file that is in memory; messages call it by its name."""

    name: str
    data: bytes

    def __str__(self) -> str:
        return self.name


Source = PathLike | Encoded
Convert = Callable[[Any], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Clip:
    """Frames uint8 [T, H, W, 3] RGB, upright, and when each is shown, in seconds.

    `start` is the number of the first frame in its file.
    """

    frames: UInt8[np.ndarray, "T H W 3"]
    times: tuple[Fraction, ...]
    info: VideoInfo
    start: int = 0


@dataclasses.dataclass(frozen=True)
class FrameTable:
    """Presentation timestamps of all frames in order, and of the keyframes.

    `seekable` says that frames can be found by their timestamps: every packet has its own,
    and nothing comes before the first keyframe.
    """

    pts: tuple[int, ...]
    keys: tuple[int, ...]
    seekable: bool


def probe(path: PathLike, count: bool = False) -> VideoInfo:
    """What a video file or a folder of frames is, from its header and its first frame.

    With `count`, `num_frames` is always known, at the cost of reading the file through once.
    Raises InputError for whatever is no readable video with at least one frame.
    """
    if folders.holds_pictures(path):
        return folders.probe_frames(path)
    with opened(path) as container:
        stream = video_stream(container, path)
        refuse_truncated(container, stream, path)
        frame = next(_decoded(container, stream, path), None)
        if frame is None:
            raise InputError(f"{path} has no frames; name a video with pictures in it")
        info = describe(container, stream, frame)
    if count and info.num_frames is None:
        info = dataclasses.replace(info, num_frames=count_frames(path))
    return info


def count_frames(path: Source) -> int:
    """The exact number of frames; decodes only where timestamps are missing or doubtful."""
    table = frame_table(path)
    if table.seekable:
        return len(table.pts)
    with _open(path) as container:
        stream = video_stream(container, str(path))
        return sum(1 for _ in _decoded(container, stream, path))


def read_video(
    path: Source, start: int = 0, frames: int | None = None, *, threads: int = 0
) -> Clip:
    """Frames `start` … `start + frames` of a video, in a file or in memory, or a folder of frames.

    Args:
      start: the first frame, counted from 0.
      frames: how many; fewer come back where the video ends earlier. None: to the end.
      threads: of the decoder; 0 lets FFmpeg choose.

    Raises InputError for an unreadable file and for a start beyond the end.
    """
    _refuse_range(start, frames)
    if not isinstance(path, Encoded) and folders.holds_pictures(path):
        pictures = folders.read_frames(path, start, frames)
        info = folders.probe_frames(path)
        shown = tuple((start + k) / info.rate for k in range(len(pictures)))
        return Clip(pictures, shown, info, start)
    info, stream = stream_video(path, start, frames, threads=threads)
    arrays: list[Any] = []
    times = []
    for array, time in stream:
        arrays.append(array)
        times.append(time)
    # Each frame is let go as it is copied, so that the clip is not in memory twice.
    stacked = np.empty((len(arrays), *arrays[0].shape), np.uint8)
    for k in range(len(arrays)):
        stacked[k], arrays[k] = arrays[k], None
    return Clip(stacked, tuple(times), info, start)


def read_clip(path: Source, start: int, frames: int) -> Clip:
    """Random access for training: exactly `frames` frames from `start`, on one thread.

    Seeks to the keyframe before `start`; the table of timestamps behind that is kept for the
    last 512 files of a process, not of videos in memory. Raises InputError where the video is too
    short.
    """
    clip = read_video(path, start, frames, threads=1)
    if len(clip.frames) < frames:
        raise InputError(
            f"{path} has {start + len(clip.frames)} frames; {frames} from {start} on are too many"
        )
    return clip


def stream_video(
    path: Source,
    start: int = 0,
    frames: int | None = None,
    *,
    threads: int = 0,
    deep: bool = False,
    damage: list[str] | None = None,
    convert: Convert | None = None,
) -> tuple[VideoInfo, Iterator[tuple[np.ndarray, Fraction]]]:
    """`read_video` one frame at a time: the info and an iterator of (uint8 [H, W, 3], seconds).

    The first frame is decoded before this returns, so that bad input is an error here. The
    file closes when the iterator ends or is dropped.

    Args:
      deep: uint16 frames.
      damage: a list; where the file is cut short or breaks in the middle, the frames end there
        and the list says why, in place of an InputError.
      convert: makes an array of PyAV's frame, or of a picture's, in place of RGB at full size.
    """
    _refuse_range(start, frames)
    if not isinstance(path, Encoded) and folders.holds_pictures(path):
        info = folders.probe_frames(path)
        pictures = folders.stream_frames(path, start, frames, deep)
        shown = (((start + k) / info.rate, p) for k, p in enumerate(pictures))
        return info, ((p if convert is None else convert(p), time) for time, p in shown)
    reformatter = VideoReformatter()
    convert = convert or (lambda frame: to_rgb(frame, reformatter, deep))
    source = path if isinstance(path, Encoded) else Path(path)
    stream = _stream(source, start, frames, threads, convert, damage)
    info = next(stream)
    assert isinstance(info, VideoInfo)
    first = next(stream, None)
    if first is None:
        total = count_frames(path)
        if not total:
            raise InputError(f"{path} has no frames; name a video with pictures in it")
        raise InputError(f"{path} has {total} frames; start {start} is beyond its end")
    return info, itertools.chain((first,), stream)  # pyright: ignore


def frame_table(path: Source) -> FrameTable:
    """Timestamps of all frames, from their packets, without decoding; those of files are cached."""
    if isinstance(path, Encoded):
        return _table_of(path)
    status = os.stat(path) if os.path.exists(path) else None
    return _frame_table(str(path), status and (status.st_mtime_ns, status.st_size))


@functools.lru_cache(maxsize=512)
def _frame_table(path: str, version: tuple[int, int] | None) -> FrameTable:
    return _table_of(path)


def _table_of(path: Source) -> FrameTable:
    stamps: list[tuple[int | None, bool]] = []
    try:
        with _open(path) as container:
            # Of each packet its time alone, so that a film is not held in memory.
            for packet in container.demux(video_stream(container, str(path))):
                if packet.size and not packet.is_discard:
                    stamps.append((packet.pts, packet.is_keyframe))
    except (av.FFmpegError, OSError):
        return FrameTable((), (), False)
    pts = [stamp for stamp, _ in stamps if stamp is not None]
    if not pts or len(pts) < len(stamps):
        return FrameTable((), (), False)
    seekable = stamps[0][1] and pts[0] == min(pts) and len(set(pts)) == len(pts)
    keys = sorted(stamp for stamp, (_, is_key) in zip(pts, stamps) if is_key)
    return FrameTable(tuple(sorted(pts)), tuple(keys), seekable)


def _open(path: Source) -> AbstractContextManager[InputContainer]:
    if not isinstance(path, Encoded):
        return opened(path)
    try:
        container = av.open(io.BytesIO(path.data), "r", metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"{path} is not a video that FFmpeg can read") from error
    if not container.streams:
        raise InputError(f"{path} is not a video that FFmpeg can read")
    return container


def _stream(
    path: Path | Encoded,
    start: int,
    frames: int | None,
    threads: int,
    convert: Convert,
    damage: list[str] | None,
) -> Iterator[Any]:
    """Yields the VideoInfo, then (frame, seconds) for each frame asked for."""
    with _open(path) as container:
        stream = video_stream(container, str(path))
        # What holds videos in memory knows that they are whole.
        short = not isinstance(path, Encoded) and _cut_short(container, stream, path, damage)
        stream.thread_type = "AUTO" if threads != 1 else "NONE"
        stream.thread_count = threads
        decoded, skip = _from(container, stream, path, start, short)
        decoded = decoded if damage is None else _to_damage(decoded, damage)
        first = next(decoded, None)
        if first is None:
            raise InputError(f"{path} has no frames; name a video with pictures in it")
        info = describe(container, stream, first)
        yield info
        decoded = itertools.chain((first,), decoded)
        stop = None if frames is None else skip + frames
        size, origin, clock = (first.width, first.height), start_of(container), _Clock(info.rate)
        for k, frame in enumerate(itertools.islice(decoded, skip, stop), start):
            if (frame.width, frame.height) != size:
                raise InputError(
                    f"{path}: frame {k} is {frame.width}×{frame.height}, the first "
                    f"{size[0]}×{size[1]}; split the video where its size changes"
                )
            yield convert(frame), clock.time(frame, k, origin)


def _cut_short(
    container: InputContainer, stream: VideoStream, path: Path, damage: list[str] | None
) -> bool:
    """Whether a file ends before it should; says so in `damage`, or raises InputError."""
    try:
        refuse_truncated(container, stream, path)
    except InputError as error:
        if damage is None:
            raise
        damage.append(str(error))
        return True
    return False


def _to_damage(decoded: Iterator[Any], damage: list[str]) -> Iterator[Any]:
    """Frames up to where reading fails."""
    try:
        yield from decoded
    except InputError as error:
        damage.append(str(error))


class _Clock:
    """Presentation times, strictly increasing; what a file leaves out follows its rate."""

    def __init__(self, rate: Fraction):
        self.step = 1 / rate
        self.last: Fraction | None = None

    def time(self, frame: Any, index: int, origin: Fraction) -> Fraction:
        if frame.pts is not None:
            time = frame.pts * frame.time_base - origin
        else:
            time = index * self.step if self.last is None else self.last + self.step
        if self.last is not None and time <= self.last:
            time = self.last + self.step
        self.last = time
        return time


def _from(
    container: InputContainer, stream: VideoStream, path: Source, start: int, short: bool
) -> tuple[Iterator[Any], int]:
    """Decoded frames, and how many of them come before frame `start`.

    Seeks where timestamps are beyond doubt and the seek lands where it must; else decodes
    from the beginning.
    """
    table = frame_table(path) if start else FrameTable((), (), False)
    if table.seekable and start < len(table.pts):
        key = table.keys[bisect.bisect_right(table.keys, table.pts[start]) - 1]
        first = bisect.bisect_left(table.pts, key)
        if first:
            container.seek(key, stream=stream)
            decoded = _decoded(container, stream, path, first, short)
            landed = next(decoded, None)
            if landed is not None and landed.pts == key and not landed.is_corrupt:
                return itertools.chain((landed,), decoded), start - first
            container.seek(0, stream=stream)
    return _decoded(container, stream, path, 0, short), start


def _decoded(
    container: InputContainer,
    stream: VideoStream,
    path: Source,
    index: int = 0,
    short: bool = False,
) -> Iterator[Any]:
    """All frames in presentation order from where the container stands, at frame `index`.

    Those of a file cut `short` end before the packet in which it is cut.
    """
    try:
        for packet in container.demux(stream):
            cut = short and packet.is_corrupt
            if cut:
                packet = av.Packet()  # empty: what the decoder still holds
                packet.stream, packet.time_base = stream, stream.time_base
            for frame in packet.decode():
                yield frame
                index += 1
            if cut:
                return
    except (av.FFmpegError, OSError) as error:
        total = stream.frames or "unknown"
        raise InputError(
            f"{path} is damaged: {index} of {total} frames could be read; copy or download it again"
        ) from error


def _refuse_range(start: int, frames: int | None) -> None:
    if start < 0:
        raise InputError(f"start {start} is negative; frames are counted from 0")
    if frames is not None and frames < 1:
        raise InputError(f"{frames} frames were asked for; ask for at least 1")
