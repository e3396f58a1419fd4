"""What decoding and encoding by tiles take: bytes on the device and on the host, and work.

Counts come from the layers' own shapes; all numbers are float32 and of a chunk within a stream,
one latent frame. Of a program's temporaries there is an estimate only: the compiler knows better
(`benchmarks/vae_tiles.py` holds one against the other).
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from realisvsr_jax.errors import InputError
from realisvsr_jax.vae import regions
from realisvsr_jax.vae.blocks import ATTENTION_CHUNK, KEY_CHUNK, Downsample, ResidualBlock, Upsample
from realisvsr_jax.vae.causal_conv import CausalConv
from realisvsr_jax.vae.regions import (
    Grid,
    Level,
    Sides,
    changes_resolution,
    convolutions,
    cut_axis,
    whole_and_tiled,
)
from realisvsr_jax.vae.wan_vae import Exit, Middle, VAEConfig, WanVAE

Carried = Literal["caches", "features", "inputs"]
"""What a stream hands from window to window, the exact kind first; see `tiled.Carry`."""
BYTES = 4
ALIVE = 2.7
"""Arrays alive at a program's peak, in what its widest convolution reads, keeps and writes: the
most that the CPU's compiler took (1.9 to 2.2 as one convolution, 2.2 to 2.7 as a sum of taps)."""


@dataclass(frozen=True)
class Layer:
    """Of one layer and one chunk, in numbers for each position of its input.

    `cache` it keeps, `alive` its widest convolution reads, keeps and writes, `work` in products.
    """

    level: int
    cache: float
    alive: float
    work: float


@dataclass(frozen=True)
class Half:
    """The layers that run whole and those that run tile by tile; `channels` pass between them."""

    whole: tuple[Layer, ...]
    tiled: tuple[Layer, ...]
    channels: int
    weights: int
    levels: tuple[tuple[Level, ...], tuple[Level, ...]]
    """The regions of the tiled layers along height and width."""


@dataclass(frozen=True)
class TilePlan:
    """Cores of `tile` latent positions for one picture size. Bytes are of one chunk and batch.

    `tile_bytes` and `whole_bytes` are the estimated peaks of the two programs on the device,
    `tile_cache_bytes` are in the former. `features_bytes` is what passes between the two programs,
    on the host, for each latent frame; `carry_bytes` is what windows hand on, by kind, on the
    host. `work` is relative to the tiled layers' work on the whole picture.
    """

    tile: Sides
    count: int
    tile_bytes: int
    whole_bytes: int
    tile_cache_bytes: int
    features_bytes: int
    carry_bytes: dict[Carried, int]
    work: float


@functools.lru_cache
def plan_tiles(
    config: VAEConfig,
    size: Sides,
    memory: int,
    *,
    decoding: bool,
    batch: int = 1,
    warm_up: int = 8,
) -> TilePlan:
    """The tiles of least work whose programs take at most `memory` bytes of the device each.

    `size` is (H, W) in pixels. Raises InputError where no tile fits, or the layers that run whole
    do not.
    """
    latent = size[0] // config.spatial_factor, size[1] // config.spatial_factor
    layers = describe(config, decoding)
    heights, widths = (
        [cut_axis(length, core, levels) for core in _cores(length)]
        for length, levels in zip(latent, layers.levels)
    )
    grids = [Grid(height, width) for height in heights for width in widths]
    needed = {grid: _tile_bytes(layers, grid, batch) for grid in grids}
    fitting = [grid for grid in grids if needed[grid] <= memory]
    whole = _whole_bytes(config, latent, layers, batch)
    if not fitting or whole > memory:
        least = max(whole, min(needed.values()))
        raise InputError(
            f"the VAE needs {least / 1e9:.3g} GB for {size[1]}×{size[0]} pixels in the smallest "
            f"tiles, {memory / 1e9:.3g} GB are given; give more memory, a smaller batch or a "
            "smaller picture"
        )
    return plan_of(
        config,
        latent,
        min(fitting, key=lambda grid: _work(layers, grid)),
        batch,
        warm_up,
        decoding=decoding,
    )


