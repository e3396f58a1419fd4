"""The VAE against diffusers' AutoencoderKLWan, with Wan's own statistics."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from realisvsr_jax.vae.wan_vae import WAN_VAE, WanVAE
from realisvsr_jax.weights.vae_keymap import rules
from tests.parity import peers
from tests.parity.peers import PART, Row, relative_error
from tests.random_networks import fast_jit

CONFIG = dataclasses.replace(WAN_VAE, base_dim=6, conv="native")
FRAMES = (1, 5, 9, 17)
HEIGHT, WIDTH = 24, 56  # 3 × 7 positions in the middle's attention


@functools.cache
def peer():
    return peers.autoencoder(CONFIG)


@functools.cache
def ours() -> WanVAE:
    """Our network with the peer's parameters."""
    constructor = lambda: WanVAE(CONFIG, rngs=nnx.Rngs(0))  # noqa: E731
    return peers.filled(constructor, rules(CONFIG), peers.state_dict(peer()))


def statistics() -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the latents, diffusers' own numbers."""
    config = peer().config
    return np.array(config.latents_mean, np.float32), np.array(config.latents_std, np.float32)


def clip(frames: int) -> np.ndarray:
    rng = np.random.default_rng(frames)
    return rng.uniform(-1, 1, (2, frames, HEIGHT, WIDTH, 3)).astype(np.float32)


def latent(frames: int) -> np.ndarray:
    """Of as many frames of video."""
    size = CONFIG.latent_size((frames, HEIGHT, WIDTH))
    rng = np.random.default_rng(frames)
    return rng.standard_normal((2, *size, CONFIG.z_dim)).astype(np.float32)


@functools.cache
@torch.no_grad()
def posterior(frames: int):
    """The peer's posterior of the clip."""
    return peer().encode(peers.channels_first(clip(frames))).latent_dist


@functools.cache
@torch.no_grad()
def decoded(frames: int) -> np.ndarray:
    """The peer's video of the latent."""
    mean, std = statistics()
    return peers.channels_last(peer().decode(peers.channels_first(latent(frames) * std + mean))[0])


def run(method, x: np.ndarray):
    """A method of our network; compiled anew, since tests put mistakes into the code."""
    return fast_jit(lambda vae, x: method(vae, x))(ours(), jnp.asarray(x))


def encode() -> list[Row]:
    """The worst of the latent, the posterior's mean and its log variance."""
    rows = []
    for frames in FRAMES:
        video, theirs = clip(frames), posterior(frames)
        mean, std = statistics()
        latents = (peers.channels_last(theirs.mean) - mean) / std
        found = fast_jit(lambda vae, x: (vae.encode(x), *vae.encode_moments(x)))(
            ours(), jnp.asarray(video)
        )
        expected = (latents, *map(peers.channels_last, (theirs.mean, theirs.logvar)))
        error = peers.worst(map(relative_error, found, expected))
        rows.append(Row("VAE encode", "diffusers", peers.times(*video.shape), error, PART))
    return rows


def decode() -> list[Row]:
    """Video, clamped."""
    rows = []
    for frames in FRAMES:
        video = run(WanVAE.decode, latent(frames))
        error = relative_error(video, decoded(frames))
        rows.append(Row("VAE decode", "diffusers", peers.times(*video.shape), error, PART))
    return rows
