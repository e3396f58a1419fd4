"""NIQE, the distance of a picture's statistics from those of pristine ones; lower is better.

Mittal, Soundararajan and Bovik, "Making a 'Completely Blind' Image Quality Analyzer", 2013, with
their published model (realisvsr_jax/assets/niqe). On MATLAB's luma, rounded; blocks of 96×96
without overlap at two scales; the rest of the picture is cropped. Equals basicsr's to 1e-3, whose
normalised values are float32 as well: in flat areas it is their rounding that decides (in float64
a smooth picture's 7.28 becomes 7.43).
"""

import functools
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
from scipy.special import gamma

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals.fidelity import luma

BLOCK = 96
_SHAPES = np.arange(0.2, 10.001, 0.001)
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))  # ascending
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


@dataclass(frozen=True)
class Niqe:
    """The model of pristine pictures: mean [36], covariance [36, 36], and the window [7, 7]."""

    mean: np.ndarray
    covariance: np.ndarray
    window: np.ndarray

    def __call__(self, frame: np.ndarray) -> float | None:
        """Of an RGB frame [H, W, 3] in [0, 255]; None where fewer than two blocks have texture.

        Raises InputError for frames with fewer than two blocks.
        """
        grey = np.round(luma(frame.astype(np.float64), matlab=True))
        rows, columns = (length // BLOCK for length in grey.shape)
        if rows * columns < 2:
            raise InputError(
                f"NIQE needs two blocks of {BLOCK}×{BLOCK}; a frame is {frame.shape[1]}×"
                f"{frame.shape[0]}"
            )
        grey = grey[: rows * BLOCK, : columns * BLOCK]
        fine = _features(_normalised(grey, self.window), BLOCK)
        coarse = _features(_normalised(halved(grey), self.window), BLOCK // 2)
        features = np.concatenate([fine, coarse], axis=1)
        whole = features[~np.isnan(features).any(axis=1)]
        if len(whole) < 2:
            return None
        away = self.mean - np.nanmean(features, axis=0)
        spread = (self.covariance + np.cov(whole, rowvar=False)) / 2
        return float(np.sqrt(away @ np.linalg.pinv(spread) @ away))  # Eq. 10


def load_niqe(path: Path | None = None) -> Niqe:
    """With the published parameters, or those of `path`; InputError for any other file."""
    return _packaged() if path is None else _read(path)


@functools.cache
def _packaged() -> Niqe:
    folder = resources.files("realisvsr_jax") / "assets" / "niqe"
    with resources.as_file(folder / "niqe_pris_params.npz") as path:
        return _read(path)


def _read(path: Path) -> Niqe:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = ("mu_pris_param", "cov_pris_param", "gaussian_window")
            mean, covariance, window = (np.asarray(file[name], np.float64) for name in names)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zip, pickle, key and type errors, as the file has it
        raise InputError(f"{path} has no parameters of NIQE: {error}") from error
    shapes = mean.reshape(-1).shape, covariance.shape, window.shape
    if shapes != ((36,), (36, 36), (7, 7)):
        raise InputError(f"{path} has no parameters of NIQE: their shapes are {shapes}")
    return Niqe(mean.reshape(-1), covariance, window)


def halved(grey: np.ndarray) -> np.ndarray:
    """MATLAB's imresize by 0.5: bicubic (a = −0.5), stretched against aliasing, mirrored edges."""
    taps = np.array([_cubic(k / 2) for k in (3.5, 2.5, 1.5, 0.5, 0.5, 1.5, 2.5, 3.5)])
    taps /= taps.sum()
    for axis in (0, 1):
        count = grey.shape[axis] // 2
        padding = [(3, 4) if i == axis else (0, 0) for i in range(2)]
        padded = np.moveaxis(np.pad(grey, padding, mode="symmetric"), axis, 0)
        shifted = (tap * padded[k : k + 2 * count : 2] for k, tap in enumerate(taps))
        grey = np.moveaxis(np.sum(list(shifted), axis=0), 0, axis)
    return grey


def _cubic(x: float) -> float:
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2


def _normalised(grey: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Eq. 1: less its local mean, over its local deviation."""

    def mean(x: np.ndarray) -> np.ndarray:
        wide = cv2.filter2D(x.astype(np.float64), -1, window, borderType=cv2.BORDER_REPLICATE)
        return wide.astype(np.float32)

    grey = grey.astype(np.float32)
    local = mean(grey)
    deviation = np.sqrt(np.abs(mean(grey * grey) - local * local))
    return (grey - local) / (deviation + 1)


def _features(normalised: np.ndarray, size: int) -> np.ndarray:
    """[blocks, 18]: shapes and scales of each block's values and of products of neighbours."""
    rows, columns = (length // size for length in normalised.shape)
    blocks = normalised.reshape(rows, size, columns, size).swapaxes(1, 2).reshape(-1, size, size)
    with np.errstate(divide="ignore", invalid="ignore"):  # flat blocks are left out above
        shape, left, right = _fit(blocks)
        found: list[np.ndarray] = [shape, (left + right) / 2]
        for shift in _NEIGHBOURS:
            products = blocks * np.roll(blocks, shift, axis=(1, 2))
            shape, left, right = _fit(products)
            mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)  # Eq. 8
            found += [shape, mean, left, right]
    return np.stack(found, axis=1)


def _fit(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An asymmetric generalised Gaussian of each block (Eqs. 4–7): shape, left and right scale.

    NaN where all values have one sign.
    """
    values = blocks.reshape(len(blocks), -1)
    squares = values * values
    left, right = (
        np.sqrt((squares * side).sum(axis=1) / side.sum(axis=1))
        for side in (values < 0, values > 0)
    )
    ratio = left / right
    spread = np.abs(values).mean(axis=1) ** 2 / squares.mean(axis=1)
    spread *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shape = np.where(np.isnan(spread), np.nan, _SHAPES[_nearest(_RATIOS, spread)])
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


def _nearest(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    after = np.clip(np.searchsorted(ascending, values), 1, len(ascending) - 1)
    nearer = np.abs(ascending[after - 1] - values) <= np.abs(ascending[after] - values)
    return after - nearer