def stream_bytes(config: VAEConfig, size: Sides, *, decoding: bool) -> list[int]:
    """Bytes of the caches of a stream that is not tiled, for pictures of `size` (H, W).

    First those of the layers that `tiled` runs whole, then of each resolution in their order.
    """
    latent = size[0] // config.spatial_factor, size[1] // config.spatial_factor
    layers = describe(config, decoding)
    found = [_total(layers.whole, "cache", [latent])]
    for i, level in enumerate(layers.levels[0][:-1]):
        here = [layer for layer in layers.tiled if layer.level == i]
        area = latent[0] * latent[1] * level.scale**2
        found.append(area * sum(layer.cache for layer in here))
    return [BYTES * round(count) for count in found]


def exact_warm_up(config: VAEConfig, *, decoding: bool) -> int:
    """The latent frames of warm-up behind which tiles that start anew are exact.

    As many as the tiled layers look back on, and the one that starts the stream, which is treated
    differently from all others.
    """
    vae = nnx.eval_shape(lambda: WanVAE(config, rngs=nnx.Rngs(0)))
    frames = 0
    for layer in reversed(whole_and_tiled(vae.decoder if decoding else vae.encoder)[1]):
        if isinstance(layer, Upsample | Downsample):
            if layer.time is not None:
                back = layer.time.kernel.shape[0] - 1
                up = isinstance(layer, Upsample)
                frames = -(-frames // 2) + back if up else 2 * frames + back - 1
        else:
            frames += sum(conv.kernel.shape[0] - 1 for conv in convolutions(layer))
    return 1 + (frames if decoding else -(-frames // config.temporal_factor))


def carried_bytes(
    config: VAEConfig, latent: Sides, grid: Grid, warm_up: int, *, decoding: bool
) -> dict[Carried, int]:
    """Host bytes of each kind of `tiled.Carry`, the exact one first, for a batch of one."""
    layers = describe(config, decoding)
    area, pixels = latent[0] * latent[1], config.spatial_factor**2
    whole = _total(layers.whole, "cache", [latent])
    tiles = grid.count * _total(layers.tiled, "cache", grid.sizes())
    frames = 3 * pixels * area * (1 + config.temporal_factor * (warm_up - 1))
    features = warm_up * area * layers.channels if decoding else frames
    inputs = warm_up * area * config.z_dim if decoding else frames
    found: dict[Carried, float] = {
        "caches": whole + tiles,
        "features": whole + features,
        "inputs": inputs,
    }
    return {kind: BYTES * round(count) for kind, count in found.items()}


def kind_within(needed: Mapping[Carried, int], budget: int | None) -> Carried:
    """The first kind, the most exact, that takes at most `budget` bytes, else the last."""
    *exact, last = needed
    for kind in exact:
        if budget is None or needed[kind] <= budget:
            return kind
    return last


def plan_of(
    config: VAEConfig, latent: Sides, grid: Grid, batch: int, warm_up: int, *, decoding: bool
) -> TilePlan:
    """What the tiles of `grid` take for pictures of `latent` positions (h, w)."""
    layers = describe(config, decoding)
    carry = carried_bytes(config, latent, grid, warm_up, decoding=decoding)
    untiled = Grid(*(cut_axis(length, length, axis) for length, axis in zip(latent, layers.levels)))
    return TilePlan(
        tile=(grid.height.core, grid.width.core),
        count=grid.count,
        tile_bytes=_tile_bytes(layers, grid, batch),
        whole_bytes=_whole_bytes(config, latent, layers, batch),
        tile_cache_bytes=BYTES * round(batch * _total(layers.tiled, "cache", grid.sizes())),
        features_bytes=BYTES * batch * latent[0] * latent[1] * layers.channels,
        carry_bytes={kind: batch * count for kind, count in carry.items()},
        work=_work(layers, grid) / _work(layers, untiled),
    )


def _tile_bytes(layers: Half, grid: Grid, batch: int) -> int:
    sizes = grid.sizes()
    peak = ALIVE * max((layer.alive * _area(sizes, layer) for layer in layers.tiled), default=0)
    cache = _total(layers.tiled, "cache", sizes)
    return layers.weights + BYTES * round(batch * (cache + peak))


def _whole_bytes(config: VAEConfig, latent: Sides, layers: Half, batch: int) -> int:
    area = latent[0] * latent[1]
    peak = ALIVE * area * max(layer.alive for layer in layers.whole)
    # The compiler copies the frames that new ones replace, half of the caches.
    caches = 1.5 * _total(layers.whole, "cache", [latent])
    # Scores of a chunk of queries and their softmax; q, k, v and the sum.
    channels = config.base_dim * config.multipliers[-1]
    at_once = min(area, ATTENTION_CHUNK) * (area if area <= 2 * KEY_CHUNK else KEY_CHUNK)
    scores = 2 * at_once + 4 * channels * area
    return layers.weights + BYTES * round(batch * (caches + max(peak, scores)))


def _work(layers: Half, grid: Grid) -> float:
    return grid.count * _total(layers.tiled, "work", grid.sizes())


@functools.lru_cache
def describe(config: VAEConfig, decoding: bool) -> Half:
    """The layers of the encoder or the decoder, from their shapes at one latent position."""
    vae = nnx.eval_shape(lambda: WanVAE(config, rngs=nnx.Rngs(0)))
    half = vae.decoder if decoding else vae.encoder
    whole, tiled = whole_and_tiled(half)
    side = 1 if decoding else config.spatial_factor
    channels = config.z_dim if decoding else 3
    chunk = (1, 1) if decoding else (1, config.temporal_factor)
    first, later = (jax.ShapeDtypeStruct((1, t, side, side, channels), np.float32) for t in chunk)
    x = first, later
    order = (whole, tiled) if decoding else (tiled, whole)
    found = []
    between = channels
    for layers in order:
        rows, level = [], 0
        for layer in layers:
            y, cache = _shapes(layer, x)
            rows.append(_layer(layer, level, x[1].shape, y[1].shape, cache))
            level += changes_resolution(layer)
            x = y
        if not found:
            between = x[1].shape[-1]
        found.append(tuple(rows))
    whole_rows, tiled_rows = found if decoding else found[::-1]
    weights = sum(BYTES * leaf.size for leaf in jax.tree.leaves(nnx.state(half)))
    axes = regions.levels(tiled, 0), regions.levels(tiled, 1)
    return Half(whole_rows, tiled_rows, between, weights, axes)


def _shapes(layer: Any, x: tuple[Any, Any]) -> tuple[tuple[Any, Any], Any]:
    """Outputs for a stream's first chunk and for a later one, and the cache."""
    parts = [layer.norm, layer.conv] if isinstance(layer, Exit) else [layer]
    graphs, states = zip(*(nnx.split(part) for part in parts))

    def call(states: Any, x: Any, cache: Any) -> Any:
        merged = [nnx.merge(graph, state) for graph, state in zip(graphs, states)]
        return (Exit(*merged) if isinstance(layer, Exit) else merged[0])(x, cache)

    first, cache = jax.eval_shape(call, states, x[0], None)
    later, cache = jax.eval_shape(call, states, x[1], cache)
    return (first, later), cache


def _layer(layer: Any, level: int, x: Any, y: Any, cache: Any) -> Layer:
    """`x` and `y` are shapes [b, t, h, w, c] of a later chunk."""
    area = x[2] * x[3]
    kept = sum(leaf.size for leaf in jax.tree.leaves(cache)) / area
    alive, work = 0.0, 0.0
    for conv in _all_convolutions(layer):
        taps, _, _, inputs, outputs = conv.kernel.shape
        early = isinstance(layer, Upsample) and conv is layer.time
        grown = 1.0 if early else y[2] * y[3] / area
        early |= isinstance(layer, Downsample) and conv is layer.space
        frames = x[1] if early else y[1]
        read = (frames + taps - 1) * inputs * max(grown, 1.0)
        alive = max(alive, x[1] * x[4] + read + frames * outputs * grown)
        work += frames * grown * conv.kernel.size
    return Layer(level, kept, alive, work)


def _all_convolutions(layer: Any) -> list[CausalConv]:
    if isinstance(layer, Middle):
        return [*_all_convolutions(layer.before), *_all_convolutions(layer.after)]
    convs = convolutions(layer)
    if isinstance(layer, ResidualBlock) and layer.shortcut is not None:
        convs.append(layer.shortcut)
    if isinstance(layer, Upsample | Downsample) and layer.time is not None:
        convs.append(layer.time)
    return convs


def _cores(length: int) -> list[int]:
    """Every core that some number of tiles along an axis leads to."""
    return sorted({-(-length // count) for count in range(1, length + 1)})


def _total(layers: Any, what: str, sizes: Any) -> float:
    return sum(getattr(layer, what) * _area(sizes, layer) for layer in layers)


def _area(sizes: Any, layer: Layer) -> int:
    height, width = sizes[layer.level]
    return height * width
