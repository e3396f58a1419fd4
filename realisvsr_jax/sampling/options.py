"""What a user may ask of a restoration, and its checks."""

import math
import numbers
from dataclasses import dataclass
from typing import Any

from realisvsr_jax.errors import InputError
from realisvsr_jax.sampling.color import METHODS
from realisvsr_jax.settings import nearest

FUSES = ("steps", "end")
Number = int | float


@dataclass(frozen=True)
class Options:
    """Of the restoration of a scene; None means what the release says.

    The first eight are those of `Restorer.restore`. Raises InputError for what is out of range.
    """

    scale: Number = 4.0
    steps: int | None = None
    seed: int = 0
    color: str = "wavelet"
    guidance: Number | None = None
    prompt: str | None = None
    negative_prompt: str = ""
    condition_scale: Number = 1.0
    tile: tuple[int, int] | None = None
    """Pixels (height, width) of the result that the network sees at once."""
    window: int | None = None
    """Frames that the network sees at once."""
    batch: int = 0
    """Tiles in one call of the network, on all devices together; 0 is as many as `sampler_memory`
    has room for, of use to the device, and one a device where that is None."""
    fuse: str = "steps"
    """"steps": tiles are blended at every step, as one sample; "end": each is sampled by itself."""
    vae_memory: int | None = None
    """Bytes of the device for a program of the VAE; None is no limit."""
    sampler_memory: int | None = None
    """Bytes of the device that the sampler may take to have more tiles in one call."""
    carry: int | None = None
    """Bytes of the host for the VAE's caches from window to window, encoder and decoder each;
    None is no limit. Below what they take, the VAE starts anew a little before each window."""

    def __post_init__(self) -> None:
        check_options(
            self.scale, self.steps, self.seed, self.color, self.guidance, self.condition_scale
        )
        for name, value in zip(("tile height", "tile width"), self.tile or ()):
            _check_integer(name, value, 1)
        for name in ("window", "vae_memory", "sampler_memory", "carry"):
            value = getattr(self, name)
            if value is not None:
                _check_integer(name, value, 0 if name == "carry" else 1)
        _check_integer("batch", self.batch, 0)
        if self.fuse not in FUSES:
            raise InputError(f"fuse is {self.fuse!r}; known: {', '.join(FUSES)}")


def check_options(
    scale: Any, steps: Any, seed: Any, method: Any, guidance: Any, condition_scale: Any
) -> None:
    """Raises InputError for the first option of `Restorer.restore` that is out of range."""
    _check_real("scale", scale)
    if scale < 1:
        raise InputError(f"scale is {scale}; give 1 or more")
    if steps is not None:
        _check_integer("steps", steps, 1)
    _check_integer("seed", seed, 0, 2**32 - 1)
    if method not in METHODS:
        raise InputError(f"unknown colour correction {method!r}{nearest(str(method), METHODS)}")
    if guidance is not None:
        _check_real("guidance", guidance)
        if guidance < 1:
            raise InputError(f"guidance is {guidance}; give 1 or more (1 is without)")
    _check_real("condition_scale", condition_scale)


def _check_real(name: str, value: Any) -> None:
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}; give a number")


def _check_integer(name: str, value: Any, low: int, high: int | None = None) -> None:
    whole = isinstance(value, numbers.Integral)
    if not whole or int(value) < low or (high is not None and int(value) > high):
        end = "" if high is None else f" up to {high}"
        raise InputError(f"{name} is {value!r}; give a whole number from {low}{end}")
