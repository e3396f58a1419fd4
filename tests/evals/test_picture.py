"""The picture shows the frames and crops that it says it shows."""

import numpy as np
import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals.picture import Crop, comparison_picture, detailed_crops


def flat(colour, height=60, width=100):
    return np.full((height, width, 3), colour, np.uint8)


def test_columns_hold_their_own_frames_in_order():
    frames = {"a": flat((200, 0, 0)), "b": flat((0, 200, 0)), "c": flat((0, 0, 200))}
    picture = comparison_picture(frames, crops=[Crop(10, 10, 30, 40)], column=200)
    assert picture.dtype == np.uint8
    thirds = np.array_split(picture, 3, axis=1)
    areas = [
        [int(np.sum(np.all(third == list(frame[0, 0]), axis=-1))) for frame in frames.values()]
        for third in thirds
    ]
    whole_and_crop = 200 * 120 + 92 * 69
    for i, row in enumerate(areas):
        assert row[i] > 0.85 * whole_and_crop  # outlines take the rest
        assert sum(row) == row[i]


def test_crops_are_enlarged():
    frame = flat((0, 0, 0))
    frame[20:26, 50:58] = 255
    picture = comparison_picture({"gt": frame}, crops=[Crop(20, 50, 6, 8)], column=200)
    below = picture[-(28 + 69) : -28, 28 : 28 + 92]
    assert np.mean(np.all(below == 255, axis=-1)) > 0.8


def test_the_most_detailed_windows_are_found_apart():
    frame = flat((90, 90, 90), 120, 200)
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3))
    frame[70:100, 20:60] = noise
    frame[10:40, 130:170] = noise
    first, second = detailed_crops(frame, share=0.2)
    assert (first.height, first.width) == (30, 40)
    assert abs(first.top - 70) <= 2
    assert abs(first.left - 20) <= 2
    assert abs(second.top - 10) <= 2
    assert abs(second.left - 130) <= 2


@pytest.mark.parametrize("size", [(64, 64), (33, 200), (200, 33), (8, 8)])
def test_any_shape_of_frame_can_be_drawn(size):
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    for crop in detailed_crops(frame):
        assert crop.top + crop.height <= size[0]
        assert crop.left + crop.width <= size[1]
    assert comparison_picture({"input, ×4": frame, "gt": frame}, column=120).ndim == 3


def test_frames_of_different_sizes_are_refused():
    with pytest.raises(InputError, match=r"'a': \(60, 100, 3\), 'b': \(60, 98, 3\)"):
        comparison_picture({"a": flat(0), "b": flat(0, width=98)})
