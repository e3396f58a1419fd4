"""The consistency-preserved control branch (paper, Fig. 2): features from the low-quality clip.

Unlike an ordinary ControlNet it never sees the noisy latent, so that what it adds to the DiT
depends on the clip, the time and the text alone.
"""

from dataclasses import dataclass

import jax
from flax import nnx
from flax.nnx import initializers
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent, Tokens
from realisvsr_jax.mesh import BATCH, SEQ, constrain
from realisvsr_jax.model.layers import PatchEmbedding, linear
from realisvsr_jax.model.wan_dit import Context, DiTConfig, laid_out, rematerialised, stacked_blocks


@dataclass(frozen=True)
class CPCConfig:
    """The control branch; `inject_noisy_latent` makes it the ControlNet baseline of Table 3."""

    num_blocks: int = 4
    inject_noisy_latent: bool = False

    def __post_init__(self):
        if self.num_blocks < 1:
            raise ValueError(f"cpc.num_blocks is {self.num_blocks}, at least 1 is needed")


class CPC(nnx.Module):
    """Wan blocks over the condition latent; a zero-initialised linear after each gives F.

    The baseline starts as ControlNet does: its tokens are those of z_t, and the embedding of
    the condition, added to them, starts at zero.
    """

    def __init__(self, config: CPCConfig, dit: DiTConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.dit_config = dit

        def patch_embedding(zero: bool) -> PatchEmbedding:
            return PatchEmbedding(
                dit.patch_size, dit.in_channels, dit.dim, dtype=dit.dtype, rngs=rngs, zero=zero
            )

        self.patch_embedding = patch_embedding(zero=config.inject_noisy_latent)
        if config.inject_noisy_latent:
            self.noisy_patch_embedding = patch_embedding(zero=False)
        self.blocks = stacked_blocks(dit, config.num_blocks, rngs=rngs)

        @nnx.split_rngs(splits=config.num_blocks)
        @nnx.vmap
        def zero_linear(rngs: nnx.Rngs) -> nnx.Linear:
            zeros = initializers.zeros_init()
            return linear(dit.dim, dit.dim, dtype=dit.dtype, kernel_init=zeros, rngs=rngs)

        self.out = zero_linear(rngs)

    def __call__(
        self, condition: Latent, context: Context, z_t: Latent | None = None
    ) -> Float[Array, "m b l d"]:
        """One feature a block, [num_blocks, b, l, d], in the compute dtype.

        `context` is the DiT's own; `z_t` is used by the baseline alone, which needs it.
        """
        x = self.patch_embedding(condition)
        if self.config.inject_noisy_latent:
            if z_t is None:
                raise ValueError("a control branch with inject_noisy_latent needs z_t")
            x = x + self.noisy_patch_embedding(z_t)
        graph, layers = nnx.split((self.blocks, self.out))

        def step(x: Tokens, layer) -> tuple[Tokens, Tokens]:
            block, out = nnx.merge(graph, layer)
            x = constrain(block(x, context), BATCH, SEQ, None)
            return x, out(x.astype(self.dit_config.dtype))

        x = laid_out(x.astype(self.dit_config.residual_dtype))
        _, features = jax.lax.scan(rematerialised(step, self.dit_config.remat), x, layers)
        return features
