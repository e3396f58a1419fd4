"""Whether tiles and windows show: what changes at their borders against what changes elsewhere."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from realisvsr_jax.sampling.tiles import Tiling

Frames = Shaped[np.ndarray, "T H W 3"]


@dataclass(frozen=True)
class Lines:
    """Numbers of pixels before which something begins or ends, along height and along width."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """Mean absolute change at the borders and elsewhere, in [−1, 1] pixels; 1 is no border.

    `error` is the ratio's standard error, by how much borders differ among themselves.
    """

    at: float
    elsewhere: float
    error: float = 0.0

    @property
    def ratio(self) -> float:
        """Above 1 where borders show."""
        if self.elsewhere:
            return self.at / self.elsewhere
        return math.inf if self.at else 1.0


def seam_score(output: Frames, untiled: Frames, lines: Lines, shift: tuple[int, int]) -> Score:
    """Of the tiles' borders: the gradient across `lines` of what tiling changed.

    Both clips are uint8 or floats in [−1, 1]; `untiled` was restored without tiles, of the same
    seed. Elsewhere is the same grid shifted by `shift` (rows, columns), half a tile, both ways, as
    far as it lies in the picture and off the lines.
    """
    change = _floats(output) - _floats(untiled)
    at, elsewhere = [], []
    for axis, (borders, by) in enumerate(zip((lines.rows, lines.columns), shift), start=1):
        gradient = np.abs(np.diff(change, axis=axis)).mean(axis=(0, 3 - axis, 3))
        at.extend(gradient[line - 1] for line in borders)
        shifted = {line + sign * by for line in borders for sign in (-1, 1)} - set(borders)
        elsewhere.extend(gradient[line - 1] for line in shifted if 0 < line <= len(gradient))
    found = Score(*(float(np.mean(lines)) if lines else 0.0 for lines in (at, elsewhere)))
    if not (found.at and found.elsewhere):
        return found
    relative = math.hypot(
        *(np.std(lines) / np.mean(lines) / math.sqrt(len(lines)) for lines in (at, elsewhere))
    )
    return dataclasses.replace(found, error=found.ratio * relative)


def time_score(
    output: Frames, borders: Sequence[int], untiled: Frames | None = None, factor: int = 1
) -> Score:
    """Of the windows' borders: the change from the frame before each of `borders` to it.

    Elsewhere is where the other latent frames begin, each of `factor` frames but the first: the
    VAE's own changes are larger there than within one. With `untiled`, a clip that was restored in
    one window, only the difference from it counts, so that its own motion does not.
    """
    video = _floats(output) - (0.0 if untiled is None else _floats(untiled))
    change = np.abs(np.diff(video, axis=0)).mean(axis=(1, 2, 3))
    frames = np.arange(1, len(video))
    at = np.isin(frames, list(borders))
    elsewhere = ~at & ((frames - 1) % factor == 0)
    return Score(*(float(change[rows].mean()) if rows.any() else 0.0 for rows in (at, elsewhere)))


def pooled(scores: Sequence[Score]) -> Score:
    """Of several clips: one's own borders are too few for its ratio to say much."""
    at, elsewhere = ([getattr(score, name) for score in scores] for name in ("at", "elsewhere"))
    return Score(float(np.mean(at)), float(np.mean(elsewhere)))


def tile_lines(tiling: Tiling, factor: int) -> tuple[Lines, tuple[int, int]]:
    """The borders of the tiles within the picture, in pixels, and half a tile.

    `factor` is pixels a latent position. Both ends of a tile are borders. Where half a tile leads
    from borders to borders, as between tiles that share their halves, a part of it is taken.
    """
    found, shift = [], []
    for starts, size in zip(tiling.starts[1:], tiling.size[1:]):
        whole = starts[-1] + size
        edges = {edge for start in starts for edge in (start, start + size)} - {0, whole}
        by = size // 2
        while (
            edges and by > 1 and {edge + by for edge in edges} <= {*edges, *range(whole, 2 * whole)}
        ):
            by //= 2
        found.append(tuple(sorted(edge * factor for edge in edges)))
        shift.append(by * factor)
    return Lines(*found), (shift[0], shift[1])


def _floats(frames: Frames) -> np.ndarray:
    if frames.dtype == np.uint8:
        return frames.astype(np.float32) / 127.5 - 1.0
    return frames.astype(np.float32)
