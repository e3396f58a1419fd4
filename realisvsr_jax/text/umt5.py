"""The UMT5 encoder, which turns a prompt's tokens into Wan's text states, at any width.

Layers are stacked: every parameter under `blocks` has a leading layer axis, and the forward
pass scans over it. Sources: transformers modeling_umt5.py; Wan2.1 t5.py.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from flax.nnx import initializers
from jaxtyping import Array, Float, Int, Int32

from realisvsr_jax.axes import TextStates
from realisvsr_jax.numerics import RMSNorm, precision_of

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class UMT5Config:
    """The encoder's shape and arithmetic; the defaults are UMT5-XXL's, 5.68 B parameters.

    `dtype` is that of matrix products and of the stream between layers. Raises ValueError for
    an unknown one, and for buckets that no distance could fill.
    """

    vocab_size: int = 256384
    d_model: int = 4096
    d_kv: int = 64
    num_heads: int = 64
    d_ff: int = 10240
    num_layers: int = 24
    num_buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6
    dtype: str = "float32"

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; known: {', '.join(DTYPES)}")
        if self.num_buckets < 4 or self.num_buckets % 2:
            raise ValueError(f"num_buckets is {self.num_buckets}, it must be even and at least 4")
        if self.max_distance <= self.num_buckets // 4:
            raise ValueError(
                f"max_distance is {self.max_distance}; {self.num_buckets} buckets need more than "
                f"{self.num_buckets // 4}"
            )


def relative_buckets(
    distances: Int[np.ndarray, "..."], num_buckets: int, max_distance: int
) -> Int32[np.ndarray, "..."]:
    """The bucket of each distance, key minus query, in [0, num_buckets).

    One half of the buckets is for keys that come later. Of a half, m, the first ⌊half / 2⌋ hold
    one distance each; the other n are logarithmic: number m + j starts at m · (max_distance /
    m)^(j / n). transformers takes float32 logarithms, which meet a bucket's start exactly at
    some distances; whole numbers decide the same whatever the machine's logarithm.
    """
    half = num_buckets // 2
    m, n = half // 2, half - half // 2
    starts = list(range(1, m + 1))
    for j in range(1, n):
        r = starts[-1]
        while r**n * m**j < max_distance**j * m**n:
            r += 1
        starts.append(r)
    buckets = np.searchsorted(starts, np.abs(distances), side="right") + half * (distances > 0)
    return buckets.astype(np.int32)


def _linear(
    config: UMT5Config, inputs: int, outputs: int, rngs: nnx.Rngs, std: float | None = None
) -> nnx.Linear:
    """A linear layer without bias, initialised to `std` or 1 / √inputs."""
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=False,
        dtype=config.dtype,
        precision=precision_of(config.dtype),
        kernel_init=initializers.normal(std or inputs**-0.5),
        rngs=rngs,
    )


class Attention(nnx.Module):
    """Self-attention with a learned bias for each head and bucket of distance."""

    def __init__(self, config: UMT5Config, *, rngs: nnx.Rngs):
        dim, inner = config.d_model, config.num_heads * config.d_kv
        self.config = config
        # The scores are not divided by √d_kv; the initial queries are small instead.
        self.q = _linear(config, dim, inner, rngs, (dim * config.d_kv) ** -0.5)
        self.k = _linear(config, dim, inner, rngs)
        self.v = _linear(config, dim, inner, rngs)
        self.o = _linear(config, inner, dim, rngs)
        bias = jax.random.normal(rngs.params(), (config.num_buckets, config.num_heads))
        self.position_bias = nnx.Param(bias * dim**-0.5)

    def __call__(
        self, x: TextStates, buckets: Int32[Array, "s s"], masked: Float[Array, "b 1 1 s"]
    ) -> TextStates:
        """softmax(q·kᵀ + bias[bucket] + masked)·v, with scores and softmax in float32."""
        in_float32 = functools.partial(
            jnp.matmul,
            precision=precision_of(self.config.dtype),
            preferred_element_type=jnp.float32,
        )
        q, k, v = (
            rearrange(linear(x), "b s (n k) -> b n s k", n=self.config.num_heads)
            for linear in (self.q, self.k, self.v)
        )
        bias = self.position_bias[...].astype(jnp.float32)[buckets]
        scores = in_float32(q, k.swapaxes(-1, -2)) + rearrange(bias, "l s n -> n l s") + masked
        out = in_float32(jax.nn.softmax(scores).astype(v.dtype), v).astype(x.dtype)
        return self.o(rearrange(out, "b n s k -> b s (n k)"))


class FeedForward(nnx.Module):
    """down(gelu(gate(x)) · up(x)), with the tanh form of gelu."""

    def __init__(self, config: UMT5Config, *, rngs: nnx.Rngs):
        self.gate = _linear(config, config.d_model, config.d_ff, rngs)
        self.up = _linear(config, config.d_model, config.d_ff, rngs)
        self.down = _linear(config, config.d_ff, config.d_model, rngs)

    def __call__(self, x: TextStates) -> TextStates:
        return self.down(jax.nn.gelu(self.gate(x), approximate=True) * self.up(x))


class Block(nnx.Module):
    """Attention and feed-forward, each after a norm and added to the stream."""

    def __init__(self, config: UMT5Config, *, rngs: nnx.Rngs):
        self.norm1 = RMSNorm(config.d_model, config.eps)
        self.attn = Attention(config, rngs=rngs)
        self.norm2 = RMSNorm(config.d_model, config.eps)
        self.ffn = FeedForward(config, rngs=rngs)

    def __call__(
        self, x: TextStates, buckets: Int32[Array, "s s"], masked: Float[Array, "b 1 1 s"]
    ) -> TextStates:
        x = x + self.attn(self.norm1(x), buckets, masked)
        return x + self.ffn(self.norm2(x))


class UMT5Encoder(nnx.Module):
    """The encoder alone: tokens to text states."""

    def __init__(self, config: UMT5Config, *, rngs: nnx.Rngs):
        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap
        def create(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs=rngs)

        self.config = config
        shape = (config.vocab_size, config.d_model)
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), shape))
        self.blocks = create(rngs)
        self.norm = RMSNorm(config.d_model, config.eps)

    def __call__(self, tokens: Int32[Array, "b s"], mask: Int32[Array, "b s"]) -> TextStates:
        """The states of every token, in `dtype`; those of padding mean nothing.

        `mask` is 1 for tokens and 0 for padding, which no token attends to. Any length is
        taken. States are NaN from a token that the vocabulary lacks.
        """
        config = self.config
        x = jnp.take(self.embedding[...], tokens, axis=0).astype(config.dtype)
        buckets, masked = position_buckets(tokens.shape[1], config), masked_keys(mask)
        graph, layers = nnx.split(self.blocks)

        def step(x: TextStates, layer: nnx.State) -> tuple[TextStates, None]:
            return nnx.merge(graph, layer)(x, buckets, masked), None

        x, _ = jax.lax.scan(step, x, layers)
        return self.norm(x)


def position_buckets(length: int, config: UMT5Config) -> Int32[Array, "s s"]:
    """The bucket of every (query, key) of a text of `length` tokens.

    The table, one entry a distance, is made on the host; the program holds no square.
    """
    distances = np.arange(1 - length, length)
    table = relative_buckets(distances, config.num_buckets, config.max_distance)
    place = jnp.arange(length)
    return jnp.asarray(table)[place[None, :] - place[:, None] + length - 1]


def masked_keys(mask: Int32[Array, "b s"]) -> Float[Array, "b 1 1 s"]:
    """What is added to the scores; as in transformers, a text that is all padding stays finite."""
    return jnp.where(mask == 0, jnp.finfo(jnp.float32).min, 0.0)[:, None, None]
