"""Frames to a video file or a folder of pictures, whole or not at all."""

import dataclasses
import itertools
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from jaxtyping import UInt8

from realisvsr_jax.errors import InputError
from realisvsr_jax.files import sync
from realisvsr_jax.video.encoding import FORMATS, Coding, Encoder
from realisvsr_jax.video.folders import write_picture
from realisvsr_jax.video.info import FOLDER_RATE, VideoInfo, no_space
from realisvsr_jax.video.reading import PathLike, probe, stream_video
from realisvsr_jax.video.tracks import Tracks

_NUMBERED = re.compile(r"\d{8,}\.png")


def check_output(
    path: PathLike,
    *,
    inputs: Sequence[PathLike] = (),
    overwrite: bool = False,
    picture: bool = False,
) -> None:
    """Raises InputError where `path` cannot or must not be written; for before any work.

    A path without a suffix, or of a folder, stands for a folder of PNG frames; one with a
    video's suffix never does. What is there already is replaced with `overwrite` alone, and a
    folder only if it has nothing but numbered frames in it; an input is never replaced. With
    `picture`, a .png is an output as well.
    """
    target = Path(os.path.realpath(path))
    if target.parent.is_file():
        raise InputError(
            f"{path}: {Path(path).parent} is a file, not a folder; name another output"
        )
    if not target.parent.is_dir():
        raise InputError(f"{path}: the folder {Path(path).parent} does not exist; create it first")
    for source in inputs:
        if target.exists() and os.path.exists(source) and os.path.samefile(target, source):
            raise InputError(f"{path} is the input itself; name another output")
    formats = [*FORMATS, *([".png"] if picture else [])]
    if not _is_folder(target) and target.suffix.lower() not in formats:
        raise InputError(
            f"{path}: {target.suffix} is no format that can be written; name it "
            f"{', '.join(formats)}, or without a suffix for a folder of frames"
        )
    if target.is_dir() and target.suffix.lower() in formats:
        raise InputError(f"{path} is a folder, though named as a video file; name another output")
    if target.is_dir():
        _check_folder(path, target, overwrite)
    elif target.exists():
        if not target.is_file() or _is_folder(target):
            raise InputError(f"{path} exists and is no video file; name another output")
        if not overwrite:
            raise InputError(f"{path} exists; name another output, or add --overwrite")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} may not be written; check the permissions of its folder")


def _check_folder(path: PathLike, target: Path, overwrite: bool) -> None:
    names = os.listdir(target)
    if names and not overwrite:
        raise InputError(f"{path} exists and is not empty; name another, or add --overwrite")
    if not all(_NUMBERED.fullmatch(name) for name in names):
        raise InputError(f"{path} has other files than numbered frames in it; name another folder")


class VideoWriter:
    """Writes frames one at a time in constant memory; a context manager.

    The output takes its name when the `with` block ends well; until then nothing that was
    there is touched, and after an error nothing is left.

    Args:
      path: .mp4, .m4v, .mov or .mkv; without a suffix, a folder of PNG frames 00000000.png …
      info: of the input: its rate, unit of time, colour tags and pixel aspect are kept.
      source: the file whose sound and subtitles are copied.
      start: seconds, as `read_video` counts them, that become 0 in the output.
      end: seconds where the copied sound stops; None: where its file does.
      lossless: store RGB, which reads back byte for byte.
      codec: FFmpeg's name of the encoder; `crf` is its quality, smaller is better.
      overwrite: replace what exists.

    Raises InputError as `check_output` does, and for want of room while writing.
    """

    def __init__(
        self,
        path: PathLike,
        info: VideoInfo,
        *,
        source: PathLike | None = None,
        start: Fraction = Fraction(0),
        end: Fraction | None = None,
        lossless: bool = False,
        codec: str = "libx264",
        crf: int = 16,
        overwrite: bool = False,
    ):
        check_output(path, inputs=() if source is None else (source,), overwrite=overwrite)
        self._path, self._target = path, Path(os.path.realpath(path))
        self._part = self._target.with_name(f".{secrets.token_hex(8)}.part")
        self._info, self._start, self._end = info, start, end
        self._source = None if source is None or Path(source).is_dir() else source
        self._coding = Coding(codec, crf, lossless=lossless)
        self._sink: _Folder | _File | None = None

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, frame: UInt8[np.ndarray, "H W 3"], time: Fraction) -> None:
        """Adds an RGB frame shown at `time`, in seconds of the input."""
        with room(self._path):
            if self._sink is None:
                self._sink = self._open(*frame.shape[:2])
            self._sink.write(frame, time - self._start)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._sink is not None:
                self._sink.discard()
            _remove(self._part)

    def _open(self, height: int, width: int) -> "_Folder | _File":
        if _is_folder(self._target):
            return _Folder(self._part, height, width)
        suffix = self._target.suffix.lower()
        encoder = Encoder(self._part, suffix, self._info, width, height, self._coding)
        if self._source is None:
            return _File(self._part, encoder, None)
        tracks = Tracks(self._source, encoder.container, self._start, self._end)
        return _File(self._part, encoder, tracks)

    def _finish(self) -> None:
        if self._sink is None:
            raise InputError(f"{self._path}: there are no frames to write")
        with room(self._path):
            self._sink.finish()
            put(self._part, self._target)


