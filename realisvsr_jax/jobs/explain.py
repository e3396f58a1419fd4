"""Whether the tiles of a restoration show: a clip's first window with them and without."""

import itertools
from collections.abc import Iterator

import numpy as np

from realisvsr_jax.errors import InputError
from realisvsr_jax.jobs.plan import counted
from realisvsr_jax.jobs.released import Released, SceneOf
from realisvsr_jax.jobs.single import Request
from realisvsr_jax.sampling.seams import seam_score, tile_lines
from realisvsr_jax.sampling.windows import frames_of
from realisvsr_jax.video import stream_video

WITHIN = 1.05  # a ratio up to this is no visible border


def explain_seams(request: Request, weights: Released) -> Iterator[str]:
    """The tiles and their score in lines; nothing is written.

    Restores the first window twice, of the same seed. Raises InputError where there is one tile
    only, and where the untiled restoration needs more memory than there is.
    """
    info, frames = stream_video(request.input, request.start, request.frames)
    layout = weights.layout(info)
    lines, shift = tile_lines(layout.tiling(1), layout.padded[0] // layout.latent[0])
    height, width = layout.size
    if not lines.rows and not lines.columns:
        raise InputError(
            f"{request.input}: its result of {width}×{height} is one tile, which has no borders; "
            "give a smaller --tile HEIGHTxWIDTH"
        )
    longest = len(frames_of(range(layout.window), layout.factor))
    clip = np.stack([frame for frame, _ in itertools.islice(frames, longest)])
    scenes = (weights.scene(info), weights.untiled(info))
    tiled, untiled = (_first_window(scene, clip) for scene in scenes)
    score = seam_score(tiled, untiled, lines, shift)
    yield f"{counted(len(tiled), 'frame')} of {width}×{height}, with tiles and without"
    yield f"borders at rows {_listed(lines.rows)}, columns {_listed(lines.columns)}"
    yield (
        f"what tiling changed has a gradient of {score.at:.5f} across the borders, "
        f"{score.elsewhere:.5f} across the same grid {shift[0]} and {shift[1]} pixels on, of 2"
    )
    verdict = "they show"
    if score.ratio <= WITHIN:
        verdict = "within 5%, they do not show"
    elif score.ratio - 2 * score.error <= WITHIN:
        verdict = "too few borders to tell it from 5%; a larger result has more"
    yield f"ratio {score.ratio:.3f} ± {score.error:.3f}: {verdict}"


def _first_window(scene: SceneOf, clip: np.ndarray) -> np.ndarray:
    window = scene.windows(len(clip))[0]
    restored, _ = scene.restore(
        window, clip[: len(window.reads)], None, frames_in_scene=len(clip), first_frame=0
    )
    return restored


def _listed(pixels: tuple[int, ...]) -> str:
    return ", ".join(map(str, pixels)) or "none"
