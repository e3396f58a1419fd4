"""What a scene will take before anything runs: sizes, tiles, windows, and bytes by formula."""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from realisvsr_jax.model.attention import resolved, scores_at_once
from realisvsr_jax.model.realisvsr import RealisVSR, RealisVSRConfig
from realisvsr_jax.sampling.frames import Sides
from realisvsr_jax.sampling.layout import Layout, make_layout
from realisvsr_jax.sampling.options import Options
from realisvsr_jax.sampling.programs import tiles_at_once, tiles_per_call
from realisvsr_jax.sampling.streams import is_whole, vae_plan, whole_bytes
from realisvsr_jax.sampling.tiles import Size, Tiling
from realisvsr_jax.sampling.windows import Window
from realisvsr_jax.vae.tile_plan import TilePlan, kind_within
from realisvsr_jax.weights.release import ReleaseCard

FLOAT = 4  # bytes
COPIES = 4
"""Of a block's residual stream and hidden layer that are alive beside its weights."""
BUSY = 2**16
"""Tokens that a device has in one call at most: it is busy, and more would only take memory."""


@dataclass(frozen=True)
class ScenePlan:
    """Of one scene.

    `size` is (h, w) of the result, `padded` that of the VAE's frames, `latent` (t, h, w) of a
    window. `tiling` is of a window, `batch` tiles go through the network in one call, of which a
    step has `calls`. `encoder` and `decoder` are the VAE's tiles, `tiled` which of them are used.
    `device_bytes` estimates the peak of each stage on one device, the weights of the transformer
    included; `host_bytes` what a window takes on the host. `state_bytes` pass from one window to
    the next; while a window runs, there are two of them.
    """

    size: Sides
    padded: Sides
    latent: Size
    windows: tuple[Window, ...]
    tiling: Tiling
    batch: int
    calls: int
    steps: int
    encoder: TilePlan
    decoder: TilePlan
    tiled: dict[str, bool]
    device_bytes: dict[str, int]
    host_bytes: int
    state_bytes: int


def plan(
    card: ReleaseCard,
    height: int,
    width: int,
    frames: int,
    options: Options,
    *,
    devices: int = 1,
    itemsize: int = 1,
    platform: str | None = None,
) -> ScenePlan:
    """For a scene of `frames` frames of `height`×`width` pixels, before the weights are read.

    `itemsize` is the bytes of a value of the frames that go in and come out. `platform` is JAX's
    name of the devices' kind, None for those of this process. Raises InputError as `SceneRestorer`
    does.
    """
    assert card.model is not None
    assert card.vae is not None
    layout = make_layout(card, height, width, options)
    spans = layout.spans(frames)
    tiling = layout.tiling(spans[0].size)
    platform = platform or jax.default_backend()
    latent = (spans[0].size, *layout.latent)
    batch = batch_within(card, tiling, latent, options, devices, platform)
    vae = {
        name: vae_plan(card.vae, layout.padded, options, decoding=name == "decode")
        for name in ("encode", "decode")
    }
    whole = {name: is_whole(tiles, options) for name, tiles in vae.items()}
    weights = model_bytes(card.model)
    stages = {
        name: weights
        + (whole_bytes(tiles) if whole[name] else max(tiles.tile_bytes, tiles.whole_bytes))
        for name, tiles in vae.items()
    }
    each = batch // tiles_at_once(devices, tiling.count)
    stages["sample"] = sampler_bytes(
        card, tiling.size, latent, each, devices // tiles_at_once(devices, tiling.count), platform
    )
    state = _state_bytes(layout, options, vae, whole, card.vae.z_dim) if spans[1:] else 0
    return ScenePlan(
        size=layout.size,
        padded=layout.padded,
        latent=latent,
        windows=tuple(layout.windows(frames)),
        tiling=tiling,
        batch=batch,
        calls=math.ceil(tiling.count / batch),
        steps=options.steps or card.sampler.steps,
        encoder=vae["encode"],
        decoder=vae["decode"],
        tiled={name: not fits for name, fits in whole.items()},
        device_bytes=stages,
        host_bytes=2 * state + _window_bytes(layout, latent, height * width, vae, whole, itemsize),
        state_bytes=state,
    )


