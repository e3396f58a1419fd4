"""The seven kernel families: unit sum, moments, symmetry, limits."""

import math

import numpy as np
import pytest

from realisvsr_jax.data.degradation import kernels
from realisvsr_jax.data.degradation.plan import Blur

FAMILIES = [
    Blur("iso", 21, (1.5,)),
    Blur("aniso", 21, (2.0,), (0.7,), (0.6,)),
    Blur("generalized_iso", 21, (1.5,), beta=(0.7,)),
    Blur("generalized_aniso", 21, (2.0,), (0.7,), (0.6,), (2.0,)),
    Blur("plateau_iso", 21, (1.5,), beta=(1.5,)),
    Blur("plateau_aniso", 21, (2.0,), (0.7,), (0.6,), (1.5,)),
    Blur("sinc", 21, omega=(1.2,)),
]


@pytest.mark.parametrize("blur", FAMILIES, ids=lambda blur: blur.kind)
def test_kernels_keep_the_brightness_and_do_not_shift(blur):
    kernel = kernels.kernel_of(blur, 0)
    assert kernel.shape == (21, 21)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-7)
    assert kernel[10, 10] == kernel.max()


@pytest.mark.parametrize("blur", FAMILIES, ids=lambda blur: blur.kind)
def test_isotropic_kernels_are_symmetric_and_anisotropic_ones_are_not(blur):
    kernel = kernels.kernel_of(blur, 0)
    spread = np.abs(kernel - np.rot90(kernel)).max() / kernel.max()
    assert spread > 0.1 if blur.kind.endswith("aniso") else spread < 1e-5


def test_a_gaussian_s_covariance_is_the_rotated_one():
    """Σ = R diag(σx², σy²) Rᵀ, measured by the kernel's second moments."""
    sigma_x, sigma_y, angle = 2.0, 1.0, 0.5
    kernel = kernels.kernel_of(Blur("aniso", 21, (sigma_x,), (sigma_y,), (angle,)), 0)
    y, x = np.mgrid[-10:11, -10:11]
    moments = [[(kernel * a * b).sum() for b in (x, y)] for a in (x, y)]
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = turn @ np.diag([sigma_x**2, sigma_y**2]) @ turn.T
    np.testing.assert_allclose(moments, expected, rtol=0.01)


def test_beta_one_is_the_gaussian_and_larger_is_flatter():
    gaussian = kernels.kernel_of(Blur("iso", 15, (1.5,)), 0)
    same = kernels.kernel_of(Blur("generalized_iso", 15, (1.5,), beta=(1.0,)), 0)
    flat = kernels.kernel_of(Blur("generalized_iso", 15, (1.5,), beta=(4.0,)), 0)
    np.testing.assert_allclose(same, gaussian, rtol=1e-6)
    assert flat[7, 8] / flat[7, 7] > gaussian[7, 8] / gaussian[7, 7]


def test_a_plateau_is_half_as_high_at_one_sigma():
    kernel = kernels.kernel_of(Blur("plateau_iso", 15, (3.0,), beta=(2.0,)), 0)
    assert kernel[7, 10] / kernel[7, 7] == pytest.approx(0.5, rel=1e-5)


def test_sinc_passes_what_is_below_its_cut_off_and_stops_what_is_above():
    kernel = kernels.sinc(21, math.pi / 2)
    response = np.abs(np.fft.fft2(kernel, (64, 64)))[0]
    frequency = np.arange(33) * 2 * math.pi / 64
    passed, stopped = frequency < math.pi / 3, frequency > 2 * math.pi / 3
    np.testing.assert_allclose(response[:33][passed], 1, atol=0.15)
    assert response[:33][stopped].max() < 0.15


def test_each_frame_has_the_kernel_of_its_own_parameters():
    blur = Blur("iso", 7, (0.5, 2.0))
    sharp, soft = (kernels.kernel_of(blur, t) for t in (0, 1))
    assert sharp[3, 3] > 2 * soft[3, 3]
    np.testing.assert_array_equal(soft, kernels.kernel_of(Blur("iso", 7, (2.0,)), 0))


@pytest.mark.parametrize("blur", FAMILIES, ids=lambda blur: blur.kind)
def test_trimmed_kernels_lose_nothing_that_shows(blur):
    """Against a frame of 0 and 255 that makes the most of what was cut off."""
    kernel = kernels.kernel_of(blur, 0)
    trimmed = kernels.trimmed(kernel)
    margin = (21 - len(trimmed)) // 2
    assert margin * 2 + len(trimmed) == 21
    assert trimmed.dtype == np.float32
    change = kernel - np.pad(trimmed, margin)
    assert 255 * max(change.clip(0).sum(), -change.clip(None, 0).sum()) < 0.006


def test_narrow_gaussians_are_trimmed_and_tailed_kernels_are_not():
    sizes = {
        kind: len(kernels.trimmed(kernels.kernel_of(blur, 0)))
        for kind, blur in {
            "narrow": Blur("iso", 21, (0.5,)),
            "nothing": Blur("iso", 21, (0.1,)),
            "wide": Blur("iso", 21, (3.0,)),
            "plateau": Blur("plateau_iso", 21, (0.5,), beta=(1.0,)),
        }.items()
    }
    assert sizes == {"narrow": 5, "nothing": 1, "wide": 21, "plateau": 21}
