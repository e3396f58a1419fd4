"""The programs of a restoration, compiled for a device that is not there.

They are those of `sampling.programs`, for a clip of one window on one device. The networks are
shapes; both stay on the device whichever program runs.
"""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import SingleDeviceSharding

from realisvsr_jax.errors import InputError
from realisvsr_jax.model.realisvsr import RealisVSR
from realisvsr_jax.planning import arithmetic
from realisvsr_jax.sampling.denoise import Known
from realisvsr_jax.sampling.programs import Programs
from realisvsr_jax.sampling.solvers import make_schedule
from realisvsr_jax.sampling.tiles import Tiling, latent_tile, plan_tiles
from realisvsr_jax.text.prompt_cache import PromptCache
from realisvsr_jax.training import networks
from realisvsr_jax.training.settings import TrainingConfig
from realisvsr_jax.vae.wan_vae import WanVAE
from realisvsr_jax.weights.release import Release, ReleaseCard

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """One program: how often it runs, its FLOP in one run, bytes of weights that it does not take.

    `lower` takes seconds, so that it is for whoever compiles. `dtype` is that of most of its
    products, as `report.roofline` names it.
    """

    name: str
    lower: Callable[[], Any]
    times: int
    flops: float
    dtype: str
    beside: int


def size_of(config: TrainingConfig) -> Size:
    """Of the clip that is planned: the release's tile, else the first bucket."""
    return config.release.tile or config.data.buckets[0]


def clip_of(text: str, config: TrainingConfig) -> Size:
    """A clip "T×H×W" that is to be planned, by tiles of the release.

    Raises InputError for what is no size, what the VAE does not take, and more than one window.
    """
    found = re.fullmatch(r"(\d+)[x×](\d+)[x×](\d+)", text.strip().lower())
    if found is None:
        raise InputError(f"--clip is {text!r}; give frames, height and width, as 49x720x1280")
    frames, height, width = (int(side) for side in found.groups())
    longest = size_of(config)[0]
    if frames > longest:
        raise InputError(
            f"--clip has {frames} frames, a window {longest}; windows follow one another, so give "
            "the clip of one"
        )
    _, *patch = config.model.dit.patch_size
    step = config.vae.spatial_factor * max(patch)
    if not (height and width) or height % step or width % step:
        raise InputError(f"--clip {text}: height and width are multiples of {step}")
    try:
        config.vae.latent_size((frames, height, width))
    except ValueError as error:
        raise InputError(f"--clip {text}: {error}") from error
    return frames, height, width


def tiling_of(config: TrainingConfig, clip: Size) -> Tiling:
    """The tiles of the release that cover a clip; one where it has none."""
    latent, release = config.vae.latent_size(clip), config.release
    factors = (config.vae.temporal_factor, config.vae.spatial_factor)
    tile = latent_tile(release.tile, release.overlap, factors, config.model.dit.patch_size)
    (_, height, width), (_, down, right) = tile or (latent, (0, 0, 0))
    return plan_tiles(latent, (latent[0], height, width), (0, down, right))


def weights(config: TrainingConfig) -> tuple[Any, Any]:
    """The networks as shapes: transformer with control branch, VAE; float32, as they are read."""
    model = nnx.eval_shape(lambda: RealisVSR(config.model, rngs=nnx.Rngs(0)))
    return model, nnx.eval_shape(lambda: WanVAE(config.vae, rngs=nnx.Rngs(0)))


def weights_bytes(config: TrainingConfig) -> int:
    """Of both networks."""
    return sum(_bytes(nnx.state(network)) for network in weights(config))


def parts(config: TrainingConfig, size: Size, tiling: Tiling, device: Any) -> Iterator[Part]:
    """The VAE's encoder and decoder for a stream's first frame and for later ones; the sampler.

    Of a clip of `size`, which the VAE takes whole and the sampler by tiles, one in a call.
    Cropping, enlarging and colours are left out.
    """
    programs = _programs(config)
    place = SingleDeviceSharding(device)
    model, vae = (_on(nnx.state(network), place) for network in weights(config))
    model_bytes, vae_bytes = _bytes(model), _bytes(vae)
    latent = config.vae.latent_size(size)
    chunks, z = latent[0] - 1, config.vae.z_dim

    def chain(name: str, program: Any, shape: Any, count: Any, work: Any) -> Iterator[Part]:
        """Of the first frame, then of the others."""
        cache = None
        for label, index, times in (("first", 0, 1), ("next", 1, chunks)):
            if not times:
                continue
            x = jax.ShapeDtypeStruct(shape(count[index]), jnp.float32, sharding=place)
            lower = functools.partial(program.lower, vae, x, cache)
            once = work[0] if index == 0 else (work[1] - work[0]) / chunks
            yield Part(f"{name}, {label} frame", lower, times, once, arithmetic_of, model_bytes)
            cache = _on(jax.eval_shape(program, vae, x, cache)[1], place)

    arithmetic_of = "high" if config.vae.precision == "high" else "float32"
    frames = (1, config.vae.temporal_factor)
    encoding = [arithmetic.encode(config.vae, (n, *size[1:])) for n in (1, size[0])]
    decoding = [arithmetic.decode(config.vae, (n, *latent[1:])) for n in (1, latent[0])]
    encode, decode = programs._encode, programs._decode
    yield from chain("VAE encode", encode, lambda n: (1, n, *size[1:], 3), frames, encoding)
    yield _sampler(config, programs, (latent, tiling), place, model, vae_bytes)
    yield from chain("VAE decode", decode, lambda n: (1, n, *latent[1:], z), (1, 1), decoding)


def _sampler(
    config: TrainingConfig,
    programs: Programs,
    sizes: tuple[Size, Tiling],
    place: Any,
    model: Any,
    beside: int,
) -> Part:
    """All steps of the sampler, guidance included, as one program."""
    latent, tiling = sizes
    dit, sampler = config.model.dit, config.sampler
    forwards = 1 if sampler.guidance == 1 else 2
    shapes: list[Any] = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
        for shape in (
            (1, *latent, config.vae.z_dim),
            (1, dit.text_length, dit.text_dim),
            (latent[0],),
        )
    ]
    z, text, mask = shapes
    lower = functools.partial(
        programs._sample.lower,
        model,
        z,
        (text, text if forwards == 2 else None),
        (np.float32(sampler.guidance), np.float32(config.condition_scale)),
        jax.tree.map(np.float32, make_schedule(sampler)),
        z,
        Known(z, mask),
        tiling=tiling,
        batch=1,
        fusing="steps",
    )
    once = tiling.count * sum(arithmetic.forward(config.model, tiling.size).values())
    tiles = f" of {tiling.count} tiles" if tiling.count > 1 else ""
    name = f"sampler, {sampler.steps} steps{tiles}"
    return Part(name, lower, 1, sampler.steps * forwards * once, dit.dtype, beside)


def _programs(config: TrainingConfig) -> Programs:
    model, vae = weights(config)
    card = networks.described(ReleaseCard(model=config.model, vae=config.vae), config)
    dit = config.model.dit
    prompts = PromptCache.empty_prompt_only(dit.text_length, dit.text_dim)
    return Programs(Release(card, vae, model, prompts))


def _on(tree: Any, place: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree
    )


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
