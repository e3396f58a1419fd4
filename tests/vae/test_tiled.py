"""Decoding and encoding by tiles: equal to the whole, as far as the halo and the carry reach."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
from flax import nnx
from random_networks import drawn, fast_jit

from realisvsr_jax.errors import InputError
from realisvsr_jax.vae import regions, tiled
from realisvsr_jax.vae.regions import whole_and_tiled
from realisvsr_jax.vae.tile_plan import carried_bytes, exact_warm_up, plan_tiles, stream_bytes
from realisvsr_jax.vae.tiled import TiledDecoder, TiledEncoder
from realisvsr_jax.vae.wan_vae import TINY_VAE, WAN_VAE, VAEConfig, WanVAE

# Two and three down-samplings; statistics away from 0 and 1.
NARROW = {"base_dim": 4, "z_dim": 3, "mean": (0.1, -0.4, 0.7), "std": (0.5, 1.5, 2.0)}
FEW = {"encoder_blocks": 1, "decoder_blocks": 1, "conv": "native"}
WAN, TINY = (dataclasses.replace(config, **NARROW, **FEW) for config in (WAN_VAE, TINY_VAE))
LAYOUTS = {"wan": WAN, "tiny": TINY}
LATENT, TILE = (11, 13), (4, 5)  # cores of 4×5, which do not divide the sides


@functools.cache
def random_vae(layout: str) -> WanVAE:
    return drawn(lambda: WanVAE(LAYOUTS[layout], rngs=nnx.Rngs(0)))


def pixels(config: VAEConfig) -> tuple[int, int]:
    return LATENT[0] * config.spatial_factor, LATENT[1] * config.spatial_factor


def latents(frames: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((1, frames, *LATENT, 3)).astype(np.float32)


def video(config: VAEConfig, frames: int) -> np.ndarray:
    shape = (1, frames, *pixels(config), 3)
    return np.random.default_rng(2).uniform(-1, 1, shape).astype(np.float32)


@functools.cache
def whole(layout: str, what: str, frames: int) -> np.ndarray:
    vae = random_vae(layout)
    x = latents(frames) if what == "decode" else video(vae.config, frames)
    return np.asarray(fast_jit(lambda vae, x: getattr(vae, what)(x))(vae, x))


def in_windows(run, x: np.ndarray, *lengths: int) -> np.ndarray:
    carry, parts = None, []
    for part in np.split(x, np.cumsum(lengths)[:-1], axis=1):
        y, carry = run(part, carry)
        parts.append(y)
    return np.concatenate(parts, axis=1)


def error(ours: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_decoding_by_tiles_in_windows_equals_the_whole_and_compiles_twice(layout, monkeypatch):
    vae = random_vae(layout)
    traced = counted(monkeypatch)
    decoder = TiledDecoder(vae, pixels(vae.config), TILE)
    ours = in_windows(decoder.decode, latents(3), 1, 2)
    assert error(ours, whole(layout, "decode", 3)) < 1e-5
    assert decoder.grid.count == 9
    assert len(traced) == 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_encoding_by_tiles_in_windows_equals_the_whole_and_compiles_twice(layout, monkeypatch):
    vae = random_vae(layout)
    traced = counted(monkeypatch)
    encoder = TiledEncoder(vae, pixels(vae.config), TILE)
    ours = in_windows(encoder.encode, video(vae.config, 5), 1, 4)
    assert error(ours, whole(layout, "encode", 5)) < 1e-5
    assert len(traced) == 2


def counted(monkeypatch) -> list:
    """Grows with each trace of a tile's program."""
    traced, through = [], tiled._through_region
    monkeypatch.setattr(tiled, "_through_region", lambda *a: traced.append(a) or through(*a))
    return traced


def test_halos_are_those_of_the_layers():
    """Wan's: 7 positions around the tiled layers, 13 around all that attention does not see."""
    vae = nnx.eval_shape(lambda: WanVAE(WAN_VAE, rngs=nnx.Rngs(0)))
    layers = whole_and_tiled(vae.decoder)[1]
    halos = [(level.scale, level.before, level.after) for level in regions.levels(layers, 0)]
    assert halos == [(1, 7, 7), (2, 12, 12), (4, 10, 10), (8, 7, 7), (8, 0, 0)]
    after_attention = vae.decoder.layers()[2:]
    assert regions.levels(after_attention, 0)[0] == regions.Level(1, 13, 13)
    with pytest.raises(TypeError, match="Middle sees the whole picture"):
        regions.levels(vae.decoder.layers()[1:], 0)


