"""Which part of a picture a tile computes, so that what it keeps equals the whole picture's.

A tile keeps its core. At every resolution it computes a region: the core and the halo that the
layers ahead still need, cropped anew after each change of resolution. A region never reaches
beyond the picture: near a border it is shifted inwards, so that it keeps its size, and its edge is
the picture's own, with the picture's own padding. Other edges see a false padding, whose effect
the halo keeps away from the core. Units along an axis are coarse positions (the latent's) and, at
each level, `scale` positions of that level to a coarse one.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from realisvsr_jax.numerics import round_up
from realisvsr_jax.vae.blocks import Downsample, ResidualBlock, Upsample
from realisvsr_jax.vae.causal_conv import CausalConv
from realisvsr_jax.vae.wan_vae import Exit, Half

Sides = tuple[int, int]


@dataclass(frozen=True)
class Level:
    """A region along one axis: `scale` positions a coarse one, a halo on both sides of the core."""

    scale: int
    before: int
    after: int


@dataclass(frozen=True)
class Axis:
    """`length` coarse positions, cut into cores of `core`; `levels` in the order of the layers."""

    length: int
    core: int
    levels: tuple[Level, ...]

    def starts(self) -> tuple[int, ...]:
        """The first coarse position of each core; the last is shifted to end with the axis."""
        return (*range(0, self.length - self.core, self.core), self.length - self.core)

    def sizes(self) -> tuple[int, ...]:
        """Positions of the region at each level, the same for every core."""
        return tuple(
            min(self.core * level.scale + level.before + level.after, self.length * level.scale)
            for level in self.levels
        )

    def corners(self, start: int) -> tuple[int, ...]:
        """The first position of the region of the core at `start`, at each level."""
        return tuple(
            max(0, min(start * level.scale - level.before, self.length * level.scale - size))
            for level, size in zip(self.levels, self.sizes())
        )

    def offsets(self, start: int) -> tuple[int, ...]:
        """Where each level's region begins within what the level before it gave."""
        corners = self.corners(start)
        pairs = itertools.pairwise(zip(self.levels, corners))
        return tuple(
            corner - before * level.scale // last.scale for (last, before), (level, corner) in pairs
        )


@dataclass(frozen=True)
class Grid:
    """The tiles of a picture: every core of `height` with every core of `width`."""

    height: Axis
    width: Axis

    @property
    def count(self) -> int:
        """The number of tiles."""
        return len(self.height.starts()) * len(self.width.starts())

    def cores(self) -> Iterator[Sides]:
        """The first coarse position (y, x) of each tile's core, row by row."""
        return itertools.product(self.height.starts(), self.width.starts())

    def sizes(self) -> tuple[Sides, ...]:
        """(height, width) of the region at each level; the last is the core."""
        return tuple(zip(self.height.sizes(), self.width.sizes()))

    def places(self, core: Sides) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Rows and columns that the tile at `core` reads, and those that it keeps."""
        rows, columns = self.height.corners(core[0]), self.width.corners(core[1])
        sizes = self.sizes()
        read, kept = (
            (slice(rows[i], rows[i] + sizes[i][0]), slice(columns[i], columns[i] + sizes[i][1]))
            for i in (0, -1)
        )
        return read, kept

    def offsets(self, core: Sides) -> tuple[Sides, ...]:
        """Where each crop of the tile at `core` begins."""
        return tuple(zip(self.height.offsets(core[0]), self.width.offsets(core[1])))


def make_grid(layers: Sequence[Any], size: Sides, core: Sides) -> Grid:
    """Cores of at most `core` for a picture of `size`, (height, width) in coarse positions.

    Of as many cores as that takes along an axis, the smallest that do are used. Raises ValueError
    for a core without a position.
    """
    if min(core) < 1:
        raise ValueError(f"a tile of {core[0]}×{core[1]} latent positions; give 1 or more a side")
    height, width = (
        cut_axis(length, most, levels(layers, axis))
        for axis, (length, most) in enumerate(zip(size, core))
    )
    return Grid(height, width)


def cut_axis(length: int, most: int, levels: tuple[Level, ...]) -> Axis:
    """As few cores of at most `most` as cover `length`, as small as that many allow."""
    count = -(-length // most)
    return Axis(length, -(-length // count), levels)


def levels(layers: Sequence[Any], axis: int) -> tuple[Level, ...]:
    """The regions that `layers` need along an axis (0 height, 1 width), the core last.

    From the last layer back: a convolution of size k needs (k − 1)//2 positions before and k//2
    after, doubling halves the halo, halving doubles it and looks one position further on. A level
    begins with each change of resolution.
    """
    scale = 2 ** sum(isinstance(layer, Upsample) for layer in layers)
    before = after = 0
    found = [Level(scale, 0, 0)]
    whole = 1  # halving wants regions that begin and end at even positions
    for layer in reversed(layers):
        if changes_resolution(layer):
            found.append(Level(scale, round_up(before, whole), round_up(after, whole)))
        if isinstance(layer, Downsample):
            before, after = 2 * before, 2 * after + _size(layer.space, axis) - 2
            scale, whole = 2 * scale, 2
            continue
        for conv in convolutions(layer):
            before += (_size(conv, axis) - 1) // 2
            after += _size(conv, axis) // 2
        if isinstance(layer, Upsample):
            before, after, scale = round_up(before, 2) // 2, round_up(after, 2) // 2, scale // 2
    found.append(Level(scale, round_up(before, whole), round_up(after, whole)))
    return tuple(reversed(found))


def changes_resolution(layer: Any) -> bool:
    """Whether a layer's output has another height and width."""
    return isinstance(layer, Upsample | Downsample)


def convolutions(layer: Any) -> list[CausalConv]:
    """The convolutions that widen a layer's field in space, one behind the other."""
    if isinstance(layer, CausalConv):
        return [layer]
    if isinstance(layer, ResidualBlock):
        return [layer.conv1, layer.conv2]
    if isinstance(layer, Upsample | Downsample):
        return [layer.space]
    if isinstance(layer, Exit):
        return [layer.conv]
    raise TypeError(f"{type(layer).__name__} sees the whole picture or is unknown: no halo")


def whole_and_tiled(half: Half) -> tuple[list[Any], list[Any]]:
    """The layers of the latent's resolution, and those that work tile by tile.

    Of a decoder the second follow the first, of an encoder they precede them. The change of
    resolution next to the latent belongs to the tiles.
    """
    layers = half.layers()
    ups = [i for i, layer in enumerate(layers) if isinstance(layer, Upsample)]
    if ups:
        return layers[: ups[0]], layers[ups[0] :]
    downs = [i for i, layer in enumerate(layers) if isinstance(layer, Downsample)]
    cut = downs[-1] + 1 if downs else 0
    return layers[cut:], layers[:cut]


def _size(conv: CausalConv, axis: int) -> int:
    return conv.kernel.shape[1 + axis]
