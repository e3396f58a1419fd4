"""Whether a restored clip lies where its reference does: by how many pixels it is shifted."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from realisvsr_jax.evals.fidelity import luma

REACH = 4  # pixels each way that are searched
NOTICED = 0.1  # pixels, of the sub-pixel shift; below, noise and blur may be the reason
GAIN = 0.1  # dB; what is nearly flat fits as well, or as badly, anywhere
SAMPLES = 5  # frames of a clip


@dataclass(frozen=True)
class Shift:
    """Pixels to the right and down that the restored clip lies from its reference.

    `whole` is the integer shift of least squared error, (0, 0) where no other inside the reach
    is better by GAIN; `fine` the sub-pixel one, and `gain` what its undoing is worth: dB of PSNR
    of the pictures, smoothed.
    """

    whole: tuple[int, int]
    fine: tuple[float, float]
    gain: float

    @property
    def right(self) -> float:
        """To hundredths, as tables and messages have it, without a sign of nothing."""
        return round(self.fine[0], 2) + 0.0

    @property
    def down(self) -> float:
        """As `right`."""
        return round(self.fine[1], 2) + 0.0

    @property
    def noticed(self) -> bool:
        """Whether it is worth a warning."""
        return self.gain >= GAIN and max(map(abs, self.fine)) >= NOTICED


class Alignment:
    """Collects sample frames, RGB [H, W, 3] in [0, 255], and finds their common shift."""

    def __init__(self) -> None:
        self._errors = np.zeros((2 * REACH + 1, 2 * REACH + 1))
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, restored: np.ndarray, reference: np.ndarray) -> None:
        """A frame of both."""
        if min(restored.shape[:2]) <= 4 * REACH:
            return
        a, b = (
            luma(frame.astype(np.float32)).astype(np.float32) for frame in (restored, reference)
        )
        inner = b[REACH:-REACH, REACH:-REACH]
        for down in range(2 * REACH + 1):
            for right in range(2 * REACH + 1):
                part = a[down : down + inner.shape[0], right : right + inner.shape[1]]
                self._errors[down, right] += float(np.square(part - inner).mean())
        # Both are smoothed alike, so that their different sharpness matters less.
        self._pairs.append((cv2.GaussianBlur(a, (0, 0), 1.5), cv2.GaussianBlur(b, (0, 0), 1.5)))

    def shift(self) -> Shift | None:
        """None where no frame is large enough, or all are flat."""
        if not self._pairs or np.ptp(self._errors) == 0:
            return None
        down, right = np.unravel_index(np.argmin(self._errors), self._errors.shape)
        gain = _decibels(self._errors[REACH, REACH], self._errors[down, right])
        at_the_rim = {int(down), int(right)} & {0, 2 * REACH}
        whole = (0, 0) if at_the_rim or gain < GAIN else (int(right) - REACH, int(down) - REACH)
        x, y = np.median([_refined(*pair, whole) for pair in self._pairs], axis=0)
        before = sum(_error(*pair, (0.0, 0.0)) for pair in self._pairs)
        after = sum(_error(*pair, (x, y)) for pair in self._pairs)
        return Shift(whole, (float(x), float(y)), _decibels(before, after))


def _decibels(before: float, after: float) -> float:
    """By how much a squared error fell."""
    return float(10 * np.log10((before + 1e-9) / (after + 1e-9)))


def _refined(a: np.ndarray, b: np.ndarray, whole: tuple[int, int]) -> tuple[float, float]:
    """Sub-pixel shift by Gauss-Newton from the integer one (Lucas and Kanade 1981).

    The integer one where it leaves that by more than a pixel: then there is none to be found.
    """
    shift = np.array(whole, np.float64)
    for _ in range(8):
        moved = _moved(a, shift)
        inner = _inner(b)
        gx, gy = (np.gradient(moved, axis=axis)[inner].ravel() for axis in (1, 0))
        difference = (b - moved)[inner].ravel()
        normal = np.array([[gx @ gx, gx @ gy], [gx @ gy, gy @ gy]], np.float64)
        if np.linalg.cond(normal) > 1e6:
            break  # flat, or stripes of one direction
        step = np.linalg.solve(normal, np.array([gx @ difference, gy @ difference], np.float64))
        shift += np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-3:
            break
    if np.abs(shift - whole).max() > 1:
        return float(whole[0]), float(whole[1])
    return float(shift[0]), float(shift[1])


def _error(a: np.ndarray, b: np.ndarray, shift: Sequence[float]) -> float:
    """Mean squared, once the shift is undone."""
    return float(np.square((b - _moved(a, shift))[_inner(b)]).mean())


def _moved(a: np.ndarray, shift: Sequence[float] | np.ndarray) -> np.ndarray:
    return cv2.warpAffine(
        *(a, np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64), a.shape[::-1]),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _inner(b: np.ndarray) -> tuple[slice, slice]:
    """What no shift brings a border into, where there is so much."""
    edge = REACH + 4
    return np.s_[edge:-edge, edge:-edge] if min(b.shape) > 3 * edge else np.s_[:, :]
