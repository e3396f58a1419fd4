"""Blur kernels: float32 [size, size], odd size, sum 1.

With q = xᵀ Σ⁻¹ x for the rotated covariance Σ = R diag(σx², σy²) Rᵀ (Real-ESRGAN):
Gaussian exp(−q/2); generalised exp(−q^β/2) (Pascal et al. 2013); plateau 1/(1 + q^β);
sinc, the circular low-pass of cut-off ω: ω J₁(ω r) / (2π r).
"""

import numpy as np
from jaxtyping import Float32
from scipy import special

from realisvsr_jax.data.degradation.plan import Blur

Kernel = Float32[np.ndarray, "size size"]

TRIM = 1e-5  # of a kernel's weight: below 0.006 of 255 grey levels


def kernel_of(blur: Blur, frame: int) -> Kernel:
    """The kernel of frame number `frame`."""
    if blur.kind == "sinc":
        return sinc(blur.size, blur.omega[frame])
    sigma_x = blur.sigma_x[frame]
    sigma_y = blur.sigma_y[frame] if blur.sigma_y else sigma_x
    angle = blur.angle[frame] if blur.angle else 0.0
    q = mahalanobis(blur.size, sigma_x, sigma_y, angle)
    family = blur.kind.rpartition("_")[0]
    if family == "plateau":
        kernel = 1 / (1 + q ** blur.beta[frame])
    elif family == "generalized":
        kernel = np.exp(-0.5 * q ** blur.beta[frame])
    else:
        kernel = np.exp(-0.5 * q)
    return _unit(kernel)


def mahalanobis(size: int, sigma_x: float, sigma_y: float, angle: float) -> np.ndarray:
    """q at each pixel of a [size, size] grid centred at 0; the x axis turned by `angle`."""
    y, x = _grid(size)
    cos, sin = np.cos(angle), np.sin(angle)
    return ((cos * x + sin * y) / sigma_x) ** 2 + ((cos * y - sin * x) / sigma_y) ** 2


def sinc(size: int, omega: float) -> Kernel:
    """Low-pass that keeps frequencies below `omega` (radians a pixel, π = all)."""
    y, x = _grid(size)
    r = np.hypot(x, y)
    centre = r == 0
    r[centre] = 1
    kernel = omega * special.j1(omega * r) / (2 * np.pi * r)
    kernel[centre] = omega**2 / (4 * np.pi)
    return _unit(kernel)


def trimmed(kernel: Kernel) -> Float32[np.ndarray, "small small"]:
    """Its middle, sum 1, without the margin that holds less than TRIM of its weight.

    A σ of one pixel leaves 9 of 21, and what filters cost grows faster than their size.
    """
    weights = np.abs(kernel)
    margin = next(
        margin
        for margin in range(len(kernel) // 2, -1, -1)
        if weights.sum() - _middle(weights, margin).sum() <= TRIM * weights.sum()
    )
    return _unit(_middle(kernel, margin))


def _middle(kernel: np.ndarray, margin: int) -> np.ndarray:
    return kernel[margin : len(kernel) - margin, margin : len(kernel) - margin]


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    line = np.arange(size, dtype=np.float64) - size // 2
    return line[:, None], line[None, :]


def _unit(kernel: np.ndarray) -> Kernel:
    return (kernel / kernel.sum()).astype(np.float32)