@contextmanager
def room(path: PathLike, advice: str = "free some or name an output elsewhere") -> Iterator[None]:
    """A write that fails in the block, for want of space above all, is an InputError."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or "").lower()
        if no_space(error):
            raise InputError(f"{path}: no space left while writing ({why}); {advice}") from error
        raise InputError(f"{path} cannot be written: {why}") from error


class _Folder:
    """PNG frames into a new folder."""

    def __init__(self, part: Path, height: int, width: int):
        self._part, self._shape = part, (height, width, 3)
        self._numbers = itertools.count()
        part.mkdir()

    def write(self, frame: np.ndarray, time: Fraction) -> None:
        del time
        if frame.shape != self._shape:
            raise ValueError(f"a frame of shape {frame.shape} in a video of {self._shape}")
        write_picture(self._part / f"{next(self._numbers):08d}.png", frame)

    def finish(self) -> None:
        pass

    def discard(self) -> None:
        pass


class _File:
    """Frames into a video file, with the tracks of another one in step."""

    def __init__(self, part: Path, encoder: Encoder, tracks: Tracks | None):
        self._part, self._encoder, self._tracks = part, encoder, tracks

    def write(self, frame: np.ndarray, time: Fraction) -> None:
        self._encoder.write(frame, time)
        if self._tracks is not None:
            self._tracks.copy_until(time)

    def finish(self) -> None:
        self._encoder.flush()
        if self._tracks is not None:
            self._tracks.copy_until(None)
        self._encoder.container.close()
        # A full disk may show only here.
        sync(self._part)

    def discard(self) -> None:
        if self._tracks is not None:
            self._tracks.close()
        with suppress(av.FFmpegError, OSError):
            self._encoder.container.close()


def write_video(
    path: PathLike,
    frames: UInt8[np.ndarray, "T H W 3"],
    rate: Fraction | None = None,
    *,
    times: Sequence[Fraction] | None = None,
    info: VideoInfo | None = None,
    source: PathLike | None = None,
    start: Fraction = Fraction(0),
    end: Fraction | None = None,
    lossless: bool = False,
    overwrite: bool = False,
) -> None:
    """Writes a clip as `VideoWriter` does.

    Times are those given, else of `rate`, else those of `source` where it has as many frames,
    else of the rate of `info` or `source`, 25 without both. `info` is probed from `source`
    where it is not given. Copied sound ends with the frames where these are not all of the
    source's.
    """
    check_output(path, inputs=() if source is None else (source,), overwrite=overwrite)
    if info is None:
        info = _plain(frames, rate or FOLDER_RATE) if source is None else probe(source)
    if times is None and rate is None and source is not None:
        times = _times_of(source, len(frames))
    step = 1 / (rate or info.rate)
    if times is None:
        times = [start + k * step for k in range(len(frames))]
        end = start + len(frames) * step if end is None and source is not None else end
    if len(times) != len(frames):
        raise ValueError(f"{len(frames)} frames, but {len(times)} times")
    unit = Fraction(1, math.lcm(*(time.denominator for time in (start, *times))))
    info = dataclasses.replace(info, rate=1 / step, time_base=unit)
    with VideoWriter(
        path, info, source=source, start=start, end=end, lossless=lossless, overwrite=overwrite
    ) as writer:
        for frame, time in zip(frames, times):
            writer.write(frame, time)


def _times_of(source: PathLike, count: int) -> list[Fraction] | None:
    """Times of a file's frames if it has `count` of them."""
    if Path(source).is_dir():
        return None
    times = [time for _, time in stream_video(source, 0, count + 1)[1]]
    return times if len(times) == count else None


def _plain(frames: np.ndarray, rate: Fraction) -> VideoInfo:
    return VideoInfo(frames.shape[2], frames.shape[1], rate, 1 / rate)


def kind_of(target: Path) -> str:
    """What an output is by its name: "video", "picture", or "frames" for a folder of them."""
    if _is_folder(target):
        return "frames"
    return "picture" if target.suffix.lower() == ".png" else "video"


def _is_folder(target: Path) -> bool:
    return target.is_dir() or not target.suffix


def put(part: Path, target: Path) -> None:
    """A finished file or folder takes the name of `target`, in place of what is there."""
    if not target.is_dir():
        os.replace(part, target)
        return
    # A folder with files in it cannot be replaced in one step.
    aside = part.with_suffix(".old")
    os.replace(target, aside)
    os.replace(part, target)
    shutil.rmtree(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
