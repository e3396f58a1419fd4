"""Histograms of oriented gradients of a latent and the HOG loss (Eq. 5).

After Dalal and Triggs (CVPR 2005): central differences, unsigned orientations weighted by
magnitude, cells, overlapping blocks, L2-Hys. Votes are shared linearly between the two
nearest orientation bins, so that the descriptor is continuous in the latent; hard votes are
there to be compared with scikit-image's `hog`.
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from einops import rearrange, reduce
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent

_Pixels = Float[Array, "b t h w c"]


@dataclasses.dataclass(frozen=True)
class HOGConfig:
    """`bins` over 180°, `cell` in latent pixels, `block` in cells, `clip` and `eps` of L2-Hys."""

    bins: int = 9
    cell: int = 8
    block: int = 3
    clip: float = 0.2
    eps: float = 1e-5
    votes: Literal["soft", "hard"] = "soft"


def hog(latent: Latent, config: HOGConfig = HOGConfig()) -> Float[Array, "b t rows cols c d"]:
    """Block descriptors of each latent channel and frame, of about unit norm.

    `d` = block · block · bins runs over cell row, cell column and bin. Sizes are first
    reflect-padded (bottom, right) to a multiple of the cell. Soft votes go to the two nearest
    of the circular bin centres (10°, 30°, … 170° for 9 bins), hard ones to the bin an
    orientation falls into. The gradient is zero where both differences are.

    Raises ValueError where the padded latent holds fewer cells than one block.
    """
    cells = cell_histograms(_pad_to_cells(latent, config), config)
    size = config.block
    rows, cols = cells.shape[3] - size + 1, cells.shape[4] - size + 1
    shifted = [cells[:, :, :, i : i + rows, j : j + cols] for i in range(size) for j in range(size)]
    blocks = rearrange(jnp.stack(shifted), "cell bin b t r s c -> b t r s c (cell bin)")
    blocks = jnp.minimum(_unit_norm(blocks, config.eps), config.clip)
    return _unit_norm(blocks, config.eps)


def hog_loss(velocity: Latent, target: Latent, config: HOGConfig = HOGConfig()) -> Float[Array, ""]:
    """Squared distance of block descriptors, mean over blocks, channels, frames, batch; Eq. 5.

    It is summed over the components of a descriptor, which has unit norm: so the loss lies in
    [0, 2] and stands at the scale of the mean-square loss beside it.
    """
    difference = hog(velocity, config) - hog(target, config)
    return jnp.mean(jnp.sum(jnp.square(difference), axis=-1))


def cell_histograms(
    latent: Latent, config: HOGConfig = HOGConfig()
) -> Float[Array, "bins b t rows cols c"]:
    """Mean vote per pixel of each cell, bin by bin; the sizes divide by the cell.

    One bin at a time is voted for and pooled: the votes of all bins are never held at once.
    """
    magnitude, position = _gradients(latent, config.bins)
    pooled = [
        reduce(
            magnitude * _share(position, k, config),
            "b t (rows y) (cols x) c -> b t rows cols c",
            "mean",
            y=config.cell,
            x=config.cell,
        )
        for k in range(config.bins)
    ]
    return jnp.stack(pooled)


def _share(position: _Pixels, k: int, config: HOGConfig) -> _Pixels:
    """The share of a vote at `position` (in bins, [0, bins]) that goes to bin `k`."""
    if config.votes == "hard":
        own = jnp.floor(position) % config.bins == k
        return own.astype(position.dtype)
    distance = jnp.abs(position - (k + 0.5))
    distance = jnp.minimum(distance, config.bins - distance)
    return jnp.maximum(1.0 - distance, 0.0)


def _gradients(latent: Latent, bins: int) -> tuple[_Pixels, _Pixels]:
    """Magnitude, and orientation modulo 180° in units of bins, of central differences.

    Differences are zero at the borders, as in scikit-image. Where their square would not be a
    normal number, both are replaced by a constant, so that neither root nor angle, nor their
    derivatives, is taken at 0.
    """
    inner = ((0, 0), (0, 0), (1, 1), (0, 0), (0, 0))
    dy = jnp.pad(latent[:, :, 2:] - latent[:, :, :-2], inner)
    inner = ((0, 0), (0, 0), (0, 0), (1, 1), (0, 0))
    dx = jnp.pad(latent[:, :, :, 2:] - latent[:, :, :, :-2], inner)
    square = dx**2 + dy**2
    flat = square < 1e-30
    magnitude = jnp.where(flat, 0.0, jnp.sqrt(jnp.where(flat, 1.0, square)))
    angle = jnp.arctan2(jnp.where(flat, 0.0, dy), jnp.where(flat, 1.0, dx))
    return magnitude, jnp.where(angle < 0, angle + jnp.pi, angle) * (bins / jnp.pi)


def _pad_to_cells(latent: Latent, config: HOGConfig) -> Float[Array, "b t height width c"]:
    _, _, height, width, _ = latent.shape
    down, right = -height % config.cell, -width % config.cell
    least = config.block * config.cell
    if height + down < least or width + right < least:
        raise ValueError(
            f"HOG needs at least {config.block}×{config.block} cells of {config.cell}×"
            f"{config.cell}, but the latent has only {height}×{width} positions"
        )
    return jnp.pad(latent, ((0, 0), (0, 0), (0, down), (0, right), (0, 0)), mode="reflect")


def _unit_norm(blocks: Float[Array, "*l d"], eps: float) -> Float[Array, "*l d"]:
    return blocks / jnp.sqrt(jnp.sum(jnp.square(blocks), axis=-1, keepdims=True) + eps**2)
