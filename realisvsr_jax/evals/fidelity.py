"""PSNR and SSIM of frames, on the host in float64: per frame, then the mean over frames.

Frames are `… H W 3`, RGB, uint8 or float in [−1, 1]; both are brought to [0, 255] and
not rounded. The colour space is part of a score and must be stated with it:

- "rgb": all three channels alike. The usual PSNR.
- "y": BT.601 luma over the full range, 0.299 R + 0.587 G + 0.114 B. SSIM in pyiqa.
- "matlab_y": the luma of MATLAB's rgb2ycbcr, squeezed into 16–235, as much of the
  super-resolution literature (and BasicSR) has it. Its PSNR is 20·log10(255/219) = 1.32 dB
  above that of "y" on the same frames.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from realisvsr_jax.errors import InputError

_RANGE = 255.0
_WINDOW, _SIGMA = 11, 1.5


def psnr(a: Any, b: Any, space: str = "rgb") -> float:
    """Peak signal-to-noise ratio in dB; infinite when a frame equals its reference.

    Raises InputError for frames of different sizes, floats outside [−1, 1], or an unknown
    `space`.
    """
    return _mean_over_frames(_frame_psnr, a, b, space)


def ssim(a: Any, b: Any, space: str = "y") -> float:
    """Structural similarity, at most 1 (Wang et al. 2004, Eq. 13).

    Gaussian window of 11×11 pixels, σ 1.5, only where it lies inside the frame; population
    covariances; K = (0.01, 0.03); "rgb" takes the mean of the channels. Equals
    scikit-image's. pyiqa's also rounds the luma and floors negative covariances at 0.
    Raises InputError as `psnr` does, and for frames smaller than the window.
    """
    return _mean_over_frames(_frame_ssim, a, b, space)


def luma(frame: np.ndarray, matlab: bool = False) -> np.ndarray:
    """BT.601 luma [H, W] of an RGB frame in [0, 255]: 0–255, or MATLAB's 16–235."""
    if matlab:
        return 16.0 + frame @ np.array([65.481, 128.553, 24.966]) / 255.0
    return frame @ np.array([0.299, 0.587, 0.114])


def same_frames(a: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays `T H W 3`; raises InputError if their sizes differ or are no frames."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise InputError(f"cannot compare frames of different sizes: {a.shape} and {b.shape}")
    if a.ndim < 3 or a.shape[-1] != 3 or a.size == 0:
        raise InputError(f"expected frames of shape … H W 3, got {a.shape}")
    return a.reshape(-1, *a.shape[-3:]), b.reshape(-1, *b.shape[-3:])


def _mean_over_frames(
    score: Callable[[np.ndarray, np.ndarray], float], a: Any, b: Any, space: str
) -> float:
    if space not in ("rgb", "y", "matlab_y"):
        raise InputError(f"unknown colour space {space!r}; known: rgb, y, matlab_y")
    frames = zip(*same_frames(a, b))
    return float(np.mean([score(_channels(x, space), _channels(y, space)) for x, y in frames]))


def _channels(frame: np.ndarray, space: str) -> np.ndarray:
    """float64 in [0, 255]: [H, W, 3] for "rgb", else [H, W]."""
    if frame.dtype == np.uint8:
        frame = frame.astype(np.float64)
    elif np.issubdtype(frame.dtype, np.integer):
        raise InputError(f"frames must be uint8 or float in [−1, 1], not {frame.dtype}")
    else:
        frame = frame.astype(np.float64)
        if not np.max(np.abs(frame)) <= 1.0 + 1e-3:
            raise InputError("float frames must lie in [−1, 1]")
        frame = (frame + 1.0) * (_RANGE / 2)
    return frame if space == "rgb" else luma(frame, matlab=space == "matlab_y")


def _frame_psnr(x: np.ndarray, y: np.ndarray) -> float:
    error = np.mean(np.square(x - y))
    return float(10 * np.log10(_RANGE**2 / error)) if error else float("inf")


def _frame_ssim(x: np.ndarray, y: np.ndarray) -> float:
    if min(x.shape[:2]) < _WINDOW:
        raise InputError(f"SSIM needs frames of {_WINDOW}×{_WINDOW} or more, got {x.shape[:2]}")
    x_mean, y_mean = _window_mean(x), _window_mean(y)
    x_var = _window_mean(x * x) - x_mean**2
    y_var = _window_mean(y * y) - y_mean**2
    covariance = _window_mean(x * y) - x_mean * y_mean
    c1, c2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2
    luminance = (2 * x_mean * y_mean + c1) / (x_mean**2 + y_mean**2 + c1)
    return float(np.mean(luminance * (2 * covariance + c2) / (x_var + y_var + c2)))


def _window_mean(x: np.ndarray) -> np.ndarray:
    edge = _WINDOW // 2
    return cv2.GaussianBlur(x, (_WINDOW, _WINDOW), _SIGMA)[edge:-edge, edge:-edge]
