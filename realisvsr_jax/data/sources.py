"""Random-access clips: folders of videos, folders of frames, and captions beside them.

A source is a folder. Each video file in it, at any depth, is a clip; so is each folder that
directly holds pictures. `name.txt` beside `name.mp4`, or beside the folder `name`, is its caption.
"""

import concurrent.futures
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from realisvsr_jax.errors import InputError
from realisvsr_jax.video import probe, read_clip, read_frames
from realisvsr_jax.video.folders import PICTURES

log = logging.getLogger(__name__)

VIDEOS = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".mpg", ".mpeg", ".m4v", ".ts", ".m2ts", ".wmv")


@dataclass(frozen=True)
class SourceClip:
    """A clip that training may crop; `caption` is '' where there is none."""

    path: Path
    num_frames: int
    height: int
    width: int
    caption: str = ""

    def read(self, start: int, frames: int) -> np.ndarray:
        """uint8 [frames, H, W, 3] from frame `start`; raises InputError if it cannot be read."""
        if self.path.is_dir():
            pictures = read_frames(self.path, start, frames)
            if len(pictures) < frames:
                raise InputError(f"{self.path} has lost frames since it was indexed")
            return pictures
        return read_clip(self.path, start, frames).frames

    def holds(self, bucket: tuple[int, int, int]) -> bool:
        """Whether a crop of `bucket` (T, H, W) fits at the clip's own resolution."""
        have = (self.num_frames, self.height, self.width)
        return all(size >= wanted for size, wanted in zip(have, bucket))


def index_clips(folders: Sequence[str | Path]) -> list[SourceClip]:
    """Every readable clip of `folders`, in a stable order; unreadable ones are named in the log.

    Raises InputError for a folder that does not exist or no readable clip at all.
    """
    if not folders:
        raise InputError("data.sources is empty; name at least one folder of videos or frames")
    paths = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"data.sources: {folder} is no folder; name one of videos or frames")
        paths += sorted(_clip_paths(folder))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        clips = list(pool.map(_describe, paths))
    readable = [clip for clip in clips if clip is not None]
    if not readable:
        raise InputError(
            f"data.sources: no readable clip in {', '.join(map(str, folders))} "
            f"({len(paths)} tried); expected videos or folders of pictures"
        )
    return readable


def _clip_paths(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders.sort()
        if any(Path(name).suffix.lower() in PICTURES for name in files):
            yield Path(root)
        for name in files:
            if Path(name).suffix.lower() in VIDEOS and not name.startswith("."):
                yield Path(root, name)


def _describe(path: Path) -> SourceClip | None:
    try:
        info = probe(path, count=True)
    except InputError as error:
        log.warning("left out of the data: %s", error)
        return None
    assert info.num_frames is not None
    beside = path.parent / (path.name + ".txt") if path.is_dir() else path.with_suffix(".txt")
    caption = beside.read_text().strip() if beside.is_file() else ""
    return SourceClip(path, info.num_frames, info.height, info.width, caption)
