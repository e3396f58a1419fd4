"""PSNR and SSIM equal scikit-image's, in every colour space and input format."""

import numpy as np
import pytest
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals.fidelity import luma, psnr, ssim


@pytest.fixture(scope="module")
def pair():
    """Two related uint8 clips [3, 40, 37, 3] of different quality a frame."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (3, 40, 37, 3)).astype(np.uint8)
    noise = rng.normal(size=a.shape) * np.array([5, 20, 60])[:, None, None, None]
    return a, np.clip(a + noise, 0, 255).astype(np.uint8)


def planes(frame, space):
    return {
        "rgb": lambda: frame.astype(float),
        "y": lambda: frame @ np.array([0.299, 0.587, 0.114]),
        "matlab_y": lambda: rgb2ycbcr(frame)[..., 0],
    }[space]()


@pytest.mark.parametrize("space", ["rgb", "y", "matlab_y"])
def test_scores_equal_scikit_image_frame_by_frame(pair, space):
    frames = [(planes(x, space), planes(y, space)) for x, y in zip(*pair)]
    expected = [peak_signal_noise_ratio(x, y, data_range=255) for x, y in frames]
    assert psnr(*pair, space=space) == pytest.approx(np.mean(expected), abs=1e-9)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    options |= {"data_range": 255, "channel_axis": -1 if space == "rgb" else None}
    expected = [structural_similarity(x, y, **options) for x, y in frames]
    assert ssim(*pair, space=space) == pytest.approx(np.mean(expected), abs=1e-9)


def test_defaults_are_psnr_on_rgb_and_ssim_on_y(pair):
    assert psnr(*pair) == psnr(*pair, space="rgb")
    assert ssim(*pair) == ssim(*pair, space="y")


def test_matlab_luma_has_its_known_values():
    black_white_red = np.array([[[0.0, 0, 0], [255, 255, 255], [255, 0, 0]]])
    np.testing.assert_allclose(luma(black_white_red, matlab=True), [[16, 235, 81.481]])
    np.testing.assert_allclose(luma(black_white_red), [[0, 255, 76.245]])


def test_matlab_luma_adds_its_constant_to_psnr(pair):
    gain = 20 * np.log10(255 / 219)
    assert psnr(*pair, space="matlab_y") - psnr(*pair, space="y") == pytest.approx(gain, abs=1e-6)


def test_bytes_and_floats_score_alike(pair):
    a, b = pair
    floats = [frames / 127.5 - 1.0 for frames in pair]
    assert psnr(*floats) == pytest.approx(psnr(a, b), abs=1e-9)
    assert ssim(floats[0], b) == pytest.approx(ssim(a, b), abs=1e-9)
    single = [f.astype(np.float32) for f in floats]
    assert psnr(*single) == pytest.approx(psnr(a, b), abs=1e-4)


def test_equal_clips_are_perfect_and_unrelated_noise_is_not(pair):
    a, _ = pair
    assert psnr(a, a) == float("inf")
    assert ssim(a, a) == pytest.approx(1.0)
    other = np.random.default_rng(1).integers(0, 256, a.shape).astype(np.uint8)
    assert abs(ssim(a, other)) < 0.05


def test_a_video_batch_is_the_mean_of_its_frames(pair):
    a, b = pair
    alone = np.mean([ssim(x, y) for x, y in zip(a, b)])
    assert ssim(a[None], b[None]) == pytest.approx(alone, abs=1e-12)


def test_sizes_that_differ_are_both_named(pair):
    a, b = pair
    for metric in (psnr, ssim):
        with pytest.raises(InputError, match=r"\(3, 40, 37, 3\) and \(3, 40, 36, 3\)"):
            metric(a, b[:, :, :-1])


def test_frames_that_cannot_be_scored_are_refused(pair):
    a, b = pair
    with pytest.raises(InputError, match=r"float frames must lie in \[−1, 1\]"):
        psnr(a.astype(float), b.astype(float))
    with pytest.raises(InputError, match="float frames must lie"):
        psnr(a / 127.5 - 1, np.full(b.shape, np.nan))
    with pytest.raises(InputError, match="not int64"):
        psnr(a.astype(np.int64), b.astype(np.int64))
    with pytest.raises(InputError, match="11×11 or more"):
        ssim(a[:, :10], b[:, :10])
    with pytest.raises(InputError, match="H W 3, got"):
        psnr(a[..., 0], b[..., 0])
    with pytest.raises(InputError, match="known: rgb, y, matlab_y"):
        psnr(a, b, space="lab")
