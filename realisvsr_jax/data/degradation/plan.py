"""What will happen to a clip, drawn before any pixel is seen.

A plan is the list of operations in the order of their application, with every per-frame
walk resolved into one number a frame and a seed for each noise field: equal plans on equal
frames give equal results. Recipe: RealBasicVSR (Chan et al., CVPR 2022), as in
docs/degradation.md, which also lists where this departs from the code in circulation.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from realisvsr_jax.data.degradation.presets import (
    BlurRecipe,
    CodecRecipe,
    NoiseRecipe,
    OrderRecipe,
    ResizeRecipe,
    Span,
    preset_named,
)
from realisvsr_jax.errors import InputError
from realisvsr_jax.settings import from_mapping, to_mapping

MIN_SIDE = 8  # a JPEG block; the paper's 256 × 256 clips never come below 10
ANCHOR_AREA = 256 * 256  # the clip size that the codec's bitrates are meant for


@dataclass(frozen=True)
class Blur:
    """One kernel family and size for the clip; a walk is empty where the family has no use
    for it (`sigma_y`, `angle`: anisotropic; `beta`: generalised, plateau; `omega`: sinc)."""

    kind: str
    size: int
    sigma_x: tuple[float, ...] = ()
    sigma_y: tuple[float, ...] = ()
    angle: tuple[float, ...] = ()
    beta: tuple[float, ...] = ()
    omega: tuple[float, ...] = ()


@dataclass(frozen=True)
class Resize:
    """(height, width) of each frame; `mode` is up, down, keep, or target (the LQ size)."""

    mode: str
    interpolation: str
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Noise:
    """`strength` is σ in grey levels (gaussian) or the factor on photon noise (poisson)."""

    kind: str
    grey: bool
    strength: tuple[float, ...]
    seed: int


@dataclass(frozen=True)
class Jpeg:
    """Quality of each frame, 0..100."""

    quality: tuple[int, ...]


@dataclass(frozen=True)
class Codec:
    """A video encoder at `bits_per_frame`; all frames are first brought to `size`."""

    name: str
    bits_per_frame: int
    size: tuple[int, int]


Operation = Blur | Resize | Noise | Jpeg | Codec
_OPERATIONS: dict[str, Any] = {
    "blur": Blur,
    "resize": Resize,
    "noise": Noise,
    "jpeg": Jpeg,
    "codec": Codec,
}


@dataclass(frozen=True)
class DegradationPlan:
    """Operations for a clip of `num_frames` × `height` × `width`, in order; the result has
    size (height / scale, width / scale)."""

    preset: str
    num_frames: int
    height: int
    width: int
    scale: int
    operations: tuple[Operation, ...]

    def to_json(self) -> str:
        """One line of JSON; `from_json` gives back an equal plan, bit for bit."""
        operations = [
            {"op": type(item).__name__.lower(), **to_mapping(item)} for item in self.operations
        ]
        return json.dumps({**to_mapping(self), "operations": operations})

    @classmethod
    def from_json(cls, text: str) -> "DegradationPlan":
        """Raises InputError for text that is not a plan."""
        try:
            mapping = json.loads(text)
            operations = tuple(_operation(item) for item in mapping.pop("operations"))
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise InputError(f"not a degradation plan: {error}") from error
        return from_mapping(cls, {**mapping, "operations": operations}, "plan")


def _operation(item: Mapping[str, Any]) -> Operation:
    settings = {key: value for key, value in item.items() if key != "op"}
    return from_mapping(_OPERATIONS[item["op"]], settings, item["op"])


def sample_plan(
    rng: np.random.Generator,
    num_frames: int,
    height: int,
    width: int,
    scale: int = 4,
    preset: str = "paper",
) -> DegradationPlan:
    """Draws a plan; a pure function of the generator's state and the arguments.

    Raises ValueError where the size does not divide by `scale`, InputError for a preset
    that does not exist.
    """
    recipe = preset_named(preset)
    if num_frames < 1:
        raise ValueError(f"a clip needs at least 1 frame, not {num_frames}")
    if scale < 1 or height < scale or width < scale or height % scale or width % scale:
        raise ValueError(f"clip size {height}x{width} does not divide by the scale {scale}")
    draw = _Draw(rng, num_frames, area=height * width)
    operations, size = draw.order(recipe.first, (height, width))
    operations.append(draw.codec(recipe.first.codec, size))
    more, size = draw.order(recipe.second, size)
    operations += more

    target = (height // scale, width // scale)
    to_target: list[Operation] = [draw.resize_to(recipe.second.resize, target)]
    to_target += draw.blur(recipe.final_sinc)
    if rng.random() < 0.5:
        operations += [draw.codec(recipe.second.codec, size), *to_target]
    else:
        operations += [*to_target, draw.codec(recipe.second.codec, target)]
    return DegradationPlan(preset, num_frames, height, width, scale, tuple(operations))


class _Draw:
    """Draws single operations for one clip from one generator."""

    def __init__(self, rng: np.random.Generator, num_frames: int, area: int):
        self.rng = rng
        self.num_frames = num_frames
        self.area = area

    def order(
        self, recipe: OrderRecipe, size: tuple[int, int]
    ) -> tuple[list[Operation], tuple[int, int]]:
        """Blur to JPEG, and the clip's common size behind them (that of its first frame)."""
        resize = self.resize(recipe.resize, size)
        operations = [
            *self.blur(recipe.blur),
            resize,
            self.noise(recipe.noise),
            self.jpeg(recipe.jpeg_quality),
        ]
        return operations, resize.sizes[0]

    def blur(self, recipe: BlurRecipe) -> list[Operation]:
        """No operation or one."""
        if self.rng.random() >= recipe.probability:
            return []
        kind = self.choose(recipe.kinds, recipe.odds)
        size = self.choose(recipe.sizes)
        if kind == "sinc":
            omega = recipe.omega_small if size < recipe.large_from else recipe.omega_large
            return [Blur(kind, size, omega=self.walk(omega))]
        anisotropic = kind.endswith("aniso")
        betas = {"generalized": recipe.beta_generalized, "plateau": recipe.beta_plateau}
        beta = betas.get(kind.partition("_")[0])
        return [
            Blur(
                kind,
                size,
                sigma_x=self.walk(recipe.sigma),
                sigma_y=self.walk(recipe.sigma) if anisotropic else (),
                angle=self.walk(recipe.angle) if anisotropic else (),
                beta=self.walk(beta) if beta else (),
            )
        ]

    def resize(self, recipe: ResizeRecipe, size: tuple[int, int]) -> Resize:
        """Sizes of a walking scale; `keep` stays at `size` in every frame."""
        interpolation = self.choose(recipe.interpolations)
        mode = self.choose(("up", "down", "keep"), recipe.odds)
        if mode == "keep":
            scales = (1.0,) * self.num_frames
        else:
            low, high = (1.0, recipe.scale.high) if mode == "up" else (recipe.scale.low, 1.0)
            scales = self.walk(recipe.scale, start=self.rng.uniform(low, high))
        sizes = tuple((_even(size[0] * s), _even(size[1] * s)) for s in scales)
        return Resize(mode, interpolation, sizes)

    def resize_to(self, recipe: ResizeRecipe, size: tuple[int, int]) -> Resize:
        interpolation = self.choose(recipe.interpolations)
        return Resize("target", interpolation, (size,) * self.num_frames)

    def noise(self, recipe: NoiseRecipe) -> Noise:
        gaussian = bool(self.rng.random() < recipe.gaussian_odds)
        grey = bool(self.rng.random() < recipe.grey_odds)
        strength = self.walk(recipe.gaussian if gaussian else recipe.poisson)
        seed = int(self.rng.integers(2**32))
        return Noise("gaussian" if gaussian else "poisson", grey, strength, seed)

    def jpeg(self, quality: Span) -> Jpeg:
        """Rounded after every step, so that small steps can fall back to nothing."""
        value = round(self.rng.uniform(*quality.range))
        values = [value]
        for step in self._steps(quality):
            value = round(min(max(value + step, quality.low), quality.high))
            values.append(value)
        return Jpeg(tuple(values))

    def codec(self, recipe: CodecRecipe, size: tuple[int, int]) -> Codec:
        """Bits a frame are drawn for 256 × 256 and follow the area of the whole clip."""
        name = self.choose(recipe.names, recipe.odds)
        bits = self.rng.uniform(*recipe.bits_per_frame) * self.area / ANCHOR_AREA
        return Codec(name, max(round(bits), 1), size)

    def choose(self, items: Sequence, odds: Sequence[float] | None = None):
        return items[int(self.rng.choice(len(items), p=odds))]

    def walk(self, span: Span, start: float | None = None) -> tuple[float, ...]:
        """value[0] uniform (or `start`); value[i+1] = clip(value[i] + U(−step, step))."""
        value = float(self.rng.uniform(*span.range)) if start is None else start
        values = [value]
        for step in self._steps(span):
            value = min(max(value + step, span.low), span.high)
            values.append(value)
        return tuple(values)

    def _steps(self, span: Span) -> list[float]:
        return self.rng.uniform(-span.step, span.step, self.num_frames - 1).tolist()


def _even(length: float) -> int:
    return max(2 * int(length // 2), MIN_SIDE)
