"""A latent too large for the network: overlapping tiles of one shape, fused.

The network sees each tile by itself, so its rotary positions start at 0, as those of every
training crop did. Where tiles overlap, the result is their weighted mean, with smooth weights that
sum to 1. Fused at every step, all tiles stay one sample (Bar-Tal et al., MultiDiffusion, Eq. 5).
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
from realisvsr_jax.mesh import BATCH, constrain

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


def fuse(
    network: Callable[..., Latent], tiling: Tiling, *latents: Latent, batch: int = 1
) -> Latent:
    """`network(*latents)`, tile by tile; what it returns is the weighted mean of its tiles.

    `batch` tiles lie behind one another along the batch axis of one call, spread over the mesh in
    use along its batch axes, whose devices have to divide `batch`. Memory does not grow with the
    latent beyond the result. A single tile is the plain call.
    """
    if tiling.count == 1:
        return network(*latents)
    clips, _, _, _, channels = latents[0].shape
    corners, factors = tiling.corners(), tiling.weights()
    calls = -(-tiling.count // batch)
    # Tiles too many are the first one again, with weights of 0.
    missing = calls * batch - tiling.count
    corners = np.concatenate([corners, corners[:1].repeat(missing, 0)])
    factors = [np.pad(factor, ((0, missing), (0, 0))) for factor in factors]
    groups = [x.reshape(calls, batch, -1) for x in (corners, *factors)]

    def together(latent: Latent, corners: Array) -> Float[Array, "n t2 h2 w2 c"]:
        parts = jnp.concatenate([_cut(latent, corner, tiling.size) for corner in corners])
        return constrain(parts, BATCH)

    def add(fused: Latent, group: tuple[Array, ...]) -> tuple[Latent, None]:
        results = network(*(together(latent, group[0]) for latent in latents))
        results = constrain(results).reshape(batch, clips, *tiling.size, channels)
        for result, corner, t, h, w in zip(results, *group):
            weight = t[:, None, None, None] * h[:, None, None] * w[:, None]
            before = _cut(fused, corner, tiling.size)
            start = (0, *corner, 0)
            fused = jax.lax.dynamic_update_slice(fused, before + weight * result, start)
        return fused, None

    empty = jnp.zeros(latents[0].shape, latents[0].dtype)
    fused, _ = jax.lax.scan(add, empty, tuple(map(jnp.asarray, groups)))
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
