"""Convolution over time, height and width that never looks ahead.

`(x, cache) -> (y, cache)`: the cache holds the last input frames that the next chunk needs;
None starts a stream, with zeros before its first frame.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

Features = Float[Array, "b t h w c"]
Resized = Float[Array, "b s y x d"]
"""What a layer makes of `Features`: perhaps other frames, size and channels."""
Cache = Float[Array, "b k h w c"]


@dataclass(frozen=True)
class Lowering:
    """How products are computed; the weights know nothing of it.

    `implementation` of a convolution: 'native' is one 3D convolution, 'taps' the sum of kt 2D ones,
    which is some 2–4 times faster on the CPU in training; 'auto' chooses by the backend.
    `precision` of all products of float32: 'highest' is float32; 'high' rounds their factors to
    TF32 on NVIDIA's GPUs, as PyTorch does by default, and multiplies in three passes of bfloat16 on
    TPUs; on a CPU both are float32.
    """

    implementation: str = "auto"
    precision: str = "highest"

    def check(self) -> None:
        """Raises ValueError, with the known names, for others."""
        if self.implementation not in ("auto", "native", "taps"):
            raise ValueError(f"unknown convolution {self.implementation!r}: auto, native or taps")
        if self.precision not in ("highest", "high"):
            raise ValueError(f"unknown precision {self.precision!r}: highest or high")

    @property
    def of_products(self) -> lax.Precision:
        """JAX's name of the precision; without one, TPUs and GPUs round to less than either."""
        return lax.Precision[self.precision.upper()]


FLOAT32 = Lowering()


class CausalConv(nnx.Module):
    """kernel (kt, kh, kw); "same" in space, causal in time; a kt of 1 is a 2D convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int],
        *,
        rngs: nnx.Rngs,
        zero: bool = False,
        lowering: Lowering = FLOAT32,
    ):
        lowering.check()
        init = nnx.initializers.zeros if zero else nnx.initializers.lecun_normal()
        shape = (*kernel, in_channels, out_channels)
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels))
        self.lowering = lowering

    def __call__(self, x: Features, cache: Cache | None = None) -> tuple[Resized, Cache]:
        """Same number of frames out as in."""
        x = join(cache, x, self.kernel.shape[0] - 1)
        history = x[:, x.shape[1] - (self.kernel.shape[0] - 1) :]
        return self.valid(x), history

    def valid(self, x: Features, time_stride: int = 1) -> Resized:
        """No padding in time; "same" zero padding in space."""
        sides = [((size - 1) // 2, size // 2) for size in self.kernel.shape[1:3]]
        return self.apply(x, time_stride, 1, sides)

    def halve(self, x: Features) -> Resized:
        """Every second row and column, padded right and bottom only (Wan2.1 vae.py)."""
        return self.apply(x, 1, 2, [(0, 1), (0, 1)])

    def apply(
        self, x: Features, time_stride: int, space_stride: int, sides: list[tuple[int, int]]
    ) -> Resized:
        """The convolution itself, by the chosen implementation."""
        kernel = self.kernel[...]
        implementation, precision = self.lowering.implementation, self.lowering.of_products
        on_cpu = jax.default_backend() == "cpu"
        if implementation == "native" or (implementation == "auto" and not on_cpu):
            y = lax.conv_general_dilated(
                x,
                kernel,
                (time_stride, space_stride, space_stride),
                [(0, 0), *sides],
                dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
                precision=precision,
            )
            return y + self.bias[...]
        taps = kernel.shape[0]
        frames = (x.shape[1] - taps) // time_stride + 1
        y = self.bias[...]
        for tap in range(taps):
            part = x[:, tap : tap + (frames - 1) * time_stride + 1 : time_stride]
            flat = lax.conv_general_dilated(
                part.reshape(-1, *part.shape[2:]),
                kernel[tap],
                (space_stride, space_stride),
                sides,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=precision,
            )
            y = y + flat.reshape(x.shape[0], frames, *flat.shape[1:])
        return y


def join(cache: Cache | None, x: Features, frames: int) -> Float[Array, "b s h w c"]:
    """`x` behind the `frames` frames before it: the cache, or zeros at a stream's start."""
    if cache is None:
        cache = jnp.zeros((x.shape[0], frames, *x.shape[2:]), x.dtype)
    return jnp.concatenate([cache, x], axis=1)
