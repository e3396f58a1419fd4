"""A folder of pictures as a video: one file a frame, in natural order of their names."""

import os
import re
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from realisvsr_jax.errors import InputError
from realisvsr_jax.video.info import FOLDER_RATE, VideoInfo

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def list_frames(folder: str | os.PathLike[str]) -> list[Path]:
    """The pictures of a folder in natural order: frame2 comes before frame10.

    Raises InputError where there is no such folder, or no picture in it.
    """
    folder = Path(folder)
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
    paths = list_frames(folder)
    if start >= len(paths):
        raise InputError(f"{folder} has {len(paths)} frames; start {start} is beyond its end")
    paths = paths[start : None if frames is None else start + frames]
    first = _read_picture(paths[0])
    stacked = np.empty((len(paths), *first.shape), np.uint8)
    for k, path in enumerate(paths):
        picture = first if k == 0 else _read_picture(path)
        if picture.shape != first.shape:
            raise InputError(
                f"{folder}: {path.name} is {_size(picture)}, {paths[0].name} is {_size(first)}; "
                "frames of one video must have one size"
            )
        stacked[k] = picture
    return stacked


def probe_frames(folder: str | os.PathLike[str]) -> VideoInfo:
    """VideoInfo of a folder, from its first picture; 25 frames a second by convention."""
    paths = list_frames(folder)
    height, width, _ = _read_picture(paths[0]).shape
    return VideoInfo(
        width=width,
        height=height,
        rate=FOLDER_RATE,
        time_base=1 / FOLDER_RATE,
        num_frames=len(paths),
        colorspace=0,
    )


def write_picture(path: Path, rgb: np.ndarray) -> None:
    """One uint8 [H, W, 3] RGB frame as a PNG file."""
    _, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    path.write_bytes(data.tobytes())


def _read_picture(path: Path) -> np.ndarray:
    data = np.frombuffer(path.read_bytes(), np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise InputError(f"{path} is not a picture that can be read; remove or replace it")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _natural(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _size(picture: np.ndarray) -> str:
    return f"{picture.shape[1]}×{picture.shape[0]}"
