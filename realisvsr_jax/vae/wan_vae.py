"""The causal 3D video VAE of Wan2.1 (vae.py), at any width.

Whole clip and stream are one code path: a clip is a stream of one chunk. 1 + f·k frames become
1 + k latent frames, f being the temporal factor.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from realisvsr_jax.axes import Latent, Video
from realisvsr_jax.vae.blocks import Downsample, FrameAttention, Norm, ResidualBlock, Upsample
from realisvsr_jax.vae.causal_conv import CausalConv, Features, Lowering, Resized

# fmt: off
WAN_MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
            0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)
WAN_STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
           3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)
# fmt: on


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """Wan's VAE by default; one multiplier a stage, one down-sampling between two stages.

    `norm`: 'rms' (Wan) or 'none', with which a small VAE learns from scratch far better.
    `mean`, `std`: of each latent channel, for the normalised latents. `conv` and
    `precision` are those of `Lowering`.
    """

    base_dim: int = 96
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    z_dim: int = 16
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    norm: str = "rms"
    mean: tuple[float, ...] = WAN_MEAN
    std: tuple[float, ...] = WAN_STD
    conv: str = "auto"
    precision: str = "highest"

    def __post_init__(self) -> None:
        self.lowering.check()
        if len(self.temporal_downsample) != len(self.multipliers) - 1:
            raise ValueError(
                f"{len(self.multipliers)} stages have {len(self.multipliers) - 1} down-samplings, "
                f"temporal_downsample names {len(self.temporal_downsample)}"
            )
        if not len(self.mean) == len(self.std) == self.z_dim:
            raise ValueError(
                f"z_dim is {self.z_dim}, mean has {len(self.mean)} and std {len(self.std)} values"
            )

    @property
    def lowering(self) -> Lowering:
        """How its products are computed."""
        return Lowering(self.conv, self.precision)

    @property
    def spatial_factor(self) -> int:
        """Pixels a side of one latent position."""
        return 2 ** len(self.temporal_downsample)

    @property
    def temporal_factor(self) -> int:
        """Frames of one latent frame, but for the first, which stands for one."""
        return 2 ** sum(self.temporal_downsample)

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a clip; raises ValueError unless `frames` is 1 + k·factor."""
        if frames < 1 or (frames - 1) % self.temporal_factor:
            raise ValueError(
                f"the VAE takes 1 + {self.temporal_factor}k frames, the clip has {frames}"
            )
        return 1 + (frames - 1) // self.temporal_factor

    def latent_size(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """(t, h, w) of a clip of `size` (T, H, W); raises ValueError as `latent_frames` does."""
        frames, height, width = size
        factor = self.spatial_factor
        return self.latent_frames(frames), height // factor, width // factor

    def video_frames(self, latent_frames: int) -> int:
        """Frames that `latent_frames` decode to."""
        return 1 + (latent_frames - 1) * self.temporal_factor


WAN_VAE = VAEConfig()
TINY_VAE = VAEConfig(
    base_dim=16,
    multipliers=(1, 2, 4),
    z_dim=8,
    encoder_blocks=1,
    decoder_blocks=2,
    temporal_downsample=(False, True),
    norm="none",
    mean=(0.0,) * 8,
    std=(1.0,) * 8,
)


class Middle(nnx.Module):
    """Residual block, attention within frames, residual block."""

    def __init__(self, channels: int, config: VAEConfig, rngs: nnx.Rngs):
        settings: Any = {"norm": config.norm, "lowering": config.lowering, "rngs": rngs}
        self.before = ResidualBlock(channels, channels, **settings)
        self.attention = FrameAttention(channels, **settings)
        self.after = ResidualBlock(channels, channels, **settings)

    def __call__(self, x: Features, cache: Any = None) -> tuple[Features, Any]:
        """Keeps the shape."""
        before, after = cache or (None, None)
        x, before = self.before(x, before)
        x, after = self.after(self.attention(x), after)
        return x, (before, after)


@dataclasses.dataclass(frozen=True)
class Exit:
    """The way out of a half: its norm and its last convolution, as one layer."""

    norm: Norm
    conv: CausalConv

    def __call__(self, x: Features, cache: Any = None) -> tuple[Resized, Any]:
        """To the channels of the convolution."""
        return self.conv(jax.nn.silu(self.norm(x)), cache)


class Half(nnx.Module):
    """Encoder or decoder: a convolution, a chain of blocks, and the way out."""

    def __init__(
        self, chain: list[Any], ends: tuple[int, int, int, int], config: VAEConfig, rngs: nnx.Rngs
    ):
        """`ends`: channels in, of the chain's input, of its output, and out."""
        into, first, last, out = ends
        kernel = (3, 3, 3)
        self.conv_in = CausalConv(into, first, kernel, rngs=rngs, lowering=config.lowering)
        self.chain = nnx.List(chain)
        self.norm = Norm(last, config.norm)
        self.conv_out = CausalConv(last, out, kernel, rngs=rngs, lowering=config.lowering)

    def __call__(self, x: Features, cache: Any = None) -> tuple[Resized, Any]:
        """Caches are a tuple in the order of the layers."""
        layers = self.layers()
        new = []
        for layer, old in zip(layers, cache or (None,) * len(layers)):
            x, kept = layer(x, old)
            new.append(kept)
        return x, tuple(new)

    def layers(self) -> list[Any]:
        """All of them, in order; each is called as `(x, cache) -> (y, cache)`."""
        return [self.conv_in, *self.chain, Exit(self.norm, self.conv_out)]


def _encoder(config: VAEConfig, rngs: nnx.Rngs) -> Half:
    settings: Any = {"norm": config.norm, "lowering": config.lowering, "rngs": rngs}
    widths = [config.base_dim * m for m in config.multipliers]
    chain: list[Any] = []
    channels = widths[0]
    for stage, width in enumerate(widths):
        for _ in range(config.encoder_blocks):
            chain.append(ResidualBlock(channels, width, **settings))
            channels = width
        if stage < len(widths) - 1:
            temporal = config.temporal_downsample[stage]
            chain.append(Downsample(width, temporal=temporal, lowering=config.lowering, rngs=rngs))
    chain.append(Middle(channels, config, rngs))
    return Half(chain, (3, widths[0], channels, 2 * config.z_dim), config, rngs)


def _decoder(config: VAEConfig, rngs: nnx.Rngs) -> Half:
    settings: Any = {"norm": config.norm, "lowering": config.lowering, "rngs": rngs}
    widths = [config.base_dim * m for m in reversed(config.multipliers)]
    channels = widths[0]
    chain: list[Any] = [Middle(channels, config, rngs)]
    for stage, width in enumerate(widths):
        for _ in range(config.decoder_blocks):
            chain.append(ResidualBlock(channels, width, **settings))
            channels = width
        if stage < len(widths) - 1:
            temporal = config.temporal_downsample[-1 - stage]
            chain.append(Upsample(width, temporal=temporal, lowering=config.lowering, rngs=rngs))
            channels = width // 2
    return Half(chain, (config.z_dim, widths[0], channels, 3), config, rngs)


class WanVAE(nnx.Module):
    """Video in [−1, 1] to normalised latents and back; always float32."""

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
        z, lowering = config.z_dim, config.lowering
        self.config = config
        self.encoder = _encoder(config, rngs)
        self.to_moments = CausalConv(2 * z, 2 * z, (1, 1, 1), rngs=rngs, lowering=lowering)
        self.from_latent = CausalConv(z, z, (1, 1, 1), rngs=rngs, lowering=lowering)
        self.decoder = _decoder(config, rngs)

    def configured(self, config: VAEConfig) -> "WanVAE":
        """The same weights under another configuration of the same shapes."""
        graph, _ = nnx.split(nnx.eval_shape(lambda: WanVAE(config, rngs=nnx.Rngs(0))))
        return nnx.merge(graph, nnx.state(self))

    def encode(self, video: Video) -> Latent:
        """The normalised posterior mean of a whole clip.

        Raises ValueError unless the clip has 1 + k·factor frames and sides that the spatial
        factor divides: no frame is dropped in silence.
        """
        return self.encode_chunk(video, None)[0]

    def encode_stream(self, video: Video, frames: int) -> Latent:
        """As `encode`, but the first frame and then `frames` at a time, in a scan.

        Memory holds the activations of one chunk. Raises ValueError as `encode` does, and where
        the frames after the first do not divide into chunks.
        """
        rest = video.shape[1] - 1
        if not rest:
            return self.encode(video)
        if rest % frames:
            raise ValueError(f"{rest} frames after the first do not divide into chunks of {frames}")
        first, cache = self.encode_chunk(video[:, :1], None)
        chunks = rearrange(video[:, 1:], "b (n f) h w c -> n b f h w c", f=frames)

        def step(cache: Any, chunk: Video) -> tuple[Any, Latent]:
            latent, cache = self.encode_chunk(chunk, cache)
            return cache, latent

        _, latents = jax.lax.scan(step, cache, chunks)
        return jnp.concatenate([first, rearrange(latents, "n b t h w c -> b (n t) h w c")], axis=1)

    def decode(self, latent: Latent) -> Video:
        """A whole clip from normalised latents, clamped to [−1, 1]."""
        return self.decode_chunk(latent, None)[0]

    def encode_chunk(self, video: Video, cache: Any) -> tuple[Latent, Any]:
        """The next frames of a stream: 1 + k·factor with cache None, k·factor after.

        Raises ValueError for another number of frames.
        """
        (mean, _), cache = self._moments(video, cache)
        offset, scale = self.statistics()
        return (mean - offset) / scale, cache

    def decode_chunk(self, latent: Latent, cache: Any) -> tuple[Video, Any]:
        """The next latent frames of a stream; cache None at its start."""
        offset, scale = self.statistics()
        video, cache = self._decode(latent * scale + offset, cache)
        return jnp.clip(video, -1.0, 1.0), cache

    def encode_moments(self, video: Video) -> tuple[Latent, Latent]:
        """Mean and log variance of the posterior, not normalised."""
        return self._moments(video, None)[0]

    def decode_raw(self, z: Latent) -> Video:
        """A whole clip from latents that are not normalised, not clamped."""
        return self._decode(z, None)[0]

    def _moments(self, video: Video, cache: Any) -> tuple[tuple[Latent, Latent], Any]:
        factor = self.config.spatial_factor
        _, frames, height, width, _ = video.shape
        if height % factor or width % factor:
            raise ValueError(f"the VAE takes multiples of {factor} pixels, not {height}×{width}")
        if cache is None:
            self.config.latent_frames(frames)
        elif not frames or frames % self.config.temporal_factor:
            raise ValueError(
                f"chunks of a stream have a multiple of {self.config.temporal_factor} frames, "
                f"not {frames}"
            )
        x, cache = self.encoder(video, cache)
        mean, log_variance = jnp.split(self.to_moments.valid(x), 2, axis=-1)
        return (mean, jnp.clip(log_variance, -30.0, 20.0)), cache

    def _decode(self, z: Latent, cache: Any) -> tuple[Video, Any]:
        return self.decoder(self.from_latent.valid(z), cache)

    def statistics(self) -> tuple[Float[Array, "c"], Float[Array, "c"]]:
        """Mean and deviation of each channel, with which latents are normalised."""
        return jnp.asarray(self.config.mean), jnp.asarray(self.config.std)
