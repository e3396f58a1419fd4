"""Random-access clips: folders of videos, folders of frames, records, and captions beside them.

A source is a folder. Each video file in it, at any depth, is a clip; so is each folder that
directly holds pictures. `name.txt` beside `name.mp4`, or beside the folder `name`, is its caption.
Or it is a folder that `realisvsr_jax.data.pack` wrote, or a dataset of TFDS (docs/data.md).
"""

import concurrent.futures
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from realisvsr_jax.data import records, tfds_source
from realisvsr_jax.data.clips import SourceClip
from realisvsr_jax.errors import InputError
from realisvsr_jax.video import probe
from realisvsr_jax.video.folders import PICTURES

__all__ = [
    "VIDEOS",
    "SourceClip",
    "caption_path",
    "clip_paths",
    "describe_clip",
    "index_clips",
]

log = logging.getLogger(__name__)

VIDEOS = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".mpg", ".mpeg", ".m4v", ".ts", ".m2ts", ".wmv")


def index_clips(folders: Sequence[str | Path]) -> list[SourceClip]:
    """Every readable clip of `folders`, in a stable order; unreadable ones are named in the log.

    Raises InputError for a folder that does not exist or no readable clip at all, and for
    records that cannot be understood.
    """
    if not folders:
        raise InputError("data.sources is empty; name at least one folder of videos or frames")
    readable, tried = [], 0
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"data.sources: {folder} is no folder; name one of videos or frames")
        if records.holds_records(folder):
            clips, count = records.index_records(folder)
        elif tfds_source.holds_dataset(folder):
            clips, count = tfds_source.index_dataset(folder)
        else:
            clips, count = _index_files(folder)
        readable += clips
        tried += count
    if not readable:
        raise InputError(
            f"data.sources: no readable clip in {', '.join(map(str, folders))} "
            f"({tried} tried); expected videos or folders of pictures"
        )
    return readable


def clip_paths(folder: Path) -> list[Path]:
    """The video files and the folders of pictures in a folder, at any depth, in order."""
    return sorted(_walk(folder))


def describe_clip(path: Path) -> SourceClip:
    """Sizes, exact number of frames and caption of a video or a folder of pictures.

    Raises InputError for whatever cannot be read.
    """
    info = probe(path, count=True)
    assert info.num_frames is not None
    beside = caption_path(path)
    try:
        caption = beside.read_text(encoding="utf-8").strip() if beside.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{beside} cannot be read as UTF-8 text; mend or remove it") from error
    return SourceClip(path, info.num_frames, info.height, info.width, caption)


def caption_path(path: Path) -> Path:
    """Where the caption of a clip stands, if it has one."""
    return path.parent / (path.name + ".txt") if path.is_dir() else path.with_suffix(".txt")


def _index_files(folder: Path) -> tuple[list[SourceClip], int]:
    paths = clip_paths(folder)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        clips = list(pool.map(_described, paths))
    return [clip for clip in clips if clip is not None], len(paths)


def _described(path: Path) -> SourceClip | None:
    try:
        return describe_clip(path)
    except InputError as error:
        log.warning("left out of the data: %s", error)
        return None


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders.sort()
        if any(Path(name).suffix.lower() in PICTURES for name in files):
            yield Path(root)
        for name in files:
            if Path(name).suffix.lower() in VIDEOS and not name.startswith("."):
                yield Path(root, name)
