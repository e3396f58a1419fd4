"""Whether tiles and windows of the shipped model show, by `sampling.seams`.

    python -m benchmarks.seams --output out/seams

Tiles: textures of random phase, one frame, each against the same restored untiled; the release's
tiles fused at every step and at the end, and quarters of the picture cut hard. Windows: a texture
that moves, restored in the release's windows that continue one another, and in windows that know
nothing of one another, by themselves and against one window. A ratio is of changes at borders to
those elsewhere, pooled, beside the deviation over the clips. Writes seams.json and seams.md.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from realisvsr_jax.errors import plain_messages
from realisvsr_jax.evals import pages
from realisvsr_jax.jobs.released import WHOLE
from realisvsr_jax.sampling.restore import Restorer, load
from realisvsr_jax.sampling.scene import Options, SceneRestorer
from realisvsr_jax.sampling.seams import Score, pooled, seam_score, tile_lines, time_score

Rows = list[dict[str, Any]]


def main() -> None:
    """Reads the command line, measures and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("out/seams"), help="folder to fill")
    parser.add_argument("--sides", type=int, nargs="+", default=[160, 224], help="of the results")
    parser.add_argument("--clips", type=int, default=16, help="of each kind")
    parser.add_argument("--frames", type=int, default=17, help="of a clip in windows")
    flags = parser.parse_args()
    plain_messages()
    model = load()
    rows = [row for side in flags.sides for row in in_space(model, side, flags.clips)]
    rows += in_time(model, 96, flags.frames, flags.clips)
    flags.output.mkdir(parents=True, exist_ok=True)
    (flags.output / "seams.json").write_text(json.dumps(rows, indent=1) + "\n")
    cells = [[f"{row[name]:.3f}" for name in ("ratio", "deviation", "at")] for row in rows]
    heads = ["", "at borders : elsewhere", "deviation", "change at borders"]
    table = pages.table(heads, [[row["way"], *cell] for row, cell in zip(rows, cells)])
    (flags.output / "seams.md").write_text(table)
    print(table)


def in_space(model: Restorer, side: int, clips: int) -> Rows:
    """Tiles, fused and cut."""
    half = (side // 2, side // 2)
    ways: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
        "fused at every step": (model.card.overlap, {}),
        "fused at the end": (model.card.overlap, {"fuse": "end"}),
        "quarters, cut hard": ((model.card.overlap[0], 0, 0), {"tile": half}),
    }
    found: dict[str, list[Score]] = {name: [] for name in ways}
    for seed in range(clips):
        low = textures(seed, 1, side // 4)
        untiled, _ = restored(model, low, seed, model.card.overlap, {"tile": (WHOLE, WHOLE)})
        for name, (overlap, options) in ways.items():
            clip, scene = restored(model, low, seed, overlap, options)
            borders = tile_lines(scene.layout.tiling(1), model.vae_config.spatial_factor)
            found[name].append(seam_score(clip, untiled, *borders))
    return [_row(f"{side}×{side}, {name}", scores) for name, scores in found.items()]


def in_time(model: Restorer, side: int, frames: int, clips: int) -> Rows:
    """Windows that continue one another, and those that do not; each against one window."""
    ways = {"windows that continue": model.card.overlap, "windows apart": (0, 0, 0)}
    found: dict[str, list[Score]] = {}
    factor = model.vae_config.temporal_factor
    for seed in range(clips):
        low = textures(seed, frames, side // 4)
        whole, _ = restored(model, low, seed, model.card.overlap, {"window": WHOLE})
        borders = []
        for name, overlap in ways.items():
            clip, scene = restored(model, low, seed, overlap, {})
            borders = [window.writes.start for window in scene.windows(frames)[1:]]
            for what, against in (("", None), (", against one window", whole)):
                score = time_score(clip, borders, against, factor)
                found.setdefault(name + what, []).append(score)
        score = time_score(whole, borders, factor=factor)
        found.setdefault("one window, at the same frames", []).append(score)
    return [_row(f"{frames} frames, {name}", scores) for name, scores in found.items()]


def restored(
    model: Restorer,
    low: np.ndarray,
    seed: int,
    overlap: tuple[int, int, int],
    options: dict[str, Any],
) -> tuple[np.ndarray, SceneRestorer]:
    """A clip of one scene without colour correction, with another overlap than the release's."""
    card = model.card
    try:
        model.card = dataclasses.replace(card, overlap=overlap)
        settings = Options(seed=seed, color="none", **options)
        scene = SceneRestorer(model, low.shape[1], low.shape[2], settings)
    finally:
        model.card = card
    parts, state = [], None
    for window in scene.windows(len(low)):
        read = low[window.reads.start : window.reads.stop]
        part, state = scene.restore(window, read, state, frames_in_scene=len(low), first_frame=0)
        parts.append(part)
    return np.concatenate(parts), scene


def textures(seed: int, frames: int, side: int) -> np.ndarray:
    """A texture with the spectrum of pictures that moves by a pixel a frame."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.fft2(rng.normal(size=(side, side, 3)), axes=(0, 1))
    squares = np.fft.fftfreq(side) ** 2
    falling = 1 / (0.02 + squares[:, None] + squares)[..., None]
    texture = np.fft.ifft2(spectrum * falling, axes=(0, 1)).real
    texture = np.float32(0.9 * texture / np.abs(texture).max())
    return np.stack([np.roll(texture, shift, axis=1) for shift in range(frames)])


def _row(way: str, scores: list[Score]) -> dict[str, Any]:
    together = pooled(scores)
    deviation = float(np.std([score.ratio for score in scores]))
    return {"way": way, "ratio": together.ratio, "deviation": deviation, "at": together.at}


if __name__ == "__main__":
    main()
