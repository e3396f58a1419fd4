"""A contact sheet of one frame's way through a plan."""

import cv2
import numpy as np
from jaxtyping import UInt8

from realisvsr_jax.data.degradation import ops
from realisvsr_jax.data.degradation.apply import Frames, stages
from realisvsr_jax.data.degradation.plan import (
    Blur,
    Codec,
    DegradationPlan,
    Jpeg,
    Noise,
    Operation,
    Resize,
)

Picture = UInt8[np.ndarray, "height width 3"]

LINE = 15
TEXT_HEIGHT = 3 * LINE + 4
GAP = 6
PAPER = 255
INK = (30, 30, 30)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def contact_sheet(
    plan: DegradationPlan,
    frames: Frames,
    frame: int | None = None,
    *,
    window: float = 0.35,
    centre: tuple[float, float] = (0.5, 0.5),
    tile: int = 180,
    columns: int = 5,
) -> Picture:
    """The same part of one frame (default: the last) before and behind each operation.

    `window` is the part's side and `centre` its (y, x), both as fractions of the frame's
    sides. Pixels are shown as squares, so that each stage's own size can be seen.
    Raises ValueError where the window does not lie in (0, 1].
    """
    if not 0 < window <= 1:
        raise ValueError(f"the window is a fraction of the frame, 0 to 1, not {window}")
    at = plan.num_frames - 1 if frame is None else frame
    tiles = [
        _tile(number, operation, current[at], at, window, centre, tile)
        for number, (operation, current) in enumerate(stages(plan, frames))
    ]
    tiles += [np.full_like(tiles[0], PAPER)] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    sheet = np.vstack(rows)
    return cv2.copyMakeBorder(sheet, GAP, 0, GAP, 0, cv2.BORDER_CONSTANT, value=(PAPER,) * 3)


def describe(operation: Operation | None, frame: int) -> tuple[str, str]:
    """An operation's name and what it does to a frame, in ASCII (OpenCV draws no more)."""
    match operation:
        case None:
            return "clip", ""
        case Blur(kind="sinc"):
            return f"sinc, {operation.size} taps", f"omega {operation.omega[frame]:.2f}"
        case Blur():
            sigmas = [walk[frame] for walk in (operation.sigma_x, operation.sigma_y) if walk]
            beta = f", beta {operation.beta[frame]:.1f}" if operation.beta else ""
            kind = operation.kind.replace("_", " ")
            sigma = "/".join(f"{value:.1f}" for value in sigmas)
            return f"{kind}, {operation.size} taps", f"sigma {sigma}{beta}"
        case Resize():
            return f"resize: {operation.mode}", operation.interpolation
        case Noise():
            unit = "sigma" if operation.kind == "gaussian" else "factor"
            grey = "grey " if operation.grey else ""
            return f"{grey}{operation.kind} noise", f"{unit} {operation.strength[frame]:.1f}"
        case Jpeg():
            return "JPEG", f"quality {operation.quality[frame]}"
        case Codec():
            return operation.name, f"{operation.bits_per_frame / 1000:.1f} kbit a frame"


def _tile(
    number: int,
    operation: Operation | None,
    frame: np.ndarray,
    at: int,
    window: float,
    centre: tuple[float, float],
    tile: int,
) -> Picture:
    """The enlarged window under three lines of text: operation, parameters, frame size."""
    height, width = frame.shape[:2]
    part = _cut(ops.to_bytes(frame), window, centre)
    enlarged = cv2.resize(part, (tile, tile), interpolation=cv2.INTER_NEAREST)
    canvas = np.full((tile + TEXT_HEIGHT + GAP, tile + GAP, 3), PAPER, np.uint8)
    canvas[TEXT_HEIGHT : TEXT_HEIGHT + tile, :tile] = enlarged
    name, parameters = describe(operation, at)
    for row, text in enumerate((f"{number}. {name}", parameters, f"{width} x {height}"), 1):
        cv2.putText(canvas, text, (1, row * LINE), FONT, 0.4, INK, 1, cv2.LINE_AA)
    return canvas


def _cut(frame: np.ndarray, window: float, centre: tuple[float, float]) -> np.ndarray:
    """A square, as large as `window` of the shorter side."""
    side = max(round(window * min(frame.shape[:2])), 2)
    corner = [
        int(np.clip(round(place * length - side / 2), 0, length - side))
        for place, length in zip(centre, frame.shape[:2])
    ]
    return frame[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
