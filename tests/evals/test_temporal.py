"""E_warp sees flicker and not motion; borders of windows are told from what is elsewhere."""

import cv2
import numpy as np
import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals.temporal import (
    Changes,
    WarpingError,
    border_score,
    flow_named,
    occluded,
    warp,
    window_borders,
)


@pytest.fixture(scope="module")
def moving():
    """A smooth texture that moves by two pixels a frame, [6, 96, 128, 3] uint8."""
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.uniform(0, 255, (96, 160, 3)), (0, 0), 2)
    wide = (wide - wide.min()) / np.ptp(wide) * 255
    return np.stack([wide[:, 2 * k : 2 * k + 128] for k in range(6)]).astype(np.uint8)


def error(frames):
    found = WarpingError()
    for frame in frames:
        found.add(frame)
    return found.score()


def test_motion_is_no_error_and_flicker_is(moving):
    flicker = np.clip(moving + 20.0 * (np.arange(6) % 2)[:, None, None, None], 0, 255)
    unmoved = 1e3 * np.square(np.diff(moving[:, ::2, ::2] / 255.0, axis=0)).sum(-1).mean()
    assert error(moving) < 0.1 * unmoved
    # 20 grey levels between frames, squared, summed over three channels
    assert error(flicker.astype(np.uint8)) == pytest.approx(3e3 * (20 / 255) ** 2, rel=0.15)


def test_still_clips_have_none_and_floats_score_alike(moving):
    assert error(np.repeat(moving[:1], 3, axis=0)) == 0
    assert error([moving[0]]) is None
    floats = (moving / 127.5 - 1).astype(np.float32)
    assert error(floats) == pytest.approx(error(moving), rel=1e-3)


def test_warping_follows_the_flow_and_occlusion_is_where_flows_disagree():
    image = np.arange(64, dtype=np.float32).reshape(8, 8, 1).repeat(3, 2)
    flow = np.zeros((8, 8, 2), np.float32)
    flow[..., 0] = 1
    np.testing.assert_array_equal(warp(image, flow)[:, :-1], image[:, 1:])
    np.testing.assert_array_equal(warp(image, flow)[:, -1], image[:, -1])
    assert not occluded(flow, -flow).any()
    backward = -flow
    backward[3, 4] = 5
    assert np.argwhere(occluded(flow, backward)).tolist() == [[3, 3]]
    bent = flow.copy()
    bent[:, 5:, 0] = 1.5
    assert occluded(bent, -bent)[:, 4].all()


def test_borders_show_where_windows_begin():
    assert window_borders(100, 49, 9) == [49, 89]
    assert window_borders(49, 49) == []
    changes = np.full(20, 1.0)
    changes[[7, 15]] = 3.0  # to the frames 8 and 16
    score = border_score(changes.tolist(), window_borders(21, 8))
    assert (score.at, score.elsewhere, score.ratio) == (3.0, 1.0, 3.0)
    changes[[0, 1, 2]] = 50.0  # no multiple of 4 from a border
    assert border_score(changes.tolist(), [8, 16]).ratio == 3.0
    assert border_score([1.0, 1.0], [8]) is None


def test_with_a_reference_its_own_motion_does_not_count(moving):
    alone, against = Changes(), Changes()
    for frame in moving:
        alone.add(frame)
        against.add(np.clip(frame, 10, 245), np.clip(frame, 10, 245))
    expected = np.abs(np.diff(moving / 127.5, axis=0)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(alone.values, expected, rtol=1e-5)
    assert against.values == [0.0] * 5


def test_raft_is_refused_with_its_reason():
    assert flow_named("dis") == "dis"
    with pytest.raises(InputError, match="torchvision"):
        flow_named("raft")
    with pytest.raises(InputError, match="unknown flow 'farneback'; known: dis"):
        flow_named("farneback")