def shrunk(levels, which: int, by: int):
    """Halos with one smaller than computed, and the later ones inside it."""
    made = []
    for i, level in enumerate(levels):
        before, after = level.before, level.after
        if i == which:
            before, after = before - by, after - by
        if made:
            last = made[-1]
            before = min(before, last.before * level.scale // last.scale)
            after = min(after, last.after * level.scale // last.scale)
        made.append(regions.Level(level.scale, before, after))
    return tuple(made)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_smaller_halo_breaks_decoding(which, monkeypatch):
    vae, levels = random_vae("tiny"), regions.levels
    monkeypatch.setattr(regions, "levels", lambda *a: shrunk(levels(*a), which, 1))
    ours, _ = TiledDecoder(vae, pixels(vae.config), TILE).decode(latents(1))
    assert error(ours, whole("tiny", "decode", 3)[:, :1]) > 3e-5


@pytest.mark.parametrize("which", [0, 1])
def test_a_smaller_halo_breaks_encoding(which, monkeypatch):
    """Regions that are halved have even halos, so the next smaller one is smaller by two."""
    vae, levels = random_vae("tiny"), regions.levels
    monkeypatch.setattr(regions, "levels", lambda *a: shrunk(levels(*a), which, 2))
    ours, _ = TiledEncoder(vae, pixels(vae.config), TILE).encode(video(vae.config, 1))
    assert error(ours, whole("tiny", "encode", 5)[:, :1]) > 3e-5


@pytest.mark.parametrize("what", ["decode", "encode"])
def test_the_carry_is_what_was_counted_and_the_error_falls_with_the_warm_up(what):
    vae, decoding = random_vae("tiny"), what == "decode"
    make = TiledDecoder if decoding else TiledEncoder
    stream = make(vae, pixels(vae.config), LATENT)  # one tile, of the whole picture
    x = latents(12) if decoding else video(vae.config, 19)
    past, last = np.split(x, [-2], axis=1)
    run, enough = getattr(stream, what), exact_warm_up(vae.config, decoding=decoding)
    expected, errors = None, {}
    trials = itertools.product(("features", "inputs"), (1, enough))
    for kind, stream.warm_up in (("caches", 1), *trials):
        needed = carried_bytes(vae.config, LATENT, stream.grid, stream.warm_up, decoding=decoding)
        # Of an encoder this small, the frames of a warm-up can take more than its caches.
        stream.carry = needed[kind] if decoding else kind
        assert stream.carried() == kind
        _, carry = run(past)
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(carry)) == needed[kind]
        y, _ = run(last, carry)
        expected = y if expected is None else expected
        errors[kind, stream.warm_up] = float(np.abs(y - expected).mean())
    assert errors["features", enough] < 1e-6
    assert errors["inputs", 1] > 2 * errors["inputs", enough] > 1e-3
    assert errors["features", 1] > 1e-2


def test_the_planner_counts_the_caches_of_a_whole_stream():
    """The issue's figures: some 77 GB at 2160×3840, 45 of them in the last stage."""
    vae = nnx.eval_shape(lambda: WanVAE(WAN_VAE, rngs=nnx.Rngs(0)))
    z = jax.ShapeDtypeStruct((1, 1, 270, 480, 16), np.float32)
    _, cache = jax.eval_shape(lambda vae, z: vae.decode_chunk(z, None), vae, z)
    counted = stream_bytes(WAN_VAE, (2160, 3840), decoding=True)
    assert sum(counted) == sum(4 * leaf.size for leaf in jax.tree.leaves(cache))
    assert 76e9 < sum(counted) < 79e9
    assert 44e9 < counted[-1] < 46e9


def test_a_plan_fits_and_more_memory_means_less_work():
    plans = [
        plan_tiles(WAN_VAE, (1088, 1920), memory, decoding=True) for memory in (4 * 10**9, 10**10)
    ]
    assert plans[0].tile_bytes <= 4e9 < plans[1].tile_bytes <= 1e10
    assert 1 < plans[1].work < plans[0].work
    with pytest.raises(
        InputError, match=r"needs \d+\.\d+ GB for 1920×1088 pixels .* 1 GB are given"
    ):
        plan_tiles(WAN_VAE, (1088, 1920), 10**9, decoding=True)


def test_other_sizes_are_refused():
    vae = random_vae("tiny")
    with pytest.raises(ValueError, match="multiples of 4 pixels, not 44×30"):
        TiledDecoder(vae, (44, 30), TILE)
    decoder, encoder = (make(vae, (44, 52), TILE) for make in (TiledDecoder, TiledEncoder))
    with pytest.raises(ValueError, match="latents of 11×13, not 8×8"):
        decoder.decode(np.zeros((1, 1, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match="frames of 44×52, not 52×44"):
        encoder.encode(np.zeros((1, 1, 52, 44, 3), np.float32))
    with pytest.raises(ValueError, match="takes 1 \\+ 2k frames, the clip has 2"):
        encoder.encode(np.zeros((1, 2, 44, 52, 3), np.float32))
