"""Whether a restored clip lies where its reference does: by how many pixels it is shifted."""

from dataclasses import dataclass

import cv2
import numpy as np

from realisvsr_jax.evals.fidelity import luma

REACH = 4  # pixels each way that are searched
NOTICED = 0.1  # pixels, of the sub-pixel shift; below, noise and blur may be the reason
SAMPLES = 5  # frames of a clip


@dataclass(frozen=True)
class Shift:
    """Pixels to the right and down that the restored clip lies from its reference.

    `whole` is the integer shift of least squared error; `fine` the sub-pixel one.
    """

    whole: tuple[int, int]
    fine: tuple[float, float]

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
        return self.whole != (0, 0) or max(map(abs, self.fine)) >= NOTICED


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
        self._pairs.append((a, b))

    def shift(self) -> Shift | None:
        """None where no frame is large enough, or all are flat."""
        if not self._pairs or np.ptp(self._errors) == 0:
            return None
        down, right = np.unravel_index(np.argmin(self._errors), self._errors.shape)
        if self._errors[down, right] == self._errors[REACH, REACH]:
            down = right = REACH  # of equally good ones, none
        whole = int(right) - REACH, int(down) - REACH
        found = [_refined(*pair, whole) for pair in self._pairs]
        x, y = np.median(found, axis=0)
        return Shift(whole, (float(x), float(y)))


def _refined(a: np.ndarray, b: np.ndarray, whole: tuple[int, int]) -> tuple[float, float]:
    """Sub-pixel shift by Gauss-Newton from the integer one (Lucas and Kanade 1981).

    Both are smoothed alike first, so that their different sharpness matters less.
    """
    a, b = (cv2.GaussianBlur(image, (0, 0), 1.5) for image in (a, b))
    edge = REACH + 4
    inner = np.s_[edge:-edge, edge:-edge] if min(b.shape) > 3 * edge else np.s_[:, :]
    shift = np.array(whole, np.float64)
    for _ in range(8):
        move = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
        moved = cv2.warpAffine(
            *(a, move, a.shape[::-1]),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        gx, gy = (
            np.gradient(moved, axis=1)[inner].ravel(),
            np.gradient(moved, axis=0)[inner].ravel(),
        )
        difference = (b - moved)[inner].ravel()
        normal = np.array([[gx @ gx, gx @ gy], [gx @ gy, gy @ gy]], np.float64)
        if np.linalg.cond(normal) > 1e6:
            break  # flat, or stripes of one direction
        step = np.linalg.solve(normal, np.array([gx @ difference, gy @ difference], np.float64))
        shift += np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-3:
            break
    shift = np.clip(shift, -REACH - 1, REACH + 1)
    return float(shift[0]), float(shift[1])
