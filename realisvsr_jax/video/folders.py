"""A folder of pictures as a video: one file a frame, in natural order of their names."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from realisvsr_jax.errors import InputError
from realisvsr_jax.video.info import FOLDER_RATE, VideoInfo

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Whether a path is named as a picture."""
    return Path(path).suffix.lower() in PICTURES


def holds_pictures(path: str | os.PathLike[str]) -> bool:
    """Whether a path is read picture by picture: a folder, or a single one."""
    return Path(path).is_dir() or (is_picture(path) and Path(path).is_file())


def list_frames(folder: str | os.PathLike[str]) -> list[Path]:
    """The pictures of a folder in natural order: frame2 comes before frame10; or one picture.

    Raises InputError where there is no such folder, or no picture in it.
    """
    folder = Path(folder)
    if is_picture(folder) and folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; check the path")
    paths = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES and p.name[0] != "."]
    if not paths:
        raise InputError(f"{folder} has no frames; expected {', '.join(PICTURES)} files in it")
    return sorted(paths, key=lambda path: _natural(path.name))


def read_frames(
    folder: str | os.PathLike[str], start: int = 0, frames: int | None = None
) -> UInt8[np.ndarray, "T H W 3"]:
    """Frames `start` … `start + frames` of a folder, RGB.

    Raises InputError for a start beyond the end, an unreadable picture, and sizes that differ.
    """
    paths = _part(folder, start, frames)
    stacked = None
    for k, picture in enumerate(stream_frames(folder, start, frames)):
        stacked = np.empty((len(paths), *picture.shape), np.uint8) if stacked is None else stacked
        stacked[k] = picture
    assert stacked is not None
    return stacked


def stream_frames(
    folder: str | os.PathLike[str], start: int = 0, frames: int | None = None, deep: bool = False
) -> Iterator[np.ndarray]:
    """`read_frames` one at a time; uint16 with `deep`."""
    first: tuple[Path, np.ndarray] | None = None
    for path in _part(folder, start, frames):
        picture = _read_picture(path, deep)
        first = first or (path, picture)
        if picture.shape != first[1].shape:
            raise InputError(
                f"{folder}: {path.name} is {_size(picture)}, {first[0].name} is "
                f"{_size(first[1])}; frames of one video must have one size"
            )
        yield picture


def _part(folder: str | os.PathLike[str], start: int, frames: int | None) -> list[Path]:
    paths = list_frames(folder)
    if start >= len(paths):
        raise InputError(f"{folder} has {len(paths)} frames; start {start} is beyond its end")
    return paths[start : None if frames is None else start + frames]


def probe_frames(folder: str | os.PathLike[str]) -> VideoInfo:
    """VideoInfo of a folder, from its first picture; 25 frames a second by convention."""
    paths = list_frames(folder)
    height, width, _ = _read_picture(paths[0]).shape
    plain = _decode(paths[0], cv2.IMREAD_UNCHANGED)
    return VideoInfo(
        width=width,
        height=height,
        rate=FOLDER_RATE,
        time_base=1 / FOLDER_RATE,
        num_frames=len(paths),
        colorspace=0,
        bit_depth=16 if plain.dtype == np.uint16 else 8,
        has_alpha=plain.ndim == 3 and plain.shape[2] == 4,
    )


def write_picture(path: Path, rgb: np.ndarray) -> None:
    """One [H, W, 3] RGB frame, uint8 or uint16, as a PNG file."""
    _, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    path.write_bytes(data.tobytes())


def _read_picture(path: Path, deep: bool = False) -> np.ndarray:
    if not deep:
        return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    picture = cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH), cv2.COLOR_BGR2RGB)
    return picture if picture.dtype == np.uint16 else picture.astype(np.uint16) * 257


def _decode(path: Path, flags: int) -> np.ndarray:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    picture = cv2.imdecode(data, flags) if data.size else None
    if picture is None:
        raise InputError(f"{path} is not a picture that can be read; remove or replace it")
    return picture


def _natural(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"
