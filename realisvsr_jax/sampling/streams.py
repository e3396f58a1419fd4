"""A scene through the VAE, window by window of one stream: whole pictures, or tile by tile.

Whole pictures go through `WanVAE.encode_chunk` and `decode_chunk`, one latent frame at a time;
where they or their caches are beyond what is allowed, `vae.tiled` does it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from realisvsr_jax.sampling.frames import Frames, Sides, enlarge, take
from realisvsr_jax.sampling.layout import Layout
from realisvsr_jax.sampling.options import Options
from realisvsr_jax.sampling.programs import Programs
from realisvsr_jax.vae.regions import Grid, cut_axis
from realisvsr_jax.vae.tile_plan import TilePlan, describe, plan_of, plan_tiles
from realisvsr_jax.vae.tiled import Carry, TiledDecoder, TiledEncoder
from realisvsr_jax.vae.wan_vae import VAEConfig

WARM_UP = 8  # latent frames before a window on which streams without caches start anew
HostLatent = Float[np.ndarray, "b t h w c"]
Advance = Callable[[int], object]
"""Called with the programs that were dispatched, after each latent frame."""


def vae_plan(config: VAEConfig, padded: Sides, options: Options, *, decoding: bool) -> TilePlan:
    """The tiles of the VAE for pictures of `padded` pixels; one where whole pictures pass.

    Raises InputError where the smallest tiles do not fit `options.vae_memory`.
    """
    whole = whole_plan(config, padded, decoding=decoding)
    if options.vae_memory is None or whole_bytes(whole) <= options.vae_memory:
        return whole
    return plan_tiles(config, padded, options.vae_memory, decoding=decoding, warm_up=WARM_UP)


def whole_plan(config: VAEConfig, padded: Sides, *, decoding: bool) -> TilePlan:
    """Of one tile, the whole picture."""
    latent = padded[0] // config.spatial_factor, padded[1] // config.spatial_factor
    axes = zip(latent, describe(config, decoding).levels)
    height, width = (cut_axis(length, length, levels) for length, levels in axes)
    return plan_of(config, latent, Grid(height, width), 1, WARM_UP, decoding=decoding)


def whole_bytes(plan: TilePlan) -> int:
    """About what one program takes that does all layers at once."""
    return plan.tile_bytes + plan.whole_bytes


def is_whole(plan: TilePlan, options: Options) -> bool:
    """Whether whole pictures pass with all their caches."""
    fits = options.vae_memory is None or whole_bytes(plan) <= options.vae_memory
    return plan.count == 1 and fits and plan.carry_bytes["caches"] <= _budget(options)


class Encoder:
    """Low-quality frames to latents."""

    def __init__(self, programs: Programs, layout: Layout, options: Options):
        config = programs.vae_config
        plan = vae_plan(config, layout.padded, options, decoding=False)
        self.programs, self.layout = programs, layout
        self.tiled: TiledEncoder | None = None
        if not is_whole(plan, options):
            self.tiled = TiledEncoder(
                programs.vae, layout.padded, plan.tile, carry=options.carry, warm_up=WARM_UP
            )

    def __call__(
        self,
        clip: Frames,
        chunks: Sequence[np.ndarray],
        carry: Any,
        advance: Advance,
        *,
        keep: bool,
    ) -> tuple[HostLatent, Any]:
        """Latents of the frames numbered by `chunks`, one a latent frame; beyond the end, the last.

        `carry` is what the window before left, None at the scene's start; what comes back is this
        window's, None unless it is to `keep`.
        """
        if self.tiled is None:
            latents = []
            for index in chunks:
                latent, carry = self.programs.encode(self._enlarged(clip, index), carry)
                latents.append(np.asarray(latent))
                advance(1)
            return np.concatenate(latents, axis=1), jax.device_get(carry) if keep else None
        video = np.empty((1, sum(map(len, chunks)), *self.layout.padded, 3), np.float32)
        done = 0
        for index in chunks:
            video[:, done : done + len(index)] = self._enlarged(clip, index)
            done += len(index)
        _report(self.tiled, len(chunks), advance)
        latent, carry = self.tiled.encode(video, _copied(carry))
        return latent, carry if keep else None

    def _enlarged(self, clip: Frames, index: np.ndarray) -> jax.Array:
        return enlarge(take(clip, index), self.layout.size, self.layout.padded)


class Decoder:
    """Restored latents to frames."""

    def __init__(self, programs: Programs, layout: Layout, options: Options):
        config = programs.vae_config
        plan = vae_plan(config, layout.padded, options, decoding=True)
        self.programs = programs
        self.tiled: TiledDecoder | None = None
        if not is_whole(plan, options):
            self.tiled = TiledDecoder(
                programs.vae, layout.padded, plan.tile, carry=options.carry, warm_up=WARM_UP
            )

    def __call__(
        self,
        latents: HostLatent,
        carry: Any,
        put: Callable[[int, Any], object],
        advance: Advance,
        *,
        keep: bool,
    ) -> Any:
        """Calls `put(t, frames)` for each latent frame, frames [b, T, H, W, 3] in [−1, 1].

        `carry`, `keep` and what comes back are as the encoder's.
        """
        count = latents.shape[1]
        if self.tiled is None:
            for t in range(count):
                video, carry = self.programs.decode(latents[:, t : t + 1], carry)
                put(t, video)
                advance(1)
            return jax.device_get(carry) if keep else None
        _report(self.tiled, count, advance)
        lengths = [self.programs.vae_config.temporal_factor] * count
        if carry is None:
            lengths[0] = 1
        video, carry = self.tiled.decode(latents, _copied(carry))
        ends = np.cumsum(lengths)
        for t, end in enumerate(ends):
            put(t, video[:, end - lengths[t] : end])
        return carry if keep else None


def _report(tiled: TiledEncoder | TiledDecoder, chunks: int, advance: Advance) -> None:
    """Lets a tiled VAE tell of its tiles as if latent frames were done one by one."""
    told = 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        while told < chunks * done // total:
            told += 1
            advance(1 + total)

    tiled.progress = progress


def _copied(carry: Carry | None) -> Carry | None:
    """A carry that may be used up, of the same arrays."""
    if carry is None:
        return None
    return dataclasses.replace(carry, tiles=carry.tiles and list(carry.tiles))


def _budget(options: Options) -> int | float:
    return float("inf") if options.carry is None else options.carry
