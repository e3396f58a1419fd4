"""Histograms of oriented gradients of a latent and the HOG loss (Eq. 5).

After Dalal and Triggs (CVPR 2005): central differences, unsigned orientations weighted by
magnitude, cells, overlapping blocks, L2-Hys. Votes are shared linearly between the two
nearest orientation bins, so that the descriptor is continuous in the latent; hard votes are
there to be compared with scikit-image's `hog`.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange, reduce, repeat
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent
from realisvsr_jax.errors import InputError

VOTES = ("soft", "hard")

_Pixels = Float[Array, "b t h w c"]
_Cells = Float[Array, "bins b t rows cols c"]
_SMALLEST_SQUARE = 1e-30


@dataclasses.dataclass(frozen=True)
class HOGConfig:
    """`bins` over 180°, `cell` in latent pixels, `block` in cells, `clip` and `eps` of L2-Hys.

    `votes` is "soft" or "hard"; anything else is an InputError.
    """

    bins: int = 9
    cell: int = 8
    block: int = 3
    clip: float = 0.2
    eps: float = 1e-5
    votes: str = "soft"

    def __post_init__(self) -> None:
        if self.votes not in VOTES:
            raise InputError(f"HOG votes are {self.votes!r}; known: {', '.join(VOTES)}")


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


def cell_histograms(latent: Latent, config: HOGConfig = HOGConfig()) -> _Cells:
    """Mean vote per pixel of each cell, bin by bin; h and w divide by the cell.

    Differences are central, and zero at the borders as in scikit-image.
    """
    dy = jnp.pad(latent[:, :, 2:] - latent[:, :, :-2], _axis_padding(2))
    dx = jnp.pad(latent[:, :, :, 2:] - latent[:, :, :, :-2], _axis_padding(3))
    return _pooled_votes(dx, dy, config)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pooled_votes(dx: _Pixels, dy: _Pixels, config: HOGConfig) -> _Cells:
    """Each pixel gives its magnitude, (1 − f) to one bin and f to the next; cells average.

    One bin at a time is voted for and pooled: the votes of all bins are never held at once.
    The derivative is written out below, since autodiff's is three times slower on a CPU,
    keeps several arrays for each bin, and is NaN at zero.
    """
    magnitude, _, position = _polar(dx, dy, config.bins)
    lower, fraction = _split(position, config)
    pooled = []
    for k in range(config.bins):
        share = jnp.where(lower == k, 1.0 - fraction, 0.0)
        share = jnp.where((lower + 1) % config.bins == k, fraction, share)
        pooled.append(
            reduce(
                magnitude * share,
                "b t (rows y) (cols x) c -> b t rows cols c",
                "mean",
                y=config.cell,
                x=config.cell,
            )
        )
    return jnp.stack(pooled)


def _votes_forward(
    dx: _Pixels, dy: _Pixels, config: HOGConfig
) -> tuple[_Cells, tuple[_Pixels, _Pixels]]:
    return _pooled_votes(dx, dy, config), (dx, dy)


def _votes_backward(
    config: HOGConfig, differences: tuple[_Pixels, _Pixels], cotangent: _Cells
) -> tuple[_Pixels, _Pixels]:
    """With G the cotangents of a pixel's two bins, m and θ its magnitude and orientation:

    the vote m·((1 − f)·G₀ + f·G₁) moves with m at the rate of the bracket, and with θ at
    m·(G₁ − G₀)·bins/π; ∇m = (dx, dy)/m and m·∇θ = (−dy, dx)/m. Both are 0 where m is.
    """
    dx, dy = differences
    _, inverse, position = _polar(dx, dy, config.bins)
    lower, fraction = _split(position, config)
    first, second = jnp.zeros_like(dx), jnp.zeros_like(dx)
    for k in range(config.bins):
        first = jnp.where(lower == k, _spread(cotangent[k], config), first)
        second = jnp.where(lower == k, _spread(cotangent[(k + 1) % config.bins], config), second)
    radial = (1.0 - fraction) * first + fraction * second
    turning = (second - first) * (config.bins / jnp.pi if config.votes == "soft" else 0.0)
    x, y = dx * inverse, dy * inverse
    return radial * x - turning * y, radial * y + turning * x


_pooled_votes.defvjp(_votes_forward, _votes_backward)


def _polar(dx: _Pixels, dy: _Pixels, bins: int) -> tuple[_Pixels, _Pixels, _Pixels]:
    """Magnitude, its inverse, and the orientation modulo 180° in units of bins, [0, bins].

    Magnitude and inverse are both 0 where the square would not be a normal number.
    """
    square = dx**2 + dy**2
    flat = square < _SMALLEST_SQUARE
    inverse = jnp.where(flat, 0.0, jax.lax.rsqrt(jnp.where(flat, 1.0, square)))
    angle = jnp.arctan2(dy, dx)
    position = jnp.where(angle < 0, angle + jnp.pi, angle) * (bins / jnp.pi)
    return square * inverse, inverse, position


def _split(position: _Pixels, config: HOGConfig) -> tuple[_Pixels, _Pixels]:
    """The bin that gets 1 − f of a vote, and f, which goes to the next bin of the circle."""
    if config.votes == "hard":
        return jnp.floor(position) % config.bins, jnp.zeros_like(position)
    from_centre = position - 0.5
    lower = jnp.floor(from_centre)
    return lower % config.bins, from_centre - lower


def _spread(cells: Float[Array, "b t rows cols c"], config: HOGConfig) -> _Pixels:
    """Hands each pixel its part of what its cell, a mean, receives."""
    part = cells / config.cell**2
    y = x = config.cell
    return repeat(part, "b t rows cols c -> b t (rows y) (cols x) c", y=y, x=x)


def _axis_padding(axis: int) -> list[tuple[int, int]]:
    """One zero on either side of one of the five axes."""
    return [(1, 1) if i == axis else (0, 0) for i in range(5)]


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
