"""What makes the comparison of the VAE with diffusers a strict one."""

import numpy as np
import torch

from tests.parity import vae
from tests.parity.vae import CONFIG


def test_every_part_of_the_network_matters_to_the_comparison():
    """Else an error in a module could hide behind a shortcut beside it."""
    rng = np.random.default_rng(0)
    video = torch.from_numpy(rng.uniform(-1, 1, (1, 3, 9, 16, 24)).astype(np.float32))
    z = torch.from_numpy(rng.standard_normal((1, CONFIG.z_dim, 3, 2, 3)).astype(np.float32))
    mean, decoded = vae.peer().encode(video).latent_dist.mean, vae.peer().decode(z).sample
    parameters = dict(vae.peer().named_parameters())
    gradients = torch.autograd.grad((mean**2).sum() + (decoded**2).sum(), parameters.values())
    for (name, parameter), gradient in zip(parameters.items(), gradients):
        assert (gradient * parameter).abs().sum().item() > 1e-2, name


def test_clamping_hides_little():
    assert (np.abs(vae.decoded(5)) < 1).mean() > 0.8
