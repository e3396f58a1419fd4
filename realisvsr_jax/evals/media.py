"""Pictures of the report: of each clip the middle frame, and one row of pixels over time.

Their names have the version of the clip in them, so that a report that is made anew never shows
old ones, and one that is there stays whole until its page is replaced.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from realisvsr_jax.evals.footage import Footage, Pair, to_bytes
from realisvsr_jax.files import replacing

FOLDER = "media"
EXACT = 2**21  # pixels of a frame that is kept as PNG; larger ones are JPEG of quality 95


@dataclass(frozen=True)
class Media:
    """Paths in the report's folder; `index` is the frame's number, `row` the profile's."""

    frame: str
    profile: str
    index: int
    row: int
    height: int
    width: int


class Recorder:
    """Keeps what the pictures need while a clip is read; `write` makes those that are not there."""

    def __init__(self, output: Path, clip: str, footage: Pair, row: float):
        self._output = output
        self.media = _media(clip, footage.restored, footage, row)
        self.truth = footage.reference and _media(clip, footage.reference, footage, row)
        both = [self.media, self.truth] if self.truth else [self.media]
        self._missing = [m for m in both if not _there(output, m)]
        self._frames: dict[str, np.ndarray] = {}
        self._rows: dict[str, list[np.ndarray]] = {m.profile: [] for m in self._missing}
        self._at = 0

    @property
    def whole(self) -> bool:
        """Whether all pictures are there."""
        return not self._missing

    def add(self, restored: np.ndarray, reference: np.ndarray | None) -> None:
        """The next frame of both."""
        for media in self._missing:
            frame = restored if media is self.media else reference
            assert frame is not None
            self._rows[media.profile].append(to_bytes(frame[media.row]))
            if self._at == media.index:
                self._frames[media.frame] = to_bytes(frame).copy()
        self._at += 1

    def write(self) -> None:
        """After the last frame."""
        (self._output / FOLDER).mkdir(exist_ok=True)
        for media in self._missing:
            _write(self._output / media.frame, self._frames[media.frame])
            _write(self._output / media.profile, np.stack(self._rows[media.profile]))
        self._missing = []


def remove_others(output: Path, kept: set[str]) -> None:
    """Takes away pictures of earlier reports, of this module's naming alone."""
    for path in (output / FOLDER).glob("*"):
        ours = re.search(r"-[0-9a-f]{16}-\d+x\d+-(frame|row)\d+\.(png|jpg)$", path.name)
        if ours and f"{FOLDER}/{path.name}" not in kept:
            path.unlink(missing_ok=True)


def _media(clip: str, footage: Footage, pair: Pair, row: float) -> Media:
    height, width = pair.size
    index, line = footage.frames // 2, min(round(row * height), height - 1)
    slug = re.sub(r"[^A-Za-z0-9]+", "_", clip)[:40]
    stem = f"{FOLDER}/{slug}-{footage.version}-{width}x{height}"
    suffix = "png" if height * width <= EXACT else "jpg"
    return Media(
        *(f"{stem}-frame{index}.{suffix}", f"{stem}-row{line}.png", index, line, height, width)
    )


def _there(output: Path, media: Media) -> bool:
    return (output / media.frame).is_file() and (output / media.profile).is_file()


def _write(path: Path, rgb: np.ndarray) -> None:
    options: list[Any] = []
    if path.suffix == ".jpg":
        chroma = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, chroma]
    data = cv2.imencode(path.suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)[1]
    with replacing(path) as partial:
        partial.write_bytes(data.tobytes())
