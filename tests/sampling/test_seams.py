"""Seams are scored: hard cuts and jumps show, fused tiles of the shipped model do not."""

import dataclasses

import numpy as np
import pytest

from realisvsr_jax.sampling.restore import load
from realisvsr_jax.sampling.scene import Options, SceneRestorer
from realisvsr_jax.sampling.seams import Lines, Score, pooled, seam_score, tile_lines, time_score
from realisvsr_jax.sampling.tiles import plan_tiles


def test_a_step_at_a_border_scores_high_and_noise_scores_one():
    rng = np.random.default_rng(0)
    untiled = rng.uniform(-0.5, 0.5, (2, 64, 96, 3)).astype(np.float32)
    lines = Lines((32,), (32, 64))
    noisy = untiled + rng.normal(0, 0.01, untiled.shape).astype(np.float32)
    assert seam_score(noisy, untiled, lines, (16, 16)).ratio == pytest.approx(1, abs=0.05)
    assert 0 < seam_score(noisy, untiled, lines, (16, 16)).error < 0.05
    noisy[:, :, 32:64] += 0.1
    assert seam_score(noisy, untiled, lines, (16, 16)).ratio > 3
    same = seam_score(untiled, untiled, lines, (16, 16))
    assert (same, same.ratio) == (Score(0.0, 0.0), 1.0)


def test_borders_of_tiles_and_half_a_tile():
    lines, shift = tile_lines(plan_tiles((1, 24, 40), (1, 24, 24), (0, 0, 8)), 4)
    assert (lines, shift) == (Lines((), (64, 96)), (48, 48))
    # Tiles that share their halves: half a tile on is another tile's border.
    lines, shift = tile_lines(plan_tiles((1, 24, 48), (1, 24, 24), (0, 0, 12)), 4)
    assert (lines, shift) == (Lines((), (48, 96, 144)), (48, 24))


def test_a_jump_between_windows_shows():
    moving = np.cumsum(np.full((9, 4, 4, 3), 0.1, np.float32), axis=0) - 0.5
    assert time_score(moving, [5]).ratio == pytest.approx(1, abs=1e-3)
    jumping = moving + np.where(np.arange(9) < 5, 0, 0.2)[:, None, None, None]
    assert time_score(jumping, [5]).ratio == pytest.approx(3, abs=0.01)
    assert time_score(jumping, [5], moving).ratio > 100


def picture(seed, side):
    """A texture of three scales, [1, side, side, 3]."""
    spectrum = np.fft.fft2(np.random.default_rng(seed).normal(size=(side, side, 3)), axes=(0, 1))
    squares = np.fft.fftfreq(side) ** 2
    falling = 1 / (0.02 + squares[:, None] + squares)[..., None]
    texture = np.fft.ifft2(spectrum * falling, axes=(0, 1)).real
    return np.float32(0.9 * texture / np.abs(texture).max())[None]


def test_fused_tiles_of_the_shipped_model_hide_their_borders_and_hard_cuts_do_not():
    """At 192×192 pixels; over textures, since one's own ratio scatters by 8%."""
    model = load()
    card, scores = model.card, {"fused": [], "cut": []}

    def restored(low, seed, overlap=card.overlap, **options):
        model.card = dataclasses.replace(card, overlap=overlap)
        scene = SceneRestorer(model, *low.shape[1:3], Options(seed=seed, color="none", **options))
        given = {"frames_in_scene": 1, "first_frame": 0}
        clip, _ = scene.restore(scene.windows(1)[0], low, None, **given)
        return clip, tile_lines(scene.layout.tiling(1), 4)

    for seed in range(4):
        low = picture(seed, 48)
        untiled, _ = restored(low, seed, tile=(192, 192))
        for name, overlap in (("fused", card.overlap), ("cut", (2, 0, 0))):
            clip, borders = restored(low, seed, overlap)
            scores[name].append(seam_score(clip, untiled, *borders))
    assert pooled(scores["fused"]).ratio < 1.05
    assert pooled(scores["cut"]).ratio > 1.2
