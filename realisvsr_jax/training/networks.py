"""The networks a run starts from: drawn at random, or taken from a release."""

import contextlib
import dataclasses
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from realisvsr_jax import settings
from realisvsr_jax.errors import InputError
from realisvsr_jax.model.realisvsr import RealisVSR
from realisvsr_jax.model.wan_dit import WanDiT
from realisvsr_jax.resize import to_float
from realisvsr_jax.text.prompt_cache import PromptCache
from realisvsr_jax.training.settings import TrainingConfig
from realisvsr_jax.vae.wan_vae import VAEConfig, WanVAE
from realisvsr_jax.weights import importing, sources
from realisvsr_jax.weights.release import Release, ReleaseCard, is_release, load_release

SHIPPED = "tiny"
# Settings of a network that say how to run it, not what its weights mean.
RUNNING = ("dit.dtype", "dit.residual_dtype", "dit.attention", "dit.remat")


def shipped_release() -> Path:
    """The folder of the release that the package brings."""
    return Path(str(resources.files("realisvsr_jax"))) / "assets" / SHIPPED


def weights_path(name: str, text: bool = True) -> Path:
    """The release, or the PyTorch checkpoint, that `init` or `init_vae` names.

    Without `text`, a text encoder need not be fetched with it. Raises InputError if there is
    none, and where the hub cannot be reached.
    """
    return shipped_release() if name == SHIPPED else sources.resolve(name, text)


def load_weights(name: str, text: bool = True) -> Release:
    """The networks of a release folder, or of a PyTorch checkpoint as it is."""
    try:
        path = weights_path(name, text)
        return load_release(path) if is_release(path) else importing.load_checkpoint(path, text)
    except InputError as error:
        raise InputError(f"init: {error}") from error


@contextlib.contextmanager
def on_host() -> Iterator[None]:
    """What is made in the block lies in the host's memory, if JAX may use the CPU."""
    try:
        host = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names the accelerator alone
        yield
        return
    with jax.default_device(host):
        yield


def initial_release(config: TrainingConfig) -> Release:
    """The networks before the first step, with the card that an export will carry."""
    base = load_weights(config.init, not config.prompt_cache) if config.init else None
    return complete(base, config)


def complete(base: Release | None, config: TrainingConfig) -> Release:
    """`base` with everything that a run needs and it lacks: a VAE, a transformer, its control."""
    having_vae = load_weights(config.init_vae, False) if config.init_vae else base
    vae = having_vae.vae if having_vae else None
    vae_config = having_vae.card.vae if having_vae else config.vae
    if vae_config is None:
        name = config.init_vae or config.init
        raise InputError(f"init: {name} has no VAE; give one with --config.init_vae=PATH")
    how = {"conv": config.vae.conv, "precision": config.vae.precision}
    if vae is None:
        vae = WanVAE(vae_config, rngs=nnx.Rngs(config.seed))
    else:
        vae_config = dataclasses.replace(vae_config, **how)
        vae = vae.configured(vae_config)
    card = described(ReleaseCard(vae=vae_config), config)
    if config.task == "vae":
        return Release(card, vae)
    model = base.model if base else None
    if base and (difference := _first_difference(base.card.model, config.model)):
        raise InputError(f"init: {config.init} is of another architecture: {difference}")
    if model is not None:
        model = _configured(model, config)
    if config.model.dit.in_channels != vae_config.z_dim:
        raise InputError(
            f"model.dit.in_channels is {config.model.dit.in_channels}, the VAE's latents have "
            f"{vae_config.z_dim} channels"
        )
    if model is None:
        model = RealisVSR(config.model, rngs=nnx.Rngs(config.seed))
        model.init_cpc_from_dit()
    prompts = _prompts(config, base)
    return Release(dataclasses.replace(card, model=config.model), vae, model, prompts)


def described(card: ReleaseCard, config: TrainingConfig) -> ReleaseCard:
    """The card with what the configuration says of the weights: it may change after training."""
    return dataclasses.replace(
        card,
        sampler=config.sampler,
        scale=config.release.scale,
        tile=config.release.tile,
        overlap=config.release.overlap,
    )


def _prompts(config: TrainingConfig, base: Release | None) -> PromptCache:
    size = (config.model.dit.text_length, config.model.dit.text_dim)
    if config.prompt_cache:
        return PromptCache.load(Path(config.prompt_cache), *size)
    if base and base.prompts:
        return base.prompts
    return PromptCache.empty_prompt_only(*size)


def _configured(model: RealisVSR, config: TrainingConfig) -> RealisVSR:
    """The same weights, with a control branch and as the configuration says to run them."""
    graph, _ = nnx.split(nnx.eval_shape(lambda: WanDiT(config.model.dit, rngs=nnx.Rngs(0))))
    dit = nnx.merge(graph, nnx.state(model.dit))
    if model.config.cpc is None:
        return RealisVSR(config.model, rngs=nnx.Rngs(config.seed), dit=dit)
    graph, _ = nnx.split(nnx.eval_shape(lambda: RealisVSR(config.model, rngs=nnx.Rngs(0))))
    return nnx.merge(graph, nnx.state(model))


def _first_difference(have: object, want: object) -> str:
    """'name: is x, the config says y' for the first setting in which two cards differ."""
    if have is None:
        return "it has no transformer"
    flat_have, flat_want = (settings.flatten(settings.to_mapping(card)) for card in (have, want))
    for name, value in flat_want.items():
        if name.startswith("cpc.") and "cpc" in flat_have:
            continue  # it has none, and gets the one that is wanted
        if name not in RUNNING and flat_have.get(name) != value:
            return f"{name} is {flat_have.get(name)}, the config says {value}"
    return ""


def normalised(vae: WanVAE, config: VAEConfig, clips: list[np.ndarray]) -> tuple[WanVAE, VAEConfig]:
    """The same weights with each latent channel's mean and deviation over `clips` (bytes).

    Wan's constants belong to Wan's weights; another VAE measures its own after its training.
    """

    @nnx.jit
    def raw_mean(network: WanVAE, video: jax.Array) -> jax.Array:
        return network.encode_moments(to_float(video))[0]

    latents = [np.asarray(raw_mean(vae, jnp.asarray(clip)), np.float64) for clip in clips]
    flat = np.concatenate([z.reshape(-1, z.shape[-1]) for z in latents])
    mean, deviation = flat.mean(0), flat.std(0)
    config = dataclasses.replace(
        config,
        mean=tuple(round(float(m), 6) for m in mean),
        std=tuple(round(float(s), 6) for s in deviation),
    )
    return vae.configured(config), config
