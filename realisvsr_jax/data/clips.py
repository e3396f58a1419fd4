"""A clip that training may crop: a video file, or a folder of pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from realisvsr_jax.errors import InputError
from realisvsr_jax.video import read_clip, read_frames


@dataclass(frozen=True, slots=True)
class SourceClip:
    """A clip by its file or folder; `caption` is '' where there is none."""

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
