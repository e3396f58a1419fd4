"""A job before it begins: its windows, what it takes of memory and disk, and what cannot fit."""

import functools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from realisvsr_jax.errors import InputError
from realisvsr_jax.jobs.scene import Needs, Outlook
from realisvsr_jax.jobs.survey import Survey
from realisvsr_jax.video.segments import Format

# Bytes a pixel of what is written: from little, smooth content, to much, noise. x264 at CRF 16
# takes 0.01 to 0.1, lossless RGB 1 to 3.
_LOSSY, _LOSSLESS = (0.002, 0.05), (0.3, 2.5)
_FINE = ("yuv444", "yuvj444", "yuv422", "yuvj422", "gbr")  # colour finer than 4:2:0's
_CONTAINER = 4096  # bytes that a file has beside the pictures
_AHEAD = 256 << 20  # bytes of decoded frames that wait at most


@dataclass(frozen=True)
class Step:
    """One window of one scene; `first` is the scene's first frame, `frames` how many it has."""

    first: int
    frames: int
    window: Any

    @property
    def reads(self) -> range:
        """Frames of the clip that go in."""
        return _shifted(self.window.reads, self.first)

    @property
    def writes(self) -> range:
        """Frames of the clip that come out."""
        return _shifted(self.window.writes, self.first)

    @property
    def is_last(self) -> bool:
        """Whether the scene ends with it."""
        return self.window.writes.stop == self.frames


