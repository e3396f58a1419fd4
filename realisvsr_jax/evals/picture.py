"""The before / after / ground-truth picture: whole frames side by side, zoomed crops below.

Needs Pillow (the `demo` extra) for its lettering.
"""

import itertools
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals.crops import Crop, detailed_crops

_GAP, _MARGIN, _HEADER = 16, 28, 64
_PAPER, _INK, _GREY = (255, 255, 255), (24, 26, 32), (112, 118, 130)
_COLOURS = ((235, 94, 40), (0, 129, 167), (120, 82, 169), (46, 139, 87))


def comparison_picture(
    frames: Mapping[str, np.ndarray],
    crops: Sequence[Crop] | None = None,
    notes: Mapping[str, str] | None = None,
    column: int = 560,
) -> np.ndarray:
    """Draws one frame of several systems as columns; returns the picture, uint8 RGB.

    `frames`: label -> uint8 [H, W, 3], all of one size, the ground truth last. `notes`: a
    small second line by label. `crops`: windows to enlarge, else two that `detailed_crops`
    finds. `column` is the width of a column in pixels. Raises InputError for frames of
    different sizes.
    """
    sizes = {label: frame.shape for label, frame in frames.items()}
    if len(set(sizes.values())) != 1:
        raise InputError(f"cannot compare frames of different sizes: {sizes}")
    height, width = next(iter(sizes.values()))[:2]
    if crops is None:
        crops = detailed_crops(list(frames.values())[-1])
    columns = [_column(frame, crops, column) for frame in frames.values()]
    tall = _HEADER + columns[0].shape[0] + 2 * _MARGIN
    wide = len(columns) * (column + _GAP) - _GAP + 2 * _MARGIN
    page = np.full((tall, wide, 3), _PAPER, np.uint8)
    for i, drawn in enumerate(columns):
        left = _MARGIN + i * (column + _GAP)
        page[_MARGIN + _HEADER : tall - _MARGIN, left : left + column] = drawn
    image = Image.fromarray(page)
    draw = ImageDraw.Draw(image)
    for i, label in enumerate(frames):
        left = _MARGIN + i * (column + _GAP)
        note = (notes or {}).get(label, f"{width}×{height}")
        _write(draw, (left, _MARGIN - 8), label, _INK, 30)
        _write(draw, (left, _MARGIN + 29), note, _GREY, 18)
    return np.asarray(image)


def _column(frame: np.ndarray, crops: Sequence[Crop], width: int) -> np.ndarray:
    """The whole frame with the crops' outlines, and below it the crops, two a row."""
    ratio = width / frame.shape[1]
    rows = [_resize(frame, round(frame.shape[0] * ratio), width)]
    for crop, colour in zip(crops, itertools.cycle(_COLOURS)):
        corners = (crop.left, crop.top), (crop.left + crop.width, crop.top + crop.height)
        first, last = ((round(x * ratio), round(y * ratio)) for x, y in corners)
        cv2.rectangle(rows[0], first, (last[0] - 1, last[1] - 1), colour, 3, cv2.LINE_AA)
    each = (width - _GAP) // 2
    for i in range(0, len(crops), 2):
        pair = crops[i : i + 2]
        tall = max(round(each * crop.height / crop.width) for crop in pair)
        row = np.full((tall, width, 3), _PAPER, np.uint8)
        for j, crop in enumerate(pair):
            zoomed = _resize(crop.of(frame), round(each * crop.height / crop.width), each)
            colour = _COLOURS[(i + j) % len(_COLOURS)]
            cv2.rectangle(zoomed, (1, 1), (each - 2, zoomed.shape[0] - 2), colour, 4)
            left = j * (width - each)
            row[: zoomed.shape[0], left : left + each] = zoomed
        rows += [np.full((_GAP, width, 3), _PAPER, np.uint8), row]
    return np.concatenate(rows)


def _write(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, colour: tuple, size: int
) -> None:
    """Pillow's own font, which has no multiplication sign."""
    draw.text(corner, text.replace("×", "x"), colour, ImageFont.load_default(size))


def _resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area mean when it shrinks; cubic when it grows."""
    shrinks = width < image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)
