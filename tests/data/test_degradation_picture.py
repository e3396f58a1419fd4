"""The contact sheet: one tile a stage, each showing that stage's pixels."""

import numpy as np
import pytest

from realisvsr_jax.data.degradation import sample_plan
from realisvsr_jax.data.degradation.picture import GAP, TEXT_HEIGHT, contact_sheet, describe


@pytest.fixture
def frames():
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    return np.broadcast_to(ramp[None, None, :, None], (2, 48, 64, 3)).copy()


@pytest.fixture
def plan(frames):
    return sample_plan(np.random.default_rng(48), *frames.shape[:3])


def test_a_sheet_has_a_tile_for_the_clip_and_for_each_operation(plan, frames):
    sheet = contact_sheet(plan, frames, tile=40, columns=5)
    rows = -(-(len(plan.operations) + 1) // 5)
    assert sheet.shape == (GAP + rows * (40 + TEXT_HEIGHT + GAP), GAP + 5 * (40 + GAP), 3)
    first = sheet[GAP + TEXT_HEIGHT :, GAP:][:40, :40]
    middle = frames[0, 0, 23:41, 0]
    assert abs(first.mean() - middle.mean()) < 8
    last = divmod(len(plan.operations), 5)
    blank = sheet[GAP + last[0] * (40 + TEXT_HEIGHT + GAP) :, GAP + (last[1] + 1) * (40 + GAP) :]
    assert last[1] == 4 or blank.min() == 255


def test_every_kind_of_operation_has_its_words(frames):
    words = set()
    for seed in range(60):
        for operation in sample_plan(np.random.default_rng(seed), 1, 64, 64).operations:
            name, parameters = describe(operation, 0)
            assert (name + parameters).isascii()
            assert parameters
            words.add(name.split(",")[0])
    assert words >= {"sinc", "plateau aniso", "resize: keep", "grey poisson noise", "JPEG", "mpeg4"}


@pytest.mark.parametrize("window", [0.0, 1.5])
def test_a_window_beyond_the_frame_is_refused(plan, frames, window):
    with pytest.raises(ValueError, match="fraction of the frame"):
        contact_sheet(plan, frames, window=window)
