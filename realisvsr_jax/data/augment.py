"""What may be done to the ground truth before it is degraded; training only."""

import cv2
import numpy as np

SHARPEN_RADIUS, SHARPEN_WEIGHT, SHARPEN_THRESHOLD = 51, 0.5, 10.0


def flipped(
    frames: np.ndarray, rng: np.random.Generator, *, horizontal: bool, vertical: bool, turn: bool
) -> np.ndarray:
    """Mirrors uint8 `T H W 3` with probability ½ for each kind allowed; `turn` transposes.

    A transpose changes the size unless H = W, so it is left out of other shapes.
    """
    if horizontal and rng.random() < 0.5:
        frames = frames[:, :, ::-1]
    if vertical and rng.random() < 0.5:
        frames = frames[:, ::-1]
    if turn and frames.shape[1] == frames.shape[2] and rng.random() < 0.5:
        frames = frames.swapaxes(1, 2)
    return np.ascontiguousarray(frames)


def sharpened(frames: np.ndarray) -> np.ndarray:
    """Unsharp mask of uint8 `T H W 3` as RealBasicVSR trains with (Real-ESRGAN's USM).

    Costs PSNR against footage as it was shot, so it is off by default.
    """
    return np.stack([_sharpened_frame(frame) for frame in frames])


def _sharpened_frame(frame: np.ndarray) -> np.ndarray:
    picture = frame.astype(np.float32)
    size = (SHARPEN_RADIUS, SHARPEN_RADIUS)
    residual = picture - cv2.GaussianBlur(picture, size, 0)
    edges = (np.abs(residual) > SHARPEN_THRESHOLD).astype(np.float32)
    soft = cv2.GaussianBlur(edges, size, 0)
    sharp = np.clip(picture + SHARPEN_WEIGHT * residual, 0, 255)
    return np.rint(soft * sharp + (1 - soft) * picture).astype(np.uint8)
