"""The first pass over a video: how many frames, when each is shown, where scenes begin.

Headers may lie and files may break; what is planned is what can be decoded.
"""

import dataclasses
import itertools
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from realisvsr_jax.errors import InputError
from realisvsr_jax.jobs.scenes import CutFinder, shrunk
from realisvsr_jax.video import VideoInfo, stream_video

log = logging.getLogger(__name__)

_HDR = {16: "PQ", 18: "HLG"}  # H.273's transfer functions of high dynamic range
Progress = Callable[[int], object]


class Times(Sequence[Fraction]):
    """When frames are shown, in seconds: whole multiples of one unit, eight bytes each."""

    def __init__(self, unit: Fraction, stamps: np.ndarray):
        self.unit, self.stamps = unit, stamps

    def __len__(self) -> int:
        return len(self.stamps)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Times(self.unit, self.stamps[index])
        return int(self.stamps[index]) * self.unit

    def __iter__(self) -> Iterator[Fraction]:
        return (int(stamp) * self.unit for stamp in self.stamps)


@dataclasses.dataclass(frozen=True)
class Survey:
    """A video, or the part of one that was asked for.

    `cuts` are the numbers of frames, counted from the part's first, that begin another scene;
    `end` is when the frame behind the part is shown, None at the video's end; `length` for how
    many seconds the last frame is, None where nothing says it; `damage` says why the video ends
    before it should.
    """

    info: VideoInfo
    times: Times
    end: Fraction | None
    cuts: tuple[int, ...]
    damage: str | None = None
    length: Fraction | None = None

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.times)

    def scenes(self) -> list[range]:
        """Frames of each scene."""
        bounds = [0, *self.cuts, self.frames]
        return [range(first, last) for first, last in itertools.pairwise(bounds)]

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        info = {
            name: str(value) if isinstance(value, Fraction) else value
            for name, value in dataclasses.asdict(self.info).items()
        }
        return {
            "info": info,
            "unit": str(self.times.unit),
            "stamps": self.times.stamps.tolist(),
            "end": None if self.end is None else str(self.end),
            "cuts": list(self.cuts),
            "damage": self.damage,
            "length": None if self.length is None else str(self.length),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Survey":
        """The survey that `to_json` wrote."""
        fractions = ("rate", "time_base", "sample_aspect_ratio")
        info: dict[str, Any] = {
            k: Fraction(v) if k in fractions else v for k, v in data["info"].items()
        }
        return cls(
            VideoInfo(**info),
            Times(Fraction(data["unit"]), np.array(data["stamps"], np.int64)),
            None if data["end"] is None else Fraction(data["end"]),
            tuple(data["cuts"]),
            data["damage"],
            Fraction(length) if (length := data.get("length")) else None,
        )


def survey(
    path: str | os.PathLike[str],
    start: int = 0,
    frames: int | None = None,
    *,
    scenes: bool = True,
    progress: Progress = lambda _: None,
) -> Survey:
    """Decodes a video, or `frames` of it from `start` on, once and in constant memory.

    `progress` is called with the number of frames seen. Raises InputError for what is no video,
    and for what is not restored; what is lost on the way is a line in the log.
    """
    look = _Look(CutFinder() if scenes else None)
    damage: list[str] = []
    wanted = None if frames is None else frames + 1
    try:
        info, stream = stream_video(path, start, wanted, damage=damage, convert=look)
    except InputError as error:
        raise InputError(damage[0] if damage else str(error)) from error
    check_kind(path, info)
    ticks, end = [], None
    for number, (_, time) in enumerate(stream):
        if number == frames:
            end = time
            break
        ticks.append(time)
        progress(number + 1)
    unit = 1
    for time in ticks:
        unit = math.lcm(unit, time.denominator)
    if frames is not None and len(ticks) < frames:
        which = f"{len(ticks)} of the {frames} frames asked for from {start} on"
        log.info("%s has only %s", path, which)
    if look.interlaced:
        log.warning("%s: %d frames are interlaced; their lines stay", path, look.interlaced)
    if look.concealed:
        log.warning("%s: %d frames are damaged, and mended by guess", path, look.concealed)
    stamps = np.array([round(time * unit) for time in ticks], np.int64)
    cuts = tuple(cut for cut in look.cuts() if cut < len(ticks))
    length = look.length if end is None else end - ticks[-1]
    return Survey(
        *(info, Times(Fraction(1, unit), stamps), end, cuts, damage[0] if damage else None, length)
    )


def check_kind(path: str | os.PathLike[str], info: VideoInfo, quiet: bool = False) -> None:
    """InputError for an interlaced video; a word on transparency and on high dynamic range."""
    if info.interlaced:
        raise InputError(
            f"{path} is interlaced, and its comb of lines would be enlarged; make whole frames "
            "first: ffmpeg -i INPUT -vf bwdif -c:a copy OUTPUT"
        )
    if quiet:
        return
    if info.has_alpha:
        log.warning("%s: its transparency is left out", path)
    if info.transfer in _HDR:
        log.warning(
            "%s is HDR (%s): it is restored in its own curve, which the weights have not learned; "
            "curve and primaries stay tagged, mastering metadata is left out",
            path,
            _HDR[info.transfer],
        )


class _Look:
    """Sees each frame small; counts what is worth a word."""

    def __init__(self, finder: CutFinder | None):
        self.interlaced = self.concealed = 0
        self.length: Fraction | None = None
        self._finder, self._number = finder, 0
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> np.ndarray:
        if not isinstance(frame, np.ndarray):
            self.interlaced += bool(frame.interlaced_frame)
            self.concealed += bool(frame.is_corrupt)
            lasts = (frame.duration or 0) * (frame.time_base or 0)
            self.length = Fraction(lasts) or None
        if self._finder is not None:
            self._finder.add(self._number, shrunk(frame, self._reformatter))
        self._number += 1
        return _NOTHING

    def cuts(self) -> tuple[int, ...]:
        return () if self._finder is None else self._finder.cuts()


_NOTHING = np.empty(0, np.uint8)