def batch_within(
    card: ReleaseCard,
    tiling: Tiling,
    latent: Size,
    options: Options,
    devices: int,
    platform: str,
) -> int:
    """Tiles in one call of the network: those that `options` asks for, or as many as they allow.

    Those are as many as the sampler's memory has room for by formula, up to BUSY tokens a device.
    """
    least = tiles_at_once(devices, tiling.count)
    if options.batch or options.sampler_memory is None:
        return tiles_per_call(options.batch, devices, tiling.count)
    assert card.model is not None
    sharing = devices // least
    tokens = _tokens(tiling.size, card.model.dit.patch_size)
    each = min(-(-tiling.count // least), max(1, BUSY * sharing // tokens))
    while each > 1:
        needed = sampler_bytes(card, tiling.size, latent, each, sharing, platform)
        if needed <= options.sampler_memory:
            break
        each -= 1
    return evened(each, least, tiling.count)


def evened(each: int, least: int, tiles: int) -> int:
    """Tiles in one call: as few as need no more calls than `each` times `least` do."""
    calls = -(-tiles // (each * least))
    return least * -(-tiles // (calls * least))


def sampler_bytes(
    card: ReleaseCard, tile: Size, latent: Size, batch: int, sharing: int, platform: str
) -> int:
    """About what the sampler takes on one device: weights, control features, a block, latents.

    `batch` are the tiles that one device has at once, whose tokens `sharing` devices share. It is
    a formula; the compiler knows better (`plan --program sample`).
    """
    assert card.model is not None
    assert card.vae is not None
    dit = card.model.dit
    tokens = _tokens(tile, dit.patch_size)
    here = batch * -(-tokens // sharing)
    dtype = jnp.dtype(dit.dtype)
    blocks = 0 if card.model.cpc is None else card.model.cpc.num_blocks
    features = here * dit.dim * FLOAT * blocks
    block = COPIES * here * (dit.dim * FLOAT + dit.dim * dtype.itemsize)
    block += 2 * here * dit.ffn_dim * dtype.itemsize
    fused = resolved(dit.attention, platform, dtype, dit.head_dim) != "xla"
    most = scores_at_once(platform)
    scores = 0 if fused else min(most, here * tokens * dit.num_heads)
    samples = 12 * math.prod(latent) * card.vae.z_dim * FLOAT
    return model_bytes(card.model) + features + block + 2 * scores * FLOAT + samples


def _tokens(tile: Size, patch: Size) -> int:
    return math.prod(-(-side // whole) for side, whole in zip(tile, patch))


@functools.lru_cache
def model_bytes(config: RealisVSRConfig) -> int:
    """Of the transformer and its control branch, float32."""
    model = nnx.eval_shape(lambda: RealisVSR(config, rngs=nnx.Rngs(0)))
    return sum(leaf.size * FLOAT for leaf in jax.tree.leaves(nnx.state(model)))


def _state_bytes(
    layout: Layout,
    options: Options,
    vae: dict[str, TilePlan],
    whole: dict[str, bool],
    channels: int,
) -> int:
    """Known latents and conditions, and what the VAE's two streams carry."""
    carried = 0
    for name, tiles in vae.items():
        budget = None if whole[name] else options.carry
        carried += tiles.carry_bytes[kind_within(tiles.carry_bytes, budget)]
    return carried + 2 * (layout.window - 1) * math.prod(layout.latent) * channels * FLOAT


def _window_bytes(
    layout: Layout,
    latent: Size,
    pixels: int,
    vae: dict[str, TilePlan],
    whole: dict[str, bool],
    itemsize: int,
) -> int:
    """Frames in and out, and what the larger of the VAE's two halves keeps of them as floats."""
    frames = 1 + (latent[0] - 1) * layout.factor
    given = 3 * frames * itemsize * (pixels + math.prod(layout.size))
    frame = 3 * FLOAT * math.prod(layout.padded)
    floats = []
    for name, tiles in vae.items():
        held = 0 if whole[name] else frames * frame + latent[0] * tiles.features_bytes
        floats.append(2 * layout.factor * frame + held)
    return given + max(floats)
