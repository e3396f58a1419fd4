"""The numbers of the recipe: what is drawn from which range, and how far it walks a frame.

`paper` is RealBasicVSR's recipe, which RealisVSR and its peers train and test with;
`static` is `paper` without the walks; `light` is the same pipeline, gentler.
"""

import dataclasses
import math
from dataclasses import dataclass

from realisvsr_jax.errors import InputError
from realisvsr_jax.settings import nearest

Range = tuple[float, float]


@dataclass(frozen=True)
class Span:
    """A parameter's range and the half-width of its uniform step from frame to frame."""

    low: float
    high: float
    step: float = 0.0

    @property
    def range(self) -> Range:
        return (self.low, self.high)


@dataclass(frozen=True)
class BlurRecipe:
    """Kernel families with their odds; σ in pixels, angles and ω in radians."""

    probability: float
    sigma: Span
    kinds: tuple[str, ...] = (
        "iso",
        "aniso",
        "generalized_iso",
        "generalized_aniso",
        "plateau_iso",
        "plateau_aniso",
        "sinc",
    )
    odds: tuple[float, ...] = (0.405, 0.225, 0.108, 0.027, 0.108, 0.027, 0.1)
    sizes: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    angle: Span = Span(-math.pi, math.pi, 0.31416)
    beta_generalized: Span = Span(0.5, 4.0, 0.05)
    beta_plateau: Span = Span(1.0, 2.0, 0.1)
    omega_small: Span = Span(math.pi / 3, math.pi, 0.0628)
    omega_large: Span = Span(math.pi / 5, math.pi, 0.0628)
    large_from: int = 13


@dataclass(frozen=True)
class ResizeRecipe:
    """Odds of up, down and keep; `scale` relative to the size before this resize."""

    odds: tuple[float, float, float]
    scale: Span
    interpolations: tuple[str, ...] = ("bilinear", "area", "bicubic")


@dataclass(frozen=True)
class NoiseRecipe:
    """Gaussian σ in grey levels of 255; `poisson` multiplies photon noise (see `ops`)."""

    gaussian: Span
    poisson: Span
    gaussian_odds: float = 0.5
    grey_odds: float = 0.4


@dataclass(frozen=True)
class CodecRecipe:
    """Bits a frame of a 256 × 256 clip; names in circulation give H.264 two thirds."""

    bits_per_frame: Range = (1e4, 1e5)
    names: tuple[str, ...] = ("libx264", "mpeg4")
    odds: tuple[float, ...] = (2 / 3, 1 / 3)


@dataclass(frozen=True)
class OrderRecipe:
    """Blur, resize, noise, JPEG; the codec follows, or is shuffled in the second order."""

    blur: BlurRecipe
    resize: ResizeRecipe
    noise: NoiseRecipe
    jpeg_quality: Span
    codec: CodecRecipe


@dataclass(frozen=True)
class Preset:
    """Two orders and the closing sinc filter."""

    first: OrderRecipe
    second: OrderRecipe
    final_sinc: BlurRecipe


def _static(recipe):
    """The same recipe with every walk's step 0."""
    changes = {}
    for field in dataclasses.fields(recipe):
        value = getattr(recipe, field.name)
        if isinstance(value, Span):
            changes[field.name] = dataclasses.replace(value, step=0.0)
        elif dataclasses.is_dataclass(value):
            changes[field.name] = _static(value)
    return dataclasses.replace(recipe, **changes)


_FINAL_SINC = BlurRecipe(
    probability=0.8,
    sigma=Span(0.0, 0.0),
    kinds=("sinc",),
    odds=(1.0,),
    omega_large=Span(math.pi / 3, math.pi, 0.0628),
)

_PAPER = Preset(
    first=OrderRecipe(
        blur=BlurRecipe(probability=1.0, sigma=Span(0.2, 3.0, 0.02)),
        resize=ResizeRecipe(odds=(0.2, 0.7, 0.1), scale=Span(0.15, 1.5, 0.015)),
        noise=NoiseRecipe(gaussian=Span(1.0, 30.0, 0.1), poisson=Span(0.05, 3.0, 0.005)),
        jpeg_quality=Span(30.0, 95.0, 3.0),
        codec=CodecRecipe(),
    ),
    second=OrderRecipe(
        blur=BlurRecipe(probability=0.8, sigma=Span(0.2, 1.5, 0.02)),
        resize=ResizeRecipe(odds=(0.3, 0.4, 0.3), scale=Span(0.3, 1.2, 0.03)),
        noise=NoiseRecipe(gaussian=Span(1.0, 25.0, 0.1), poisson=Span(0.05, 2.5, 0.005)),
        jpeg_quality=Span(30.0, 95.0, 3.0),
        codec=CodecRecipe(),
    ),
    final_sinc=_FINAL_SINC,
)

_LIGHT = Preset(
    first=OrderRecipe(
        blur=BlurRecipe(probability=1.0, sigma=Span(0.2, 1.5, 0.02)),
        resize=ResizeRecipe(odds=(0.2, 0.6, 0.2), scale=Span(0.5, 1.2, 0.015)),
        noise=NoiseRecipe(gaussian=Span(1.0, 10.0, 0.1), poisson=Span(0.05, 1.0, 0.005)),
        jpeg_quality=Span(60.0, 95.0, 3.0),
        codec=CodecRecipe(bits_per_frame=(5e4, 2e5)),
    ),
    second=OrderRecipe(
        blur=BlurRecipe(probability=0.5, sigma=Span(0.2, 0.8, 0.02)),
        resize=ResizeRecipe(odds=(0.2, 0.4, 0.4), scale=Span(0.6, 1.2, 0.03)),
        noise=NoiseRecipe(gaussian=Span(1.0, 6.0, 0.1), poisson=Span(0.05, 0.6, 0.005)),
        jpeg_quality=Span(60.0, 95.0, 3.0),
        codec=CodecRecipe(bits_per_frame=(5e4, 2e5)),
    ),
    final_sinc=dataclasses.replace(_FINAL_SINC, probability=0.5),
)

PRESETS: dict[str, Preset] = {"paper": _PAPER, "static": _static(_PAPER), "light": _LIGHT}


def preset_named(name: str) -> Preset:
    """The preset called `name`; raises InputError that names the nearest known one."""
    if name not in PRESETS:
        raise InputError(f"unknown degradation preset {name!r}{nearest(name, PRESETS)}")
    return PRESETS[name]
