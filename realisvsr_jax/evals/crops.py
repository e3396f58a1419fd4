"""Windows of a frame that are worth enlarging."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Crop:
    """A window of the frame, in its pixels, that is shown enlarged."""

    top: int
    left: int
    height: int
    width: int

    def of(self, frame: np.ndarray) -> np.ndarray:
        return frame[self.top : self.top + self.height, self.left : self.left + self.width]


def detailed_crops(reference: np.ndarray, count: int = 2, share: float = 0.22) -> list[Crop]:
    """The `count` windows of most detail in `reference`, apart from each other.

    Chosen on the ground truth alone, so that the choice favours no system. `share` is a
    window's width over the frame's; windows have the proportions of 4:3. Detail is the
    mean gradient magnitude, saturated so that one hard edge does not outweigh texture.
    """
    height, width = reference.shape[:2]
    wide = max(8, min(round(width * share), height * 4 // 3, width))
    tall = max(6, min(wide * 3 // 4, height))
    grey = cv2.cvtColor(reference, cv2.COLOR_RGB2GRAY).astype(np.float32)
    gradient = np.hypot(cv2.Sobel(grey, -1, 1, 0), cv2.Sobel(grey, -1, 0, 1))
    integral = cv2.integral(np.minimum(gradient, 200.0))
    detail = integral[tall:, wide:] - integral[:-tall, wide:]
    detail += integral[:-tall, :-wide] - integral[tall:, :-wide]
    crops: list[Crop] = []
    while len(crops) < count and np.isfinite(detail).any():
        top, left = (int(i) for i in np.unravel_index(np.argmax(detail), detail.shape))
        crops.append(Crop(top, left, tall, wide))
        away = slice(max(0, top - tall), top + tall), slice(max(0, left - wide), left + wide)
        detail[away] = -np.inf
    return sorted(crops, key=lambda crop: crop.left)
