"""One-level Haar bands of a latent and the wavelet loss (Eq. 4).

The transform is orthonormal: the squares of the four bands sum to those of the latent.
A band's first letter is the filter along the width, its second that along the height: LH
(low, then high) holds what changes from row to row, horizontal edges, PyWavelets' cH.
"""

from typing import NamedTuple

import jax.numpy as jnp
import jaxwt
from einops import rearrange
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent

Band = Float[Array, "b t h/2 w/2 c"]


class Bands(NamedTuple):
    """The four half-size bands, in the order of the paper's weights."""

    ll: Band
    lh: Band
    hl: Band
    hh: Band


def haar_bands(latent: Latent) -> Bands:
    """Haar transform of one level over h and w of each latent frame.

    Raises ValueError where h or w is odd: padding would count border pixels twice.
    """
    _, _, height, width, _ = latent.shape
    if height % 2 or width % 2:
        raise ValueError(f"the wavelet loss needs even latent sizes, got h={height}, w={width}")
    images = rearrange(latent, "b t h w c -> b t c h w")  # jaxwt's own `axes` fails under jit
    coarse, details = jaxwt.wavedec2(images, "haar", level=1)
    bands = (jnp.asarray(band) for band in (coarse, *details))
    return Bands(*(rearrange(band, "b t c h w -> b t h w c") for band in bands))


def wavelet_loss(
    velocity: Latent, target: Latent, weights: tuple[float, float, float, float]
) -> Float[Array, ""]:
    """Σ_k w_k · (sum of squared differences in band k) / (elements of the latent); Eq. 4.

    `weights` are those of LL, LH, HL, HH. By Parseval, weights of 1 give the mean square of
    `velocity − target`, the first row of the paper's Table 5. The transform being linear, it
    is applied once, to the difference.
    """
    bands = haar_bands(velocity - target)
    total = sum(w * jnp.sum(jnp.square(band)) for w, band in zip(weights, bands, strict=True))
    return jnp.asarray(total) / velocity.size
