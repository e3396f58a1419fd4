"""RealisVSR: the Wan DiT, its control branch, and one scale γ a block (paper, Eq. 1)."""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent, TextStates
from realisvsr_jax.model.cpc import CPC, CPCConfig
from realisvsr_jax.model.wan_dit import Control, DiTConfig, WanDiT


@dataclass(frozen=True)
class RealisVSRConfig:
    """The transformer and its control branch, which has the same width.

    Without a control branch (None) it is Wan as it comes, to start a training from.
    """

    dit: DiTConfig = field(default_factory=DiTConfig)
    cpc: CPCConfig | None = field(default_factory=CPCConfig)

    def __post_init__(self):
        if self.cpc is None:
            return
        used = math.ceil(self.dit.num_layers / self.interval)
        if used < self.cpc.num_blocks:
            raise ValueError(
                f"{self.cpc.num_blocks} control blocks for {self.dit.num_layers} layers: one "
                f"feature serves {self.interval} layers, so only {used} would be used; "
                f"set cpc.num_blocks to {used}"
            )

    @property
    def interval(self) -> int:
        """r = ⌈L_main / L_CPC⌉: neighbouring main blocks that share a feature."""
        assert self.cpc is not None
        return math.ceil(self.dit.num_layers / self.cpc.num_blocks)


WAN_1_3B = RealisVSRConfig()
WAN_14B = RealisVSRConfig(
    DiTConfig(dim=5120, ffn_dim=13824, num_heads=40, num_layers=40), CPCConfig(num_blocks=5)
)


class RealisVSR(nnx.Module):
    """Velocity of the flow from noise to the restored clip, given the low-quality one.

    Parameters live under `dit/…`, `cpc/…` and `gamma` [num_layers]; without a control branch
    under `dit/…` alone.
    """

    def __init__(self, config: RealisVSRConfig, *, rngs: nnx.Rngs, dit: WanDiT | None = None):
        """`dit`: the transformer, where its weights are there already."""
        self.config = config
        self.dit = dit or WanDiT(config.dit, rngs=rngs)
        if config.cpc is None:
            return
        self.cpc = CPC(config.cpc, config.dit, rngs=rngs)
        self.gamma = nnx.Param(jnp.ones((config.dit.num_layers,)))
        self.init_cpc_from_dit()

    def __call__(
        self,
        z_t: Latent,
        timestep: Float[Array, "b"],
        condition: Float[Array, "..."],
        text: TextStates,
        *,
        condition_scale: float | Float[Array, ""] = 1.0,
    ) -> Latent:
        """The velocity ε − x0 at `z_t`, float32; `timestep` is 1000·t.

        `condition` is the latent of the bicubically enlarged clip, of `z_t`'s size.
        `condition_scale` multiplies γ; 0 leaves the plain DiT. Raises ValueError where the
        sizes differ, do not divide into patches, or the text is too long, and without a control
        branch.
        """
        if self.config.cpc is None:
            raise ValueError("there is no control branch; the plain transformer is `dit`")
        if condition.shape != z_t.shape:
            raise ValueError(f"the condition is {condition.shape}, the latent {z_t.shape}")
        context = self.dit.context(timestep, text, self.dit.grid(z_t))
        features = self.cpc(condition, context, z_t)
        weights = self.gamma[...].astype(jnp.float32) * condition_scale
        return self.dit.denoise(z_t, context, Control(features, weights, self.config.interval))

    def init_cpc_from_dit(self) -> None:
        """Copies the DiT's patch embedding and first blocks into the control branch.

        For use after the DiT's weights were loaded; a new model starts so by itself. In the
        baseline the copied embedding is that of the noisy latent.
        """
        assert self.config.cpc is not None
        cpc, count = self.cpc, self.config.cpc.num_blocks
        noisy = self.config.cpc.inject_noisy_latent
        embedding = cpc.noisy_patch_embedding if noisy else cpc.patch_embedding
        nnx.update(embedding, jax.tree.map(jnp.copy, nnx.state(self.dit.patch_embedding)))
        first = jax.tree.map(lambda p: p[:count], nnx.state(self.dit.blocks))
        nnx.update(cpc.blocks, first)
