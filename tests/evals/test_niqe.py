"""NIQE gives the values of basicsr 1.4.2, run on the same images."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals.niqe import halved, load_niqe

IMAGES = Path(__file__).parent / "images"


# basicsr.metrics.niqe.calculate_niqe(image, crop_border=0) of 1.4.2.
@pytest.mark.parametrize(("name", "value"), [("dists_r0", 5.534657), ("dists_r1", 7.282150)])
def test_niqe_is_that_of_basicsr(name, value):
    rgb = cv2.imread(str(IMAGES / f"{name}.png"))[..., ::-1]
    assert load_niqe()(rgb) == pytest.approx(value, abs=1e-3)


def test_what_does_not_fill_a_block_is_cropped():
    rgb = cv2.imread(str(IMAGES / "dists_r0.png"))[..., ::-1]
    assert load_niqe()(rgb) == load_niqe()(rgb[:192, :192])


def test_halving_keeps_a_ramp_and_mirrors_at_the_edge():
    ramp = np.tile(np.arange(32.0), (8, 1))
    small = halved(ramp)
    assert small.shape == (4, 16)
    np.testing.assert_allclose(small[:, 2:-2], np.tile(np.arange(4.5, 28, 2), (4, 1)), atol=1e-12)
    np.testing.assert_allclose(halved(np.full((8, 8), 7.0)), 7.0)


def test_flat_frames_have_no_score_and_small_ones_are_refused():
    assert load_niqe()(np.full((96, 192, 3), 90, np.uint8)) is None
    with pytest.raises(InputError, match="two blocks of 96×96; a frame is 128×128"):
        load_niqe()(np.zeros((128, 128, 3), np.uint8))


def test_another_file_is_no_parameters(tmp_path):
    other = tmp_path / "other.npz"
    np.savez(other, mu_pris_param=np.zeros((1, 30)), cov_pris_param=np.eye(30), gaussian_window=0)
    with pytest.raises(InputError, match="no parameters of NIQE: their shapes are"):
        load_niqe(other)
    np.savez(other, a=np.zeros(3))
    with pytest.raises(InputError, match="no parameters of NIQE"):
        load_niqe(other)
    other.write_bytes(b"not an archive")
    with pytest.raises(InputError, match="no parameters of NIQE"):
        load_niqe(other)
    with pytest.raises(InputError, match="cannot be read"):
        load_niqe(tmp_path / "none.npz")
