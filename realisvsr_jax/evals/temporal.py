"""What a clip does from frame to frame: warping error, flicker at the borders of windows.

Frames come one at a time, RGB, uint8 or float in [−1, 1].
"""

from collections.abc import Sequence

import cv2
import numpy as np

from realisvsr_jax.errors import InputError
from realisvsr_jax.sampling.seams import Score

FLOWS = ("dis",)


class WarpingError:
    """E_warp ×10⁻³ of a clip: each frame against the next one, warped to it along the flow.

    Lai et al. 2018, as EvalCrafter has it (metrics/RAFT): frames in [0, 1] at half resolution, the
    flow of the clip itself, without occlusions and motion boundaries (Ruder et al. 2016); squared
    differences are summed over the channels, averaged over the pixels that count, then over
    pairs of frames. Flow: OpenCV's DIS, preset medium; EvalCrafter's is RAFT, so that values
    compare among themselves alone.
    """

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self._errors: list[float] = []

    def add(self, frame: np.ndarray) -> None:
        """The next frame."""
        height, width = frame.shape[:2]
        half = cv2.resize(_unit(frame), (width // 2, height // 2), interpolation=cv2.INTER_LINEAR)
        grey = np.round(cv2.cvtColor(half, cv2.COLOR_RGB2GRAY) * 255).astype(np.uint8)
        if self._before is not None:
            self._errors.append(self._error(*self._before, half, grey))
        self._before = half, grey

    def score(self) -> float | None:
        """None for a clip of one frame."""
        return 1e3 * float(np.mean(self._errors)) if self._errors else None

    def _error(
        self, first: np.ndarray, first_grey: np.ndarray, second: np.ndarray, second_grey: np.ndarray
    ) -> float:
        forward = self._flow(first_grey, second_grey)
        backward = self._flow(second_grey, first_grey)
        seen = ~occluded(forward, backward)
        squares = np.square(warp(second, forward) - first).sum(axis=-1)
        return float(squares[seen if seen.any() else ...].mean())

    def _flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return self._dis.calc(first, second, np.zeros((*first.shape, 2), np.float32))


def flow_named(name: str) -> str:
    """A known flow; raises InputError for RAFT, with the reason, and for others."""
    if name == "raft":
        raise InputError(
            "E_warp by RAFT is not there: its weights come with torchvision, which this project "
            "does without; take --flow dis, which compares systems among themselves"
        )
    if name not in FLOWS:
        raise InputError(f"unknown flow {name!r}; known: {', '.join(FLOWS)}")
    return name


def warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """image(x + flow(x)), bilinear; beyond the edge is the edge. [H, W, C] and [H, W, 2]."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        *(image, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR),
        borderMode=cv2.BORDER_REPLICATE,
    )


def occluded(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """[H, W]: where the two flows do not lead back, and where the forward one bends (Ruder)."""
    back = warp(backward, forward)
    squares = [np.square(flow).sum(axis=-1) for flow in (forward + back, forward, back)]
    apart = squares[0] > 0.01 * (squares[1] + squares[2]) + 0.5
    bends = sum(
        np.square(np.diff(forward, axis=axis, append=np.take(forward, [-1], axis))).sum(axis=-1)
        for axis in (0, 1)
    )
    return apart | (bends > 0.01 * squares[1] + 0.002)


class Changes:
    """Mean absolute change from frame to frame, of the difference from a reference where one is."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self.values: list[float] = []

    def add(self, frame: np.ndarray, reference: np.ndarray | None = None) -> None:
        """The next frame."""
        now = _unit(frame) if reference is None else _unit(frame) - _unit(reference)
        if self._before is not None:
            self.values.append(2 * float(np.abs(now - self._before).mean()))
        self._before = now


def window_borders(frames: int, window: int, overlap: int = 0) -> list[int]:
    """The first new frame of each window but the first, in a clip of so many frames."""
    return list(range(window, frames, window - overlap))


def border_score(changes: Sequence[float], borders: Sequence[int], factor: int = 4) -> Score | None:
    """Changes at the borders against those elsewhere, in [−1, 1]; None where one has no frames.

    Change k leads to frame k + 1. Elsewhere are the frames that lie a multiple of `factor` from
    a border, where a VAE's other latent frames begin (as `sampling.seams.time_score`).
    """
    frames = np.arange(1, len(changes) + 1)
    at = np.isin(frames, list(borders))
    elsewhere = ~at & np.any([(frames - border) % factor == 0 for border in borders[:1]], axis=0)
    if not at.any() or not elsewhere.any():
        return None
    values = np.asarray(changes)
    return Score(float(values[at].mean()), float(values[elsewhere].mean()))


def _unit(frame: np.ndarray) -> np.ndarray:
    """float32 in [0, 1]."""
    if frame.dtype == np.uint8:
        return frame.astype(np.float32) / 255
    return (frame.astype(np.float32) + 1) / 2
