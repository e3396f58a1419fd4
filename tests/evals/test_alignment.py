"""Shifts are found, whole ones and parts of a pixel, and what is sharper is not shifted."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from realisvsr_jax.evals.alignment import Alignment

PICTURE = cv2.imread(str(Path(__file__).parent / "images" / "dists_r0.png"))[:192, :224, ::-1]


def shifted(right, down):
    """The picture moved by Fourier's theorem, its edges far away."""
    spectrum = np.fft.fft2(PICTURE.astype(float), axes=(0, 1))
    y, x = np.fft.fftfreq(PICTURE.shape[0]), np.fft.fftfreq(PICTURE.shape[1])
    phase = np.exp(-2j * np.pi * (y[:, None] * down + x * right))
    return np.clip(np.fft.ifft2(spectrum * phase[..., None], axes=(0, 1)).real, 0, 255)


def shift_of(restored, reference=PICTURE):
    found = Alignment()
    found.add(restored, reference)
    return found.shift()


@pytest.mark.parametrize(
    ("moved", "whole"),
    [((0.0, 0.0), (0, 0)), ((0.4, -0.3), (0, 0)), ((2.0, -1.0), (2, -1)), ((-0.75, 3.25), (-1, 3))],
)
def test_shifts_are_found(moved, whole):
    shift = shift_of(shifted(*moved))
    assert shift.whole == whole
    np.testing.assert_allclose(shift.fine, moved, atol=0.05)
    assert shift.noticed == (moved != (0.0, 0.0))


def test_blur_is_no_shift():
    shift = shift_of(cv2.GaussianBlur(PICTURE, (0, 0), 2.0))
    assert not shift.noticed
    assert max(map(abs, shift.fine)) < 0.05


def test_flat_and_small_frames_have_no_shift():
    flat = np.full((64, 64, 3), 99, np.uint8)
    assert shift_of(flat, flat) is None
    assert shift_of(flat[:8, :8], flat[:8, :8]) is None


def test_what_fits_everywhere_alike_is_not_shifted():
    """A nearly flat picture and noise: the least error lies somewhere, and means nothing."""
    rng = np.random.default_rng(0)
    flat = cv2.GaussianBlur(rng.normal(128, 40, (96, 128, 3)), (0, 0), 9).clip(0, 255)
    restored = flat + cv2.GaussianBlur(rng.normal(0, 40, flat.shape), (0, 0), 2)
    shift = shift_of(restored, flat)
    assert not shift.noticed
    assert shift.whole == (0, 0)


def test_a_shift_of_noisy_and_blurred_content_is_found():
    rng = np.random.default_rng(0)
    restored = cv2.GaussianBlur(shifted(1.0, -2.0), (0, 0), 1.5) + rng.normal(0, 12, PICTURE.shape)
    shift = shift_of(restored)
    assert shift.noticed
    assert shift.whole == (1, -2)
    np.testing.assert_allclose(shift.fine, (1, -2), atol=0.05)
    assert shift.gain > 3
