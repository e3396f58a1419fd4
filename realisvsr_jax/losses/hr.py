"""The high-frequency rectified loss: L_HR = L_WLF + L_HOG + L_REC (Eq. 6)."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent
from realisvsr_jax.losses.hog import HOGConfig, hog_loss
from realisvsr_jax.losses.wavelet import wavelet_loss

Scalar = Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class HRLossConfig:
    """Weights of the three terms, of the bands LL, LH, HL, HH, and the HOG's shape.

    A term of weight 0 is not computed (rec=1, wavelet=0, hog=0 is plain rectified flow).
    """

    rec: float = 1.0
    wavelet: float = 1.0
    hog: float = 1.0
    wavelet_weights: tuple[float, float, float, float] = (1.0, 2.0, 2.0, 2.0)
    hog_features: HOGConfig = dataclasses.field(default_factory=HOGConfig)


def hr_loss(
    velocity: Latent, target: Latent, config: HRLossConfig = HRLossConfig()
) -> tuple[Scalar, dict[str, Scalar]]:
    """The weighted sum of the terms, and each computed term before its weight.

    `velocity` is the network's, `target` is ε − x0 (Eq. 3 as printed has another sign; Eqs.
    4–6 have this one), both in float32. Raises ValueError where the latent's size does not
    suit a term (odd for the wavelet, under 3×3 cells for HOG) or no term has a weight.
    """
    terms: dict[str, Scalar] = {}
    if config.rec:
        terms["rec"] = jnp.mean(jnp.square(velocity - target))
    if config.wavelet:
        terms["wavelet"] = wavelet_loss(velocity, target, config.wavelet_weights)
    if config.hog:
        terms["hog"] = hog_loss(velocity, target, config.hog_features)
    if not terms:
        raise ValueError("every term of the loss has weight 0")
    weighted = [getattr(config, name) * value for name, value in terms.items()]
    return jnp.sum(jnp.stack(weighted)), terms