@dataclass(frozen=True)
class Plan:
    """A job in steps.

    `kind` of output is "video", "frames" for a folder, or "picture"; `start` is the number of the
    first frame in the source.
    """

    source: str
    output: str
    kind: str
    survey: Survey
    outlook: Outlook
    form: Format
    steps: tuple[Step, ...]
    start: int = 0

    @property
    def shift(self) -> Fraction:
        """Seconds of the source that are 0 in the output: when a part's first frame is shown."""
        return self.survey.times[0] if self.start else Fraction(0)

    @property
    def deep(self) -> bool:
        """Whether frames have more than eight bits on their whole way."""
        return self.survey.info.bit_depth > 8

    @property
    def ahead(self) -> int:
        """Decoded frames that wait at most."""
        info = self.survey.info
        frame = info.width * info.height * 3 * (2 if self.deep else 1)
        return max(2, min(self.longest, _AHEAD // frame))

    @property
    def longest(self) -> int:
        """Frames of the longest window."""
        return max(len(step.window.reads) for step in self.steps)

    @functools.cached_property
    def needs(self) -> Needs:
        """Of the longest scene."""
        return self.outlook.needs(max(len(scene) for scene in self.survey.scenes()))

    @property
    def host_bytes(self) -> int:
        """Memory of the host that a window takes, the one before it and frames that wait."""
        height, width = self.outlook.size
        info = self.survey.info
        channel = 4 if self.deep else 1
        result = self.longest * height * width * 3 * channel
        waiting = (self.ahead + self.longest) * info.height * info.width * 3 * channel
        on_host = self.needs.device if self.needs.device_limit is None else 0
        return self.needs.host + result + waiting + on_host

    def disk_bytes(self) -> tuple[int, int]:
        """Space that the job takes while it is joined: at least, and for difficult content."""
        height, width = self.outlook.size
        pixels = self.survey.frames * height * width
        pictures = self.kind != "video"
        low, high = _LOSSLESS if pictures or self.form.coding.lossless else _LOSSY
        copies = (1 if pictures else 2) * (2 if self.deep else 1)
        beside = copies * _CONTAINER + self.states
        return int(low * copies * pixels) + beside, int(high * copies * pixels) + beside

    @property
    def states(self) -> int:
        """Of the disk, for what the next window goes on from: the newest two are kept."""
        return 2 * self.needs.state if len(self.steps) > 1 else 0

    def lines(self, job: Path) -> Iterator[str]:
        """The plan for people."""
        info, (height, width) = self.survey.info, self.outlook.size
        tracks = [name for name in ("audio", "subtitles") if getattr(info, f"has_{name}")]
        beside = f", with {' and '.join(tracks)}" if tracks else ""
        rate = f"{float(info.rate):.5g} a second, " if self.survey.frames > 1 else ""
        yield (
            f"{self.source}: {counted(self.survey.frames, 'frame')} of {info.width}×{info.height}, "
            f"{rate}{info.pix_fmt}{beside}"
        )
        how = self._coded() if self.kind == "video" else "PNG"
        yield f"{self.output}: {width}×{height}, {how}{', 16 bits' if self._sixteen else ''}"
        scenes = len({step.first for step in self.steps})
        passes = sum(self.outlook.needs(len(scene)).passes for scene in self.survey.scenes())
        yield (
            f"{counted(scenes, 'scene')}, {counted(len(self.steps), 'window')} "
            f"of up to {counted(self.longest, 'frame')}, {self.needs.tiles}; "
            f"{passes:,} passes of the network"
        )
        if self.needs.device_limit is not None:
            limit = size(self.needs.device_limit)
            yield f"memory of a device about {size(self.needs.device)} of {limit}"
        disk = " to ".join(dict.fromkeys(map(size, self.disk_bytes())))
        if self.states:
            disk += f", of it {size(self.states)} what the next window goes on from"
        yield (
            f"memory of the host about {size(self.host_bytes)}, {size(free_memory())} are free; "
            f"disk {disk}, {size(_free_disk(job))} are free; kept in {job} "
            "until it is done"
        )

    def _coded(self) -> str:
        """How a video is stored, with a word where that halves its colour."""
        coding, given = self.form.coding, self.survey.info.pix_fmt
        if coding.lossless:
            return "lossless"
        how = f"{coding.codec}, CRF {coding.crf}, {self.form.pix_fmt}"
        if given.startswith(_FINE) and not self.form.pix_fmt.startswith(_FINE):
            how += f" (colour of {given} at half its size; --pix-fmt yuv444p keeps it)"
        return how

    @property
    def _sixteen(self) -> bool:
        return self.deep and self.kind != "video"

    def check_room(self, job: Path) -> None:
        """InputError where memory or disk cannot hold the job; says what would fit."""
        free = free_memory()
        if self.host_bytes > free:
            raise InputError(
                f"{self.output}: windows of {self.longest} frames of "
                f"{self.outlook.size[1]}×{self.outlook.size[0]} take {size(self.host_bytes)} of "
                f"the host's memory, {size(free)} are free; {self._smaller(free)}"
            )
        limit = self.needs.device_limit
        if limit is not None and self.needs.device > limit:
            raise InputError(
                f"{self.output}: a window takes about {size(self.needs.device)} of a device's "
                f"memory, which has {size(limit)}; give a smaller --tile or --window, --batch 1, "
                f"or --memory {size(limit // 3).replace(' ', '')}"
            )
        least, space = self.disk_bytes()[0], _free_disk(job)
        if least > space:
            raise InputError(
                f"{self.output}: the job takes {size(least)} of disk or more, {size(space)} are "
                "free; free some, or name an output elsewhere"
            )

    def _smaller(self, free: int) -> str:
        window = int(self.longest * free / self.host_bytes)
        if window >= 5:
            return f"--window {window} would fit"
        factor = (free / self.host_bytes) ** 0.5
        return f"a result of {factor:.0%} of its sides would fit: give a smaller --scale"


def make_steps(survey: Survey, outlook: Outlook) -> tuple[Step, ...]:
    """The windows of a video, scene after scene."""
    return tuple(
        Step(scene.start, len(scene), window)
        for scene in survey.scenes()
        for window in outlook.windows(len(scene))
    )


def host_memory() -> int:
    """Bytes that the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def free_memory() -> int:
    """Bytes that this process may still take, by the kernel and by a container's limit."""
    free = host_memory()
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvail"))
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError, StopIteration):
        pass  # elsewhere than on Linux, and without a limit
    return free


def size(count: int | float) -> str:
    """Bytes for people."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        del units[0]
    return f"{count:.3g} {units[0]}"


def counted(count: int, noun: str) -> str:
    """1 frame, 1,200 frames."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _free_disk(job: Path) -> int:
    # Of a folder job's output, none of it may be there yet.
    return shutil.disk_usage(next(path for path in job.absolute().parents if path.exists())).free


def _shifted(frames: range, by: int) -> range:
    return range(frames.start + by, frames.stop + by)
