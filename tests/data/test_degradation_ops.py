"""Single operations, with a test for each fault of the recipe's usual code that can be seen."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from scipy import stats

from realisvsr_jax.data.degradation import kernels, ops
from realisvsr_jax.data.degradation.plan import Blur, Codec, Jpeg, Noise, Resize


def texture(num_frames=8, height=64, width=64, seed=0):
    """Coloured, smooth noise that moves by a pixel a frame; float32 in [0, 255]."""
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.standard_normal((height, width + num_frames, 3)), (0, 0), 1.5)
    field = np.clip(128 + 40 * field / field.std(), 0, 255).astype(np.float32)
    return [np.ascontiguousarray(field[:, t : t + width]) for t in range(num_frames)]


def flat(level, num_frames=2, size=128):
    return [np.full((size, size, 3), level, np.float32)] * num_frames


def noise_of(kind, strength, frames, grey=False, seed=1):
    noisy = ops.add_noise(Noise(kind, grey, (strength,) * len(frames), seed), frames)
    return np.stack(noisy) - np.stack(frames)


def test_bytes_are_clipped_and_rounded_never_wrapped():
    frame = np.array([[[-3.0, 0.4, 0.6], [254.6, 260.0, 1e4]]], np.float32)
    np.testing.assert_array_equal(ops.to_bytes(frame), [[[0, 0, 1], [255, 255, 255]]])


def test_gaussian_noise_has_its_sigma_in_grey_levels():
    noise = noise_of("gaussian", 12.0, flat(100))
    assert noise.std() == pytest.approx(12, rel=0.02)
    assert abs(noise.mean()) < 0.2
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("level", [64, 127, 200])
def test_poisson_noise_has_the_standard_deviation_of_its_definition(level):
    """√(x / 256) in [0, 1]: 11.26 grey levels at 127, where a common port gives 0.71."""
    frame = np.full((130, 128, 3), level, np.float32)
    frame[128:] = np.arange(256).reshape(2, 128, 1)  # every level, so that white is 256 photons
    noise = noise_of("poisson", 1.0, [frame])[0, :128]
    assert noise.std() == pytest.approx(255 * np.sqrt(level / 255 / 256), rel=0.03)
    assert abs(noise.mean()) < 0.3
    assert noise_of("poisson", 2.0, [frame])[0, :128].std() == pytest.approx(
        2 * noise.std(), rel=1e-4
    )


@pytest.mark.parametrize("levels", [1, 16, 256])
def test_poisson_s_table_is_the_distribution(levels):
    """Mean and variance exactly, and no probability off by more than a quantile or two."""
    table = ops.poisson_table(levels).astype(np.float64)
    photons = np.arange(256) * levels / 255
    np.testing.assert_allclose(table.mean(1), 0, atol=2e-5)
    np.testing.assert_allclose(table.var(1), photons * (255 / levels) ** 2, rtol=1e-4)
    for grey_level in (1, 40, 255):
        counts = table[grey_level] * levels / 255 + photons[grey_level]
        seen = np.arange(np.rint(counts.max()) + 1)
        shares = [np.mean(counts < count + 0.5) for count in seen]
        expected = stats.poisson.cdf(seen, photons[grey_level])
        np.testing.assert_allclose(shares, expected, atol=2 / 4096)


def test_the_gaussian_table_is_the_distribution():
    table = ops.gaussian_table().astype(np.float64)
    assert abs(table.mean()) < 1e-6
    assert table.std() == pytest.approx(1, rel=1e-6)
    assert stats.kstest(table, "norm").statistic < 1e-4
    assert np.mean(table**4) == pytest.approx(3, rel=0.01)
    assert np.all(np.diff(table) > 0)


def test_photon_levels_are_counted_over_the_clip():
    few = [np.full((4, 4, 3), level, np.float32) for level in (10, 20, 30)]
    assert ops.photon_levels(few[:1]) == 1
    assert ops.photon_levels(few) == 4
    ramp = np.arange(255, dtype=np.float32).reshape(5, 17, 3)
    assert ops.photon_levels([ramp]) == 256


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_grey_noise_is_equal_in_all_channels_and_coloured_noise_is_not(kind):
    frames = texture(1)
    grey, coloured = (noise_of(kind, 3.0, frames, grey=flag)[0] for flag in (True, False))
    np.testing.assert_allclose(grey[..., 0], grey[..., 2], atol=1e-4)
    assert np.abs(coloured[..., 0] - coloured[..., 2]).mean() > 1


def test_jpeg_loses_more_at_low_quality_and_keeps_the_channel_order():
    frames = texture(2)
    worse, better = (np.stack(ops.jpeg(Jpeg((quality,) * 2), frames)) for quality in (30, 95))
    error = [np.abs(item - np.stack(frames)).mean() for item in (worse, better)]
    assert error[0] > 2 * error[1]
    red = np.zeros((16, 16, 3), np.float32) + np.array([250, 10, 10], np.float32)
    (decoded,) = ops.jpeg(Jpeg((95,)), [red])
    np.testing.assert_allclose(decoded, red, atol=4)


def test_resize_gives_each_frame_its_own_size():
    frames = ops.resize(Resize("down", "area", ((32, 40), (34, 42))), texture(2))
    assert [frame.shape for frame in frames] == [(32, 40, 3), (34, 42, 3)]
    half = ops.resize(Resize("down", "area", ((32, 32),)), texture(1))[0]
    means = texture(1)[0].reshape(32, 2, 32, 2, 3).mean((1, 3))
    np.testing.assert_allclose(half, means, atol=1e-3)


def test_blur_filters_each_frame_with_its_kernel():
    impulse = np.zeros((15, 15, 3), np.float32)
    impulse[7, 7] = 255
    sharp, soft = ops.blur(Blur("iso", 7, (0.5, 2.0)), [impulse] * 2)
    assert sharp[7, 7, 0] > 2 * soft[7, 7, 0]
    assert sharp.sum() == pytest.approx(soft.sum(), rel=1e-4)
    np.testing.assert_allclose(ops.blur(Blur("iso", 7, (2.0,)), flat(90, 1))[0], 90, rtol=1e-5)


def test_isotropic_gaussians_in_two_passes_are_the_filter_with_the_whole_kernel():
    operation = Blur("iso", 15, (0.2, 0.9, 2.9))
    frames = texture(3)
    for t, blurred in enumerate(ops.blur(operation, frames)):
        whole = cv2.filter2D(frames[t], -1, kernels.kernel_of(operation, t))
        np.testing.assert_allclose(blurred, whole, atol=0.006)


@pytest.mark.parametrize("name", ["libx264", "mpeg4"])
@pytest.mark.parametrize("size", [(64, 64), (45, 33), (8, 8)])
def test_the_codec_keeps_every_frame_in_its_place_at_any_size(name, size):
    frames = texture(9, *size)
    coded = ops.video_codec(Codec(name, 20000, size), frames)
    assert [frame.shape for frame in coded] == [(*size, 3)] * 9
    if min(size) > 32:
        for t, frame in enumerate(coded):
            errors = [np.abs(frame - other).mean() for other in frames]
            assert np.argmin(errors) == t


def test_the_codec_makes_frames_of_walked_sizes_equal():
    frames = [cv2.resize(frame, (40 + 2 * t, 40)) for t, frame in enumerate(texture(4))]
    coded = ops.video_codec(Codec("libx264", 20000, (40, 40)), frames)
    assert {frame.shape for frame in coded} == {(40, 40, 3)}


@pytest.mark.parametrize("name", ["libx264", "mpeg4"])
def test_few_bits_lose_more_than_many_behind_the_margin(name):
    """MPEG-4 spends the same on its first frames at any bitrate."""
    frames = ops.add_noise(Noise("gaussian", False, (10.0,) * 20, seed=3), texture(20))

    def errors(bits):
        coded = ops.video_codec(Codec(name, bits, (64, 64)), frames)
        return np.abs(np.stack(coded) - frames).mean((1, 2, 3))

    few, many = errors(600), errors(30000)
    assert few[10:].mean() > 1.2 * many[10:].mean()
    if name == "mpeg4":
        np.testing.assert_allclose(few[:3], many[:3], rtol=1e-6)


def test_bits_per_frame_are_what_the_encoder_spends():
    frames = [ops.to_bytes(frame) for frame in texture(40, 96, 96)]
    packets = ops.encode("libx264", 9000, frames)
    spent = sum(packet.size for packet in packets) * 8 / len(frames)
    assert spent == pytest.approx(9000, rel=0.25)


def test_bitrates_that_a_rate_of_one_could_not_open_are_encoded():
    """libx264 refuses less than 1000 bit/s, so 100 and even 10 bits a frame."""
    frames = [ops.to_bytes(frame) for frame in texture(3, 32, 32)]
    for bits in (100, 10):
        assert len(ops.decode("libx264", ops.encode("libx264", bits, frames))) == 3


CODEC_DIGEST = """
import hashlib
import cv2
import numpy as np
from realisvsr_jax.data.degradation import ops
digest = hashlib.sha256()
rng = np.random.default_rng(0)
for height, width in ((22, 10), (48, 64), (132, 182), (60, 164)):
    frames = [cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), (0, 0), 2)
              for _ in range(6)]
    for name in ("libx264", "mpeg4"):
        for packet in ops.encode(name, height * width // 8, frames):
            digest.update(bytes(packet))
print(digest.hexdigest())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="MALLOC_PERTURB_ is glibc's")
def test_the_encoder_reads_no_memory_that_it_did_not_write():
    """Fresh memory filled with different bytes must not show in the packets."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", CODEC_DIGEST],
            env={**os.environ, "MALLOC_PERTURB_": fill},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for fill in ("85", "255")
    }
    assert len(digests) == 1
