"""LPIPS and DISTS of frames whose features do not fit into memory, in tiles, exactly.

A tile reaches `HALO` pixels beyond what it counts, more than a feature of VGG16 or AlexNet sees,
and begins where all of a network's strides do, so that the features that count are those of the
whole frame. Sums meet on the host in float64; what differs is the rounding of sums (under 1e-5).
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals.perceptual import Dists, Images, Lpips, feature_unit
from realisvsr_jax.numerics import round_up

GRID, HALO = 16, 112
PIXELS = 5 * 2**18  # of a tile: some 2.5 GB of VGG16's features of both images
_STRIDES = {"alex": (4, 8, 16, 16, 16), "vgg": (1, 2, 4, 8, 16), "dists": (1, 1, 2, 4, 8, 16)}


@dataclass(frozen=True)
class Stretch:
    """Along one axis: pixels `start` … `stop` are seen, `first` … `last` count.

    `last` is None at the frame's end.
    """

    start: int
    stop: int
    first: int
    last: int | None


def in_tiles(metric: Lpips | Dists, a: Images, b: Images, pixels: int = PIXELS) -> np.ndarray:
    """[N] scores, as `metric(a, b)`, with no more than about `pixels` of a frame at a time.

    Raises InputError as the metric does.
    """
    if a.shape != b.shape:
        raise InputError(f"images of different sizes: {a.shape} and {b.shape}")
    height, width = a.shape[1:3]
    if height * width <= pixels:
        return np.asarray(metric(a, b), np.float64)
    rows, columns = plan(height, width, pixels)
    found = []
    for row, column in itertools.product(rows, columns):
        part = np.s_[:, row.start : row.stop, column.start : column.stop]
        found.append(_statistics(metric, a[part], b[part], _owned(row), _owned(column)))
    together = [_merged(parts) for parts in zip(*jax.device_get(found))]
    return _lpips(together) if isinstance(metric, Lpips) else _dists(metric, together)


def plan(height: int, width: int, pixels: int) -> tuple[list[Stretch], list[Stretch]]:
    """Rows and columns of tiles that compute the least; InputError where `pixels` are too few."""
    best: tuple[int, int, int] | None = None
    for down, across in itertools.product(range(1, 33), repeat=2):
        area = _size(height, down) * _size(width, across)
        total = area * down * across
        if area <= pixels and (best is None or total < best[0]):
            best = total, down, across
    if best is None:
        raise InputError(f"frames of {width}×{height} cannot be scored {pixels} pixels at a time")
    return stretches(height, best[1]), stretches(width, best[2])


def stretches(length: int, count: int) -> list[Stretch]:
    """`length` pixels in `count` stretches that overlap by two halos or more."""
    if count == 1:
        return [Stretch(0, length, 0, None)]
    size = _size(length, count)
    starts = [k * (length - size) // (count - 1) // GRID * GRID for k in range(count - 1)]
    starts.append(round_up(length - size, GRID))
    firsts = [0, *(start + HALO for start in starts[1:])]
    stops = [*(start + size for start in starts[:-1]), length]
    return [
        Stretch(*edges) for edges in zip(starts, stops, firsts, [*firsts[1:], None], strict=True)
    ]


def _size(length: int, count: int) -> int:
    if count == 1:
        return length
    return round_up(-(-(length + (count - 1) * (2 * HALO + GRID)) // count), GRID)


def _owned(stretch: Stretch) -> tuple[int, int]:
    """What counts, from the tile's own first pixel on."""
    beyond = 2**30 if stretch.last is None else stretch.last - stretch.start
    return stretch.first - stretch.start, beyond


@jax.jit
def _statistics(
    metric: Lpips | Dists, a: Images, b: Images, rows: tuple[Any, Any], columns: tuple[Any, Any]
) -> list[tuple[Any, ...]]:
    """Of each layer: how many positions count, then their means and sums of squares about them.

    LPIPS: the mean distance [N]. DISTS: means of a and b, then squares of a, of b, and products.
    """
    name = metric.net if isinstance(metric, Lpips) else "dists"
    found: list[tuple[Any, ...]] = []
    layers = zip(metric.features(a), metric.features(b), _STRIDES[name])
    for k, (x, y, stride) in enumerate(layers):
        down, across = (
            _counting(x.shape[axis], owned, stride) for axis, owned in ((1, rows), (2, columns))
        )
        mask = (down[:, None] & across)[None, :, :, None]
        count = jnp.sum(mask)
        mean = functools.partial(jnp.sum, axis=(1, 2))
        if isinstance(metric, Lpips):
            distance = jnp.square(feature_unit(x) - feature_unit(y)) @ metric.heads[k]
            found.append((count, mean(distance * mask[..., 0]) / count))
            continue
        x_mean, y_mean = (mean(v * mask) / count for v in (x, y))
        dx, dy = ((v - m[:, None, None]) * mask for v, m in ((x, x_mean), (y, y_mean)))
        found.append((count, x_mean, y_mean, mean(dx * dx), mean(dy * dy), mean(dx * dy)))
    return found


def _counting(size: int, owned: tuple[Any, Any], stride: int) -> Any:
    positions = jnp.arange(size)
    return (positions >= owned[0] // stride) & (positions < owned[1] // stride)


def _merged(parts: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Counts, means and squares of parts as those of the whole (Chan, Golub and LeVeque 1979)."""
    arrays = [[np.asarray(value, np.float64) for value in part] for part in parts]
    total = sum(part[0] for part in arrays)
    shares = [part[0] / total for part in arrays]
    if len(arrays[0]) == 2:
        return total, sum(s * part[1] for s, part in zip(shares, arrays))
    means = [sum(s * part[k] for s, part in zip(shares, arrays)) for k in (1, 2)]
    squares = []
    for k, (i, j) in enumerate(((0, 0), (1, 1), (0, 1)), start=3):
        between = sum(
            s * (part[1 + i] - means[i]) * (part[1 + j] - means[j])
            for s, part in zip(shares, arrays)
        )
        squares.append(sum(part[k] for part in arrays) / total + between)
    return (total, *means, *squares)


def _lpips(layers: Sequence[tuple[Any, ...]]) -> np.ndarray:
    return np.sum([mean for _, mean in layers], axis=0)


def _dists(metric: Dists, layers: Sequence[tuple[Any, ...]]) -> np.ndarray:
    """Eqs. 5–7, as in perceptual.py."""
    alpha, beta = (np.asarray(weights, np.float64) for weights in (metric.alpha, metric.beta))
    eps, start, similarity = 1e-6, 0, 0.0
    for _, x_mean, y_mean, x_var, y_var, covariance in layers:
        part = slice(start, start + x_mean.shape[-1])
        start = part.stop
        texture = (2 * x_mean * y_mean + eps) / (x_mean**2 + y_mean**2 + eps)
        structure = (2 * covariance + eps) / (x_var + y_var + eps)
        similarity = similarity + texture @ alpha[part] + structure @ beta[part]
    return 1.0 - similarity / (alpha.sum() + beta.sum())
