"""The VAE against diffusers' AutoencoderKLWan, float32, weights away from 0 and 1."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from flax import nnx
from random_networks import fast_jit

from realisvsr_jax.vae.wan_vae import WAN_VAE, WanVAE
from realisvsr_jax.weights.vae_keymap import from_torch, to_torch

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

CONFIG = dataclasses.replace(
    WAN_VAE, base_dim=6, z_dim=4, mean=(0.0,) * 4, std=(1.0,) * 4, conv="native"
)
FRAMES = (1, 5, 9, 17)
HEIGHT, WIDTH = 16, 24  # 2 × 3 positions in the middle's attention


def relative_error(ours, theirs) -> float:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.fixture(scope="module")
def peer():
    """A random autoencoder in which every parameter matters."""
    torch.manual_seed(0)
    model = diffusers.AutoencoderKLWan(
        base_dim=CONFIG.base_dim,
        z_dim=CONFIG.z_dim,
        latents_mean=list(CONFIG.mean),
        latents_std=list(CONFIG.std),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.6, 1.6)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.3)
            else:
                # Wide enough for a peaked softmax, small enough not to leave [−1, 1] everywhere.
                scale = 2.0 if "to_qkv" in name else 1.0
                parameter.normal_(0.0, scale / np.sqrt(np.prod(parameter.shape[1:])))
        model.decoder.conv_out.weight.mul_(0.3)
    return model.eval()


def state_dict(model) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def ours(peer):
    graph, state = nnx.split(nnx.eval_shape(lambda: WanVAE(CONFIG, rngs=nnx.Rngs(0))))
    flat = from_torch(state_dict(peer), CONFIG)
    leaves = nnx.to_flat_state(state)
    assert {"/".join(map(str, path)): leaf.shape for path, leaf in leaves} == {
        path: value.shape for path, value in flat.items()
    }
    filled = [
        (path, leaf.replace(jnp.asarray(flat["/".join(map(str, path))]))) for path, leaf in leaves
    ]
    return nnx.merge(graph, nnx.from_flat_state(filled))


@pytest.mark.parametrize("frames", FRAMES)
def test_the_posterior_mean_equals_the_peers(peer, ours, frames):
    rng = np.random.default_rng(frames)
    video = rng.uniform(-1, 1, (2, frames, HEIGHT, WIDTH, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = peer.encode(torch.from_numpy(rearrange(video, "b t h w c -> b c t h w")))
    mean, log_variance = fast_jit(WanVAE.encode_moments)(ours, jnp.asarray(video))
    for a, b in ((mean, theirs.latent_dist.mean), (log_variance, theirs.latent_dist.logvar)):
        assert relative_error(a, rearrange(b.numpy(), "b c t h w -> b t h w c")) < 1e-5


@pytest.mark.parametrize("frames", FRAMES)
def test_decoded_frames_equal_the_peers(peer, ours, frames):
    rng = np.random.default_rng(frames)
    shape = (2, CONFIG.latent_frames(frames), HEIGHT // 8, WIDTH // 8, CONFIG.z_dim)
    z = rng.standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        theirs = peer.decode(torch.from_numpy(rearrange(z, "b t h w c -> b c t h w"))).sample
    video = fast_jit(WanVAE.decode)(ours, jnp.asarray(z))
    assert float((jnp.abs(video) < 1).mean()) > 0.8  # clamping hides little
    assert relative_error(video, rearrange(theirs.numpy(), "b c t h w -> b t h w c")) < 1e-5


def test_every_part_of_the_network_matters_to_the_comparison(peer):
    """Else an error in a module could hide behind a shortcut beside it."""
    rng = np.random.default_rng(0)
    video = torch.from_numpy(rng.uniform(-1, 1, (1, 3, 9, HEIGHT, WIDTH)).astype(np.float32))
    z = torch.from_numpy(rng.standard_normal((1, CONFIG.z_dim, 3, 2, 3)).astype(np.float32))
    mean, decoded = peer.encode(video).latent_dist.mean, peer.decode(z).sample
    parameters = dict(peer.named_parameters())
    gradients = torch.autograd.grad((mean**2).sum() + (decoded**2).sum(), parameters.values())
    for (name, parameter), gradient in zip(parameters.items(), gradients):
        assert (gradient * parameter).abs().sum().item() > 1e-2, name


def test_our_weights_load_into_the_peer_without_loss(peer, ours):
    """torch -> ours -> torch is bit-exact, and the peer accepts every name."""
    parameters = nnx.to_flat_state(nnx.state(ours))
    flat = {"/".join(map(str, path)): np.asarray(p[...]) for path, p in parameters}
    back = to_torch(flat, CONFIG)
    theirs = state_dict(peer)
    assert set(back) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(back[name], value)
    peer.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in back.items()})
