"""The parts of a Wan block: rotary positions, the time embedding, norms, small networks.

Positions, time, norms and modulation are computed in float32 whatever the compute dtype: a
rotary table in bfloat16, for one, is wrong by whole turns of the fast channels.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from flax.nnx import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from realisvsr_jax.axes import Tokens
from realisvsr_jax.numerics import precision_of

Rope = Float[Array, "l pairs 2"]
"""The cosine and the sine of every token's angle in every channel pair of a head."""

THETA = 10_000.0

gelu = functools.partial(jax.nn.gelu, approximate=True)


def rope_split(head_dim: int) -> tuple[int, int, int]:
    """Channels of a head that turn with t, h and w: (d − 4⌊d/6⌋, 2⌊d/6⌋, 2⌊d/6⌋).

    Source: Wan2.1 model.py. Raises ValueError for an odd `head_dim`.
    """
    if head_dim % 2:
        raise ValueError(f"rotary positions need an even head dimension, not {head_dim}")
    side = 2 * (head_dim // 6)
    return head_dim - 2 * side, side, side


def rope_table(grid: tuple[int, int, int], head_dim: int) -> Rope:
    """Rotary angles of a (t, h, w) grid of tokens whose positions start at 0.

    Each axis has its own small table, made on the host in float64 and rounded once; they
    meet inside the program, which thus holds no constant as long as the sequence.
    """
    parts = []
    for axis, (length, channels) in enumerate(zip(grid, rope_split(head_dim))):
        frequencies = THETA ** (-np.arange(0, channels, 2, dtype=np.float64) / channels)
        angles = np.outer(np.arange(length), frequencies)
        table = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)
        shape = [1, 1, 1, channels // 2, 2]
        shape[axis] = length
        parts.append(jnp.broadcast_to(table.reshape(shape), (*grid, channels // 2, 2)))
    return rearrange(jnp.concatenate(parts, axis=-2), "t h w pairs two -> (t h w) pairs two")


def apply_rope(x: Float[Array, "b l n k"], rope: Rope) -> Float[Array, "b l n k"]:
    """Turns neighbouring channel pairs by their token's angle, in float32; keeps the dtype."""
    pairs = rearrange(x.astype(jnp.float32), "b l n (pairs two) -> two b l n pairs", two=2)
    cos, sin = rearrange(rope, "l pairs two -> two l 1 pairs")
    first = pairs[0] * cos - pairs[1] * sin
    second = pairs[0] * sin + pairs[1] * cos
    return rearrange([first, second], "two b l n pairs -> b l n (pairs two)").astype(x.dtype)


def apply_rope_by_product(x: Float[Array, "b l n k"], rope: Rope) -> Float[Array, "b l n k"]:
    """As `apply_rope`, for TPUs, whose layouts waste memory on pairs of channels.

    Pairs are exchanged by a product with a matrix of 0 and ±1, which is exact.
    """
    width = x.shape[-1]
    exchange = np.zeros((width, width), np.float32)
    even = np.arange(0, width, 2)
    exchange[even + 1, even], exchange[even, even + 1] = -1.0, 1.0
    exchanged = jnp.matmul(
        x,
        exchange.astype(x.dtype),
        precision=precision_of(x.dtype),
        preferred_element_type=jnp.float32,
    )
    cos, sin = (jnp.repeat(rope[:, :, i], 2, axis=-1)[:, None] for i in range(2))
    return (x.astype(jnp.float32) * cos + exchanged * sin).astype(x.dtype)


def sinusoid(timestep: Float[Array, "b"], dim: int) -> Float[Array, "b {dim}"]:
    """Cosines, then sines, of timestep · 10000^(−i / (dim/2)); Wan2.1 model.py.

    Wan forms the angle in float64, which accelerators lack, and a float32 product is off by
    6e-5 at t = 1000. Here the angle is a sum: whole steps times a frequency rounded to 13
    bits, exact in float32 below 2048, and a small rest. The result is right to about 1e-7.
    """
    half = dim // 2
    frequencies = THETA ** (-np.arange(half, dtype=np.float64) / half)
    mantissa, exponent = np.frexp(frequencies)
    coarse = np.ldexp(np.round(np.ldexp(mantissa, 13)), exponent - 13)
    whole = jnp.floor(timestep.astype(jnp.float32))[:, None]
    fraction = timestep.astype(jnp.float32)[:, None] - whole
    turn = whole * coarse.astype(np.float32)
    rest = whole * (frequencies - coarse).astype(np.float32)
    rest = rest + fraction * frequencies.astype(np.float32)
    cos = jnp.cos(turn) * jnp.cos(rest) - jnp.sin(turn) * jnp.sin(rest)
    sin = jnp.sin(turn) * jnp.cos(rest) + jnp.cos(turn) * jnp.sin(rest)
    return jnp.concatenate([cos, sin], axis=-1)


def layer_norm(x: Tokens, eps: float) -> Tokens:
    """Zero mean and unit variance over channels, in float32, without affine."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps)


class LayerNorm(nnx.Module):
    """`layer_norm` with a learned scale and bias; float32 out."""

    def __init__(self, dim: int, eps: float):
        self.eps = eps
        self.scale = nnx.Param(jnp.ones((dim,)))
        self.bias = nnx.Param(jnp.zeros((dim,)))

    def __call__(self, x: Tokens) -> Tokens:
        scale, bias = self.scale[...], self.bias[...]
        return layer_norm(x, self.eps) * scale.astype(jnp.float32) + bias.astype(jnp.float32)


def linear(
    inputs: int,
    outputs: int,
    *,
    dtype: DTypeLike,
    rngs: nnx.Rngs,
    kernel_init: nnx.Initializer | None = None,
) -> nnx.Linear:
    """A linear layer with bias that computes in `dtype`, Xavier-initialised like Wan's."""
    return nnx.Linear(
        inputs,
        outputs,
        dtype=dtype,
        precision=precision_of(dtype),
        kernel_init=kernel_init or initializers.xavier_uniform(),
        rngs=rngs,
    )


class MLP(nnx.Module):
    """linear, activation, linear."""

    def __init__(
        self,
        widths: tuple[int, int, int],
        activation: Callable[[Array], Array],
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
        kernel_init: nnx.Initializer | None = None,
    ):
        inputs, hidden, outputs = widths
        self.activation = activation
        self.up = linear(inputs, hidden, dtype=dtype, kernel_init=kernel_init, rngs=rngs)
        self.down = linear(hidden, outputs, dtype=dtype, kernel_init=kernel_init, rngs=rngs)

    def __call__(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        return self.down(self.activation(self.up(x)))


class PatchEmbedding(nnx.Module):
    """Non-overlapping patches of a latent to tokens: a strided convolution as one product."""

    def __init__(
        self,
        patch_size: tuple[int, int, int],
        channels: int,
        dim: int,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
        zero: bool = False,
    ):
        self.patch_size = patch_size
        self.dtype = dtype
        shape = (*patch_size, channels, dim)
        # Xavier over the flattened patch, as Wan has it.
        bound = 0.0 if zero else math.sqrt(6 / (math.prod(shape[:-1]) + dim))
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
        )
        self.bias = nnx.Param(jnp.zeros((dim,)))

    def __call__(self, z: Float[Array, "b t h w c"]) -> Tokens:
        """Raises ValueError where the latent does not divide into patches."""
        pt, ph, pw = self.patch_size
        if any(size % patch for size, patch in zip(z.shape[1:4], self.patch_size)):
            raise ValueError(
                f"a latent of {z.shape[1:4]} (t, h, w) does not divide into patches "
                f"of {self.patch_size}"
            )
        patches = rearrange(
            z.astype(self.dtype),
            "b (t pt) (h ph) (w pw) c -> b (t h w) (pt ph pw c)",
            pt=pt,
            ph=ph,
            pw=pw,
        )
        kernel = rearrange(self.kernel[...], "pt ph pw c d -> (pt ph pw c) d").astype(self.dtype)
        tokens = jnp.matmul(patches, kernel, precision=precision_of(self.dtype))
        return tokens + self.bias[...].astype(self.dtype)
