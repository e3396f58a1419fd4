"""Convolution over time, height and width that never looks ahead.

`(x, cache) -> (y, cache)`: the cache holds the last input frames that the next chunk needs;
None starts a stream, with zeros before its first frame.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

# The VAE is float32: by default a TPU or GPU rounds the factors of its products.
PRECISION = lax.Precision.HIGHEST

Features = Float[Array, "b t h w c"]
Resized = Float[Array, "b s y x d"]
"""What a layer makes of `Features`: perhaps other frames, size and channels."""
Cache = Float[Array, "b k h w c"]


class CausalConv(nnx.Module):
    """kernel (kt, kh, kw); "same" in space, causal in time; a kt of 1 is a 2D convolution.

    `implementation`: 'native' is one 3D convolution, 'taps' the sum of kt 2D ones, which is some
    2–4 times faster on the CPU in training; 'auto' chooses by the backend.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int],
        *,
        rngs: nnx.Rngs,
        zero: bool = False,
        implementation: str = "auto",
    ):
        if implementation not in ("auto", "native", "taps"):
            raise ValueError(f"unknown convolution {implementation!r}: auto, native or taps")
        init = nnx.initializers.zeros if zero else nnx.initializers.lecun_normal()
        shape = (*kernel, in_channels, out_channels)
        self.kernel = nnx.Param(init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels))
        self.implementation = implementation

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
        native = self.implementation == "native" or (
            self.implementation == "auto" and jax.default_backend() != "cpu"
        )
        if native:
            y = lax.conv_general_dilated(
                x,
                kernel,
                (time_stride, space_stride, space_stride),
                [(0, 0), *sides],
                dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
                precision=PRECISION,
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
                precision=PRECISION,
            )
            y = y + flat.reshape(x.shape[0], frames, *flat.shape[1:])
        return y


def join(cache: Cache | None, x: Features, frames: int) -> Float[Array, "b s h w c"]:
    """`x` behind the `frames` frames before it: the cache, or zeros at a stream's start."""
    if cache is None:
        cache = jnp.zeros((x.shape[0], frames, *x.shape[2:]), x.dtype)
    return jnp.concatenate([cache, x], axis=1)
