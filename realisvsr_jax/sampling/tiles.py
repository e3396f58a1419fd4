"""A latent too large for the network: overlapping tiles of one shape, fused at every step.

Each tile's velocity is a network call of its own, so its rotary positions start at 0, as those
of every training crop did. Where tiles overlap, the velocity is their weighted mean, with smooth
weights that sum to 1 (Bar-Tal et al., MultiDiffusion, Eq. 5), so that all tiles stay one sample.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent
from realisvsr_jax.errors import InputError

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Tiling:
    """Tiles of `size` (t, h, w) at every combination of the `starts` of each axis, ascending."""

    size: Size
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @property
    def count(self) -> int:
        """The number of tiles."""
        return math.prod(len(starts) for starts in self.starts)

    def corners(self) -> np.ndarray:
        """The first position of each tile, int32 [n, 3], the last axis fastest."""
        return np.array(list(itertools.product(*self.starts)), np.int32)

    def weights(self) -> list[np.ndarray]:
        """A tile's weights as three factors, float32 [n, t], [n, h] and [n, w].

        At each position of the latent the products sum to 1 over the tiles.
        """
        axes = [_axis_weights(starts, size) for starts, size in zip(self.starts, self.size)]
        tiles = itertools.product(*(range(len(starts)) for starts in self.starts))
        index = np.array(list(tiles)).T
        return [axis[i].astype(np.float32) for axis, i in zip(axes, index)]


def plan_tiles(latent: Size, tile: Size, overlap: Size) -> Tiling:
    """As few tiles as cover `latent` (t, h, w) and share at least `overlap`, spread evenly.

    A latent smaller than a tile has one tile of its own size along that axis. Raises InputError
    where the overlap is not smaller than the tile.
    """
    for name, size, shared in zip(("frames", "height", "width"), tile, overlap):
        if not 0 <= shared < size:
            raise InputError(
                f"tiles of {size} latent positions cannot overlap by {shared} ({name}); the "
                "overlap must be smaller than the tile"
            )
    size = tuple(min(pair) for pair in zip(tile, latent))
    starts = tuple(_axis_starts(*axis) for axis in zip(latent, size, overlap))
    return Tiling(size, starts)  # pyright: ignore[reportArgumentType]


def latent_tile(
    tile: Size | None, overlap: Size, factors: tuple[int, int], patch: Size
) -> tuple[Size, Size] | None:
    """A tile and its overlap in latent positions, from (frames, height, width) in pixels.

    `factors` are the VAE's, of time and of space. What does not divide is rounded down, to
    whole patches. None, no limit, stays None. Raises InputError for a tile under one patch.
    """
    if tile is None:
        return None
    time, space = factors
    frames, height, width = tile
    positions = (1 + (frames - 1) // time, height // space, width // space)
    size = tuple(p - p % whole for p, whole in zip(positions, patch))
    if min(size) < 1:
        raise InputError(
            f"a tile of {frames}×{height}×{width} (frames, height, width) is smaller than one "
            f"patch of the network; the sides must be {space * patch[1]} pixels or more"
        )
    shared = (overlap[0] // time, overlap[1] // space, overlap[2] // space)
    return size, shared  # pyright: ignore[reportReturnType]


def fuse(network: Callable[..., Latent], tiling: Tiling, *latents: Latent) -> Latent:
    """`network(*latents)`, tile by tile; what it returns is the weighted mean of its tiles.

    One tile runs at a time, so memory does not grow with the latent beyond the tiles' results.
    A single tile is the plain call.
    """
    if tiling.count == 1:
        return network(*latents)
    batch, _, _, _, channels = latents[0].shape
    corners = jnp.asarray(tiling.corners())

    def run(corner: Array) -> Latent:
        return network(*(_cut(latent, corner, tiling.size) for latent in latents))

    def add(fused: Latent, tile: tuple) -> tuple[Latent, None]:
        result, corner, t, h, w = tile
        weight = t[:, None, None, None] * h[:, None, None] * w[:, None]
        before = _cut(fused, corner, tiling.size)
        start = (0, *corner, 0)
        return jax.lax.dynamic_update_slice(fused, before + weight * result, start), None

    results = jax.lax.map(run, corners)
    empty = jnp.zeros((batch, *latents[0].shape[1:4], channels), results.dtype)
    fused, _ = jax.lax.scan(add, empty, (results, corners, *map(jnp.asarray, tiling.weights())))
    return fused


def _cut(latent: Latent, corner: Array, size: Size) -> Float[Array, "b t2 h2 w2 c"]:
    sizes = (latent.shape[0], *size, latent.shape[-1])
    return jax.lax.dynamic_slice(latent, (0, *corner, 0), sizes)


def _axis_starts(length: int, size: int, overlap: int) -> tuple[int, ...]:
    if length == size:
        return (0,)
    count = math.ceil((length - overlap) / (size - overlap))
    return tuple(round(i * (length - size) / (count - 1)) for i in range(count))


def _axis_weights(starts: tuple[int, ...], size: int) -> np.ndarray:
    """Weights [tiles, size] that sum to 1 at each position; sin² windows, normalised."""
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    total = np.zeros(starts[-1] + size)
    for start in starts:
        total[start : start + size] += window
    return np.stack([window / total[start : start + size] for start in starts])
