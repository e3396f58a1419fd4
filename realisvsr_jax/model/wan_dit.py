"""The Wan2.1 video diffusion transformer (text to video), any width.

Blocks are stacked: every parameter under `blocks` has a leading layer axis, and the forward
pass scans over it. A control branch joins inside the scan (paper, Eq. 1).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from flax.nnx import initializers
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent, TextStates, Tokens
from realisvsr_jax.mesh import BATCH, SEQ, constrain
from realisvsr_jax.model.attention import check_backend, keeps_attention, resolved
from realisvsr_jax.model.layers import (
    MLP,
    LayerNorm,
    PatchEmbedding,
    Rope,
    apply_rope,
    apply_rope_by_product,
    gelu,
    layer_norm,
    linear,
    rope_split,
    rope_table,
    sinusoid,
)
from realisvsr_jax.model.sequence import cross_attention, padded_length, self_attention
from realisvsr_jax.numerics import RMSNorm

REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        keeps_attention,
    ),
    "attention": keeps_attention,
    "block": jax.checkpoint_policies.nothing_saveable,
}
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class DiTConfig:
    """The transformer's shape and arithmetic; the defaults are Wan2.1 1.3B's.

    `dtype` is the dtype of matrix products. `residual_dtype` is that of the stream between
    blocks: float32 as in the official code, or bfloat16 as in diffusers. `remat` names what
    the backward pass computes again: "none", "dots" (all but the products with weights and what
    attention gives), "attention" (all but what attention gives) or "block" (everything inside a
    block).
    """

    dim: int = 1536
    ffn_dim: int = 8960
    num_heads: int = 12
    num_layers: int = 30
    in_channels: int = 16
    out_channels: int = 16
    patch_size: tuple[int, int, int] = (1, 2, 2)
    text_dim: int = 4096
    text_length: int = 512
    freq_dim: int = 256
    eps: float = 1e-6
    dtype: str = "float32"
    residual_dtype: str = "float32"
    attention: str = "xla"
    remat: str = "none"

    def __post_init__(self):
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} does not divide into {self.num_heads} heads")
        rope_split(self.head_dim)
        if self.freq_dim % 2:
            raise ValueError(f"freq_dim is {self.freq_dim}, it must be even")
        for name in ("dtype", "residual_dtype"):
            if getattr(self, name) not in DTYPES:
                raise ValueError(f"{name} is {getattr(self, name)!r}; known: {', '.join(DTYPES)}")
        if self.remat not in ("none", *REMAT_POLICIES):
            known = ", ".join(("none", *REMAT_POLICIES))
            raise ValueError(f"unknown remat policy {self.remat!r}; known: {known}")
        check_backend(self.attention)

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.num_heads


class Context(NamedTuple):
    """What every block gets beside the tokens; shared by the DiT and its control branch.

    Tokens beyond the rows of `rope` are padding; see `laid_out`.
    """

    time: Float[Array, "b d"]
    modulation: Float[Array, "b 6 d"]
    text: Float[Array, "b s d"]
    rope: Rope


class Control(NamedTuple):
    """Features for the blocks: F[i // interval] · weights[i] is added to block i's output."""

    features: Float[Array, "m b l d"]
    weights: Float[Array, "layers"]
    interval: int


class Attention(nnx.Module):
    """Multi-head attention with RMS-normalised queries and keys (over the full width)."""

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
        dim = config.dim
        self.config = config
        self.q, self.k, self.v, self.o = (
            linear(dim, dim, dtype=config.dtype, rngs=rngs) for _ in range(4)
        )
        self.norm_q = RMSNorm(dim, config.eps)
        self.norm_k = RMSNorm(dim, config.eps)

    def __call__(self, x: Tokens, context: Context, *, text: bool = False) -> Tokens:
        """Among the tokens, turned by their positions, or with `text` from them to the text."""
        source = context.text if text else x
        heads = self.config.num_heads
        q, k, v = (
            rearrange(y, "b l (n k) -> b l n k", n=heads)
            for y in (self.norm_q(self.q(x)), self.norm_k(self.k(source)), self.v(source))
        )
        backend = self.config.attention
        if text:
            out = cross_attention(q, k, v, backend=backend)
        else:
            keys = len(context.rope)
            rope = jnp.pad(context.rope, ((0, x.shape[1] - keys), (0, 0), (0, 0)))
            rope = constrain(rope, SEQ, None, None)
            turned = apply_rope_by_product if self._on_tpu() else apply_rope
            q, k = turned(q, rope), turned(k, rope)
            out = self_attention(q, k, v, backend=backend, keys=keys)
        return self.o(rearrange(out, "b l n k -> b l (n k)"))

    def _on_tpu(self) -> bool:
        """Whether the program is for a TPU, as its kernel says: another host may compile it."""
        config = self.config
        platform = jax.default_backend()
        return resolved(config.attention, platform, config.dtype, config.head_dim) == "splash"


class Block(nnx.Module):
    """Self-attention, text cross-attention and feed-forward; the first and last modulated."""

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
        dim = config.dim
        self.config = config
        self.self_attn = Attention(config, rngs=rngs)
        self.cross_attn = Attention(config, rngs=rngs)
        self.norm3 = LayerNorm(dim, config.eps)
        self.ffn = MLP((dim, config.ffn_dim, dim), gelu, dtype=config.dtype, rngs=rngs)
        self.modulation = nnx.Param(jax.random.normal(rngs.params(), (6, dim)) / math.sqrt(dim))

    def __call__(self, x: Tokens, context: Context) -> Tokens:
        """Tokens in and out in the residual dtype; modulation, norms and gates in float32."""
        eps, stream = self.config.eps, x.dtype
        table = self.modulation[...].astype(jnp.float32) + context.modulation
        shift1, scale1, gate1, shift2, scale2, gate2 = rearrange(table, "b six d -> six b 1 d")
        y = (layer_norm(x, eps) * (1 + scale1) + shift1).astype(self.config.dtype)
        y = self.self_attn(y, context)
        x = (x.astype(jnp.float32) + y * gate1).astype(stream)
        y = self.norm3(x).astype(self.config.dtype)
        x = x + self.cross_attn(y, context, text=True).astype(stream)
        y = (layer_norm(x, eps) * (1 + scale2) + shift2).astype(self.config.dtype)
        return (x.astype(jnp.float32) + self.ffn(y) * gate2).astype(stream)


class Head(nnx.Module):
    """Modulated norm and linear, in float32; output channels ordered (pt, ph, pw, c)."""

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
        self.eps = config.eps
        outputs = math.prod(config.patch_size) * config.out_channels
        # Wan starts from zero, but then a frozen random DiT would be blind to its control
        # branch; a tenth of the target's scale trains as well.
        small = initializers.normal(0.1 / math.sqrt(config.dim))
        self.linear = linear(config.dim, outputs, dtype=jnp.float32, kernel_init=small, rngs=rngs)
        self.modulation = nnx.Param(
            jax.random.normal(rngs.params(), (2, config.dim)) / math.sqrt(config.dim)
        )

    def __call__(self, x: Tokens, time: Float[Array, "b d"]) -> Float[Array, "b l o"]:
        """`time` is the time embedding before its projection to six tables."""
        table = self.modulation[...].astype(jnp.float32) + time[:, None]
        shift, scale = rearrange(table, "b two d -> two b 1 d")
        return self.linear(layer_norm(x, self.eps) * (1 + scale) + shift)


class WanDiT(nnx.Module):
    """Predicts the flow's velocity ε − x0 from a noisy latent, its time and a text."""

    def __init__(self, config: DiTConfig, *, rngs: nnx.Rngs):
        dim = config.dim
        small = initializers.normal(0.02)
        self.config = config
        self.patch_embedding = PatchEmbedding(
            config.patch_size, config.in_channels, dim, dtype=config.dtype, rngs=rngs
        )
        self.time_embedding = MLP(
            (config.freq_dim, dim, dim),
            jax.nn.silu,
            dtype=jnp.float32,
            kernel_init=small,
            rngs=rngs,
        )
        self.time_projection = linear(dim, 6 * dim, dtype=jnp.float32, rngs=rngs)
        self.text_embedding = MLP(
            (config.text_dim, dim, dim), gelu, dtype=config.dtype, kernel_init=small, rngs=rngs
        )
        self.blocks = stacked_blocks(config, config.num_layers, rngs=rngs)
        self.head = Head(config, rngs=rngs)

    def __call__(
        self,
        z_t: Latent,
        timestep: Float[Array, "b"],
        text: TextStates,
        control: Control | None = None,
    ) -> Float[Array, "b t h w o"]:
        """The velocity, float32, in the shape of `z_t` (with `out_channels`).

        `timestep` is 1000·t. `text` has at most `text_length` states and is padded with zeros
        to that length; all of them are attended to. Raises ValueError for a latent that does
        not divide into patches and for a longer text.
        """
        context = self.context(timestep, text, self.grid(z_t))
        return self.denoise(z_t, context, control)

    def grid(self, z: Latent) -> tuple[int, int, int]:
        """The (t, h, w) token grid of a latent."""
        _, t, h, w, _ = z.shape
        pt, ph, pw = self.config.patch_size
        return t // pt, h // ph, w // pw

    def context(
        self, timestep: Float[Array, "b"], text: TextStates, grid: tuple[int, int, int]
    ) -> Context:
        """Embeds time, text and positions once for all blocks."""
        config = self.config
        missing = config.text_length - text.shape[1]
        if missing < 0:
            raise ValueError(
                f"{text.shape[1]} text states given, the model takes {config.text_length}"
            )
        text = jnp.pad(text, ((0, 0), (0, missing), (0, 0)))
        time = self.time_embedding(sinusoid(timestep, config.freq_dim))
        modulation = self.time_projection(jax.nn.silu(time))
        return Context(
            time=time,
            modulation=rearrange(modulation, "b (six d) -> b six d", six=6),
            text=self.text_embedding(text.astype(config.dtype)),
            rope=rope_table(grid, config.head_dim),
        )

    def denoise(
        self, z_t: Latent, context: Context, control: Control | None = None
    ) -> Float[Array, "b t h w o"]:
        """The transformer itself, given what `context` embedded."""
        x = laid_out(self.patch_embedding(z_t).astype(self.config.residual_dtype))
        graph, layers = nnx.split(self.blocks)

        def step(x: Tokens, item: tuple) -> tuple[Tokens, None]:
            index, layer = item
            x = nnx.merge(graph, layer)(x, context)
            if control is not None:
                feature = control.features[index // control.interval].astype(jnp.float32)
                added = x.astype(jnp.float32) + control.weights[index] * feature
                x = added.astype(x.dtype)
            return constrain(x, BATCH, SEQ, None), None

        indices = jnp.arange(self.config.num_layers)
        x, _ = jax.lax.scan(rematerialised(step, self.config.remat), x, (indices, layers))
        t, h, w = self.grid(z_t)
        pt, ph, pw = self.config.patch_size
        return rearrange(
            self.head(x, context.time)[:, : len(context.rope)],
            "b (t h w) (pt ph pw c) -> b (t pt) (h ph) (w pw) c",
            t=t,
            h=h,
            w=w,
            pt=pt,
            ph=ph,
            pw=pw,
        )


def laid_out(x: Tokens) -> Tokens:
    """Tokens padded to what the devices along the sequence divide, and shared out among them."""
    missing = padded_length(x.shape[1]) - x.shape[1]
    if missing:
        x = jnp.pad(x, ((0, 0), (0, missing), (0, 0)))
    return constrain(x, BATCH, SEQ, None)


def stacked_blocks(config: DiTConfig, num_blocks: int, *, rngs: nnx.Rngs) -> Block:
    """`num_blocks` blocks as one, with a leading layer axis on every parameter."""

    @nnx.split_rngs(splits=num_blocks)
    @nnx.vmap
    def create(rngs: nnx.Rngs) -> Block:
        return Block(config, rngs=rngs)

    return create(rngs)


def rematerialised(step, policy: str):
    """The scan body `step` under the named rematerialisation policy."""
    if policy == "none":
        return step
    # Inside a scan the forward and backward bodies are apart; nothing can merge them.
    return jax.checkpoint(step, policy=REMAT_POLICIES[policy], prevent_cse=False)
