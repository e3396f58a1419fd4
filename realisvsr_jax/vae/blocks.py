"""Blocks of the causal VAE (Wan2.1 vae.py); every call is `(x, cache) -> (y, cache)`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax

from realisvsr_jax.vae.causal_conv import FLOAT32, CausalConv, Features, Lowering, Resized, join

ATTENTION_CHUNK = 1024  # queries at a time, where a frame has more positions
KEY_CHUNK = 4096  # keys at a time, where it has more than twice as many


class Norm(nnx.Module):
    """'rms': x / ‖x‖ · √C · gain over the channels of each position; 'none': the gain alone."""

    def __init__(self, channels: int, kind: str):
        if kind not in ("rms", "none"):
            raise ValueError(f"unknown norm {kind!r}: rms or none")
        self.gain = nnx.Param(jnp.ones(channels))
        self.kind = kind

    def __call__(self, x: Features) -> Features:
        """Keeps the shape."""
        if self.kind == "rms":
            # The bound is inside the root, whose derivative is infinite at 0.
            square = jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24)
            x = x / jnp.sqrt(square) * x.shape[-1] ** 0.5
        return x * self.gain[...]


class ResidualBlock(nnx.Module):
    """Two causal 3×3×3 convolutions beside a shortcut."""

    def __init__(
        self, channels: int, out_channels: int, *, norm: str, lowering: Lowering, rngs: nnx.Rngs
    ):
        kernel = (3, 3, 3)
        self.norm1 = Norm(channels, norm)
        self.conv1 = CausalConv(channels, out_channels, kernel, rngs=rngs, lowering=lowering)
        self.norm2 = Norm(out_channels, norm)
        # Without a norm, a block has to start as its shortcut for training to take off.
        self.conv2 = CausalConv(
            out_channels, out_channels, kernel, rngs=rngs, zero=norm == "none", lowering=lowering
        )
        self.shortcut = (
            CausalConv(channels, out_channels, (1, 1, 1), rngs=rngs, lowering=lowering)
            if channels != out_channels
            else None
        )

    def __call__(self, x: Features, cache: Any = None) -> tuple[Resized, Any]:
        """(b, t, h, w, channels) to (…, out_channels)."""
        first, second = cache or (None, None)
        y, first = self.conv1(jax.nn.silu(self.norm1(x)), first)
        y, second = self.conv2(jax.nn.silu(self.norm2(y)), second)
        skip = x if self.shortcut is None else self.shortcut.valid(x)
        return skip + y, (first, second)


class FrameAttention(nnx.Module):
    """One head over the h·w positions within each frame."""

    def __init__(self, channels: int, *, norm: str, rngs: nnx.Rngs, lowering: Lowering = FLOAT32):
        zeros, precision = nnx.initializers.zeros, lowering.of_products
        self.norm = Norm(channels, norm)
        self.qkv = nnx.Linear(channels, 3 * channels, precision=precision, rngs=rngs)
        self.out = nnx.Linear(channels, channels, kernel_init=zeros, precision=precision, rngs=rngs)
        self.precision = precision

    def __call__(self, x: Features) -> Features:
        """Keeps the shape."""
        _, frames, height, _, _ = x.shape
        tokens = rearrange(self.norm(x), "b t h w c -> (b t) (h w) c")
        q, k, v = jnp.split(self.qkv(tokens), 3, axis=-1)
        attended = self.out(_attend(q, k, v, self.precision))
        y = rearrange(attended, "(b t) (h w) c -> b t h w c", t=frames, h=height)
        return x + y


def _attend(
    q: jax.Array, k: jax.Array, v: jax.Array, precision: lax.Precision = lax.Precision.HIGHEST
) -> jax.Array:
    """softmax(q·kᵀ/√c)·v over axis 1, a chunk of queries at a time where there are many."""
    products = functools.partial(jnp.einsum, precision=precision)
    length, keys = q.shape[1], k.shape[1]

    def of_all_keys(queries: jax.Array) -> jax.Array:
        scores = products("bqc,bkc->bqk", queries, k) * q.shape[-1] ** -0.5
        return products("bqk,bkc->bqc", jax.nn.softmax(scores, axis=-1), v)

    if length <= 2 * ATTENTION_CHUNK:
        return of_all_keys(q)
    chunks = _chunks(q, ATTENTION_CHUNK)
    if keys <= 2 * KEY_CHUNK:
        found = lax.map(of_all_keys, chunks)
    else:
        there = jnp.arange(keys) < keys
        groups = (_chunks(k, KEY_CHUNK), _chunks(v, KEY_CHUNK), _chunks(there[None], KEY_CHUNK))
        found = lax.map(lambda queries: _over_groups(queries, groups, products), chunks)
    return rearrange(found, "m b q c -> b (m q) c")[:, :length]


def _over_groups(
    q: jax.Array, groups: tuple[jax.Array, ...], products: Callable[..., jax.Array]
) -> jax.Array:
    """As `_attend`, over keys, values and which of them are there, group by group.

    The sums are kept relative to the largest score so far (Milakov and Gimelshein 2018), so that
    scores of one group alone exist at a time.
    """
    q = q * q.shape[-1] ** -0.5

    def add(sums: tuple[jax.Array, ...], group: tuple[jax.Array, ...]) -> tuple[Any, None]:
        out, total, most = sums
        k, v, there = group
        scores = jnp.where(there[:, None], products("bqc,bkc->bqk", q, k), -jnp.inf)
        larger = jnp.maximum(most, scores.max(-1, keepdims=True))
        weights, before = jnp.exp(scores - larger), jnp.exp(most - larger)
        out = before * out + products("bqk,bkc->bqc", weights, v)
        return (out, before * total + weights.sum(-1, keepdims=True), larger), None

    nothing = jnp.zeros_like(q[..., :1])
    start = jnp.zeros_like(q), nothing, nothing - jnp.inf
    (out, total, _), _ = lax.scan(add, start, groups)
    return out / total


def _chunks(x: jax.Array, size: int) -> jax.Array:
    """[b, n, …] as [n / size, b, size, …], padded with zeros."""
    padded = jnp.pad(x, ((0, 0), (0, -x.shape[1] % size), *((0, 0),) * (x.ndim - 2)))
    return rearrange(padded, "b (m n) ... -> m b n ...", n=size)


class Downsample(nnx.Module):
    """Halves height and width and, if `temporal`, time: a stream's first frame stays alone."""

    def __init__(self, channels: int, *, temporal: bool, lowering: Lowering, rngs: nnx.Rngs):
        self.space = CausalConv(channels, channels, (1, 3, 3), rngs=rngs, lowering=lowering)
        self.time = (
            CausalConv(channels, channels, (3, 1, 1), rngs=rngs, lowering=lowering)
            if temporal
            else None
        )

    def __call__(self, x: Features, cache: Any = None) -> tuple[Resized, Any]:
        """1 + 2k frames to 1 + k at the start of a stream, 2k to k after it."""
        x = self.space.halve(x)
        if self.time is None:
            return x, ()
        last = x[:, -1:]
        if cache is not None:
            return self.time.valid(join(cache, x, 1), time_stride=2), last
        if x.shape[1] == 1:
            return x, last
        return jnp.concatenate([x[:, :1], self.time.valid(x, time_stride=2)], axis=1), last


class Upsample(nnx.Module):
    """Doubles height and width and, if `temporal`, time; halves the channels.

    A stream's first frame is not doubled in time and never enters the cache: the frame after it
    sees zeros.
    """

    def __init__(self, channels: int, *, temporal: bool, lowering: Lowering, rngs: nnx.Rngs):
        self.time = (
            CausalConv(channels, 2 * channels, (3, 1, 1), rngs=rngs, lowering=lowering)
            if temporal
            else None
        )
        self.space = CausalConv(channels, channels // 2, (1, 3, 3), rngs=rngs, lowering=lowering)

    def __call__(self, x: Features, cache: Any = None) -> tuple[Resized, Any]:
        """1 + k frames to 1 + 2k at the start of a stream, k to 2k after it."""
        new_cache: Any = ()
        if self.time is not None:
            first, rest = (x[:, :1], x[:, 1:]) if cache is None else (x[:, :0], x)
            doubled, new_cache = self.time(rest, cache)
            doubled = rearrange(doubled, "b t h w (two c) -> b (t two) h w c", two=2)
            x = jnp.concatenate([first, doubled], axis=1)
        x = jnp.repeat(jnp.repeat(x, 2, axis=2), 2, axis=3)
        return self.space.valid(x), new_cache
